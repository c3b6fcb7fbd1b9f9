"""Are the numbers finite, in fp32 and bf16, for inputs of all sizes?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from utils.core.check import Check
from utils.models.adapter import Adapter
from utils.validation.steady import Effort, untouched

SCALES = (1.0, 10.0, 100.0, 1e3, 1e4)
FP16_MAX = 65504


def numerical_stability(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """No NaN or Inf in fp32 and bf16: for random and constant inputs, the full context, and inputs times up to 10,000.

    What is scaled is the output of the token embedding (or the pixels), which grows in training. A NaN, an infinite
    logit, or a row of -inf alone fails (single -inf logits rule out a token, and are fine). Activations above 65,504,
    fp16's largest number, at natural inputs are a warning: on a GPU without bf16 the model overflows.
    """
    import pandas

    name, rows = "numerical stability", []
    scalable = adapter.embedding is not None or not adapter.text
    with untouched(adapter, seed=seed), torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            for label, batch in _inputs(adapter, effort, seed):
                for scale in SCALES if label == "random" and scalable else (1.0,):
                    with _Scaled(adapter, scale) as scaled, _precision(adapter.device, dtype):
                        logits = adapter(scaled.batch(batch))
                    row = {"input": label, "times": scale, "precision": str(dtype).removeprefix("torch.")}
                    rows.append({**row, "finite": is_finite(logits), "largest activation": scaled.largest})
    same = ["input", "times", "precision"]
    table = (
        pandas.DataFrame(rows)
        .groupby(same, sort=False)
        .agg(batches=("finite", "size"), finite=("finite", "all"), largest=("largest activation", "max"))
    )
    table = table.rename(columns={"largest": "largest activation"}).reset_index()
    bad = table[~table["finite"]]
    if len(bad):
        first = bad.iloc[0]
        times = f" times {first['times']:,.0f}" if first["times"] > 1 else ""
        summary = (
            f"NaN or Inf with {first['input']} inputs{times} in {first['precision']}: look for an exp, log, division "
            "or square root without a bound (a softmax subtracts its maximum first)"
        )
        return Check(name, "fail", summary, table)
    peak = table[table["times"] == 1]["largest activation"].max()
    if peak > FP16_MAX:
        summary = (
            f"activations reach {peak:.1e}, beyond fp16's {FP16_MAX:,}: on a GPU without bf16 this overflows; look at "
            "the scale of the residual branches"
        )
        return Check(name, "warn", summary, table)
    return Check(name, "pass", f"finite for {len(rows)} batches; the largest activation is {peak:.3g}", table)


def is_finite(logits: Tensor) -> bool:
    """No NaN, no +inf, and something finite in every row."""
    return not bool((logits.isnan() | logits.isposinf()).any()) and bool(logits.isfinite().any(-1).all())


def _precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def _inputs(adapter: Adapter, effort: Effort, seed: int) -> list[tuple[str, dict[str, Tensor]]]:
    """Labelled batches: random ones, constant ones, and a row of the full context."""
    length = effort.length_for(adapter)
    batches = [("random", adapter.batch(effort.rows, length, seed=seed + number)) for number in range(effort.inputs)]
    base = adapter.batch(2, length, seed=seed)
    if not adapter.text:
        pixels = base["pixel_values"]
        fills = [("black", torch.zeros_like(pixels)), ("white", torch.ones_like(pixels))]
        return batches + [(label, base | {"pixel_values": fill}) for label, fill in fills]
    sizes = {"input_ids": adapter.usable_ids, "decoder_input_ids": adapter.target_size or adapter.usable_ids}
    largest = {key: size - 1 for key, size in sizes.items() if key in base}
    for label, identities in (("smallest id", dict.fromkeys(largest, 0)), ("largest id", largest)):
        batches.append((label, base | {key: among(base[key], identity) for key, identity in identities.items()}))
    if adapter.limit is not None:
        batches.append(("full context", adapter.batch(1, effort.full(adapter), seed=seed)))
    return batches


def among(ids: Tensor, identity: int) -> Tensor:
    """The ids (B, T) with `identity` in every place but the first: a row of nothing but padding has no meaning."""
    ids = ids.clone()
    ids[:, 1 if ids.shape[1] > 1 else 0 :] = identity
    return ids


class _Scaled:
    """While open, multiplies what the model reads by `scale`, and notes the largest activation of any module."""

    def __init__(self, adapter: Adapter, scale: float):
        self.adapter, self.scale, self.largest = adapter, scale, 0.0

    def batch(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return batch if self.adapter.text else batch | {"pixel_values": batch["pixel_values"] * self.scale}

    def __enter__(self) -> _Scaled:
        self.hooks = [module.register_forward_hook(self._note) for module in self.adapter.model.modules()]
        if self.adapter.embedding is not None and self.scale != 1:
            self.hooks.append(self.adapter.embedding.register_forward_hook(self._multiply))
        return self

    def _multiply(self, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return output * self.scale

    def _note(self, module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.is_nested:  # torch's encoder on padded rows
            output = output.values()
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            if output.min() == float("-inf"):  # rules something out, as in a mask
                output = output.masked_fill(output == float("-inf"), 0)
            self.largest = max(self.largest, output.abs().max().item())

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()
