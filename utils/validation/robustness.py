"""How much of what is predicted survives a disturbed input: noise on the embeddings or pixels, other tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from utils.core.check import Check
from utils.core.plots import canvas
from utils.models.adapter import Adapter
from utils.validation.inputs import logits_at, values_of
from utils.validation.steady import Effort, WithoutDropout, untouched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISE = (0.01, 0.03, 0.1, 0.3, 1.0)
TOKENS = (0.02, 0.05, 0.1, 0.2, 0.5)
FLIPS = 0.5
INPUTS = 2


def compare(clean: Tensor, disturbed: Tensor) -> tuple[Tensor, Tensor]:
    """Of logits (..., V): whether the likeliest class is the same, and KL(clean || disturbed) in nats."""
    before, after = clean.log_softmax(-1), disturbed.log_softmax(-1)
    same = clean.argmax(-1) == disturbed.argmax(-1)
    return same, (before.exp() * (before - after)).sum(-1).clamp(min=0)


def robustness(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """Top-1 agreement with the clean input, KL divergence and flips (1 - agreement), by the size of a disturbance.

    Noise is Gaussian, its size relative to the root mean square of the embeddings (pixels); a replaced token is any
    other. Warns where noise of 1% flips over half of the predictions, or makes one that is not finite: a hundredth is
    near the rounding of bf16 (2^-8, 0.4%), so such a model answers differently in mixed precision. An untrained model
    has many near ties, and stays well under that.
    """
    name = "robustness"
    rows: list[dict[str, Any]] = []
    with untouched(adapter, seed=seed), WithoutDropout(), torch.no_grad():
        for index in range(min(effort.inputs, INPUTS)):
            batch = adapter.batch(effort.rows, effort.length_for(adapter), seed=seed + index)
            generator = torch.Generator().manual_seed(seed + index)
            clean = adapter(batch)
            for kind, size, logits in (*_noise(adapter, batch, generator), *_replaced(adapter, batch, generator)):
                same, divergence = compare(clean, logits)
                rows.append({
                    "disturbance": kind, "size": size, "agreement": float(same.float().mean()),
                    "KL (nats)": float(divergence.mean()), "finite": bool(logits.isfinite().all()),
                })  # fmt: skip
    table = pd.DataFrame(rows).groupby(["disturbance", "size"], as_index=False, sort=False).mean()
    table["finite"] = table["finite"] == 1
    table.insert(3, "flips", 1 - table["agreement"])
    parts = []
    for kind, part in table.groupby("disturbance", sort=False):
        low, high = part.iloc[0], part.iloc[-1]
        parts.append(f"{low['agreement']:.0%} of predictions stay at {low['size']:.0%} {kind}, "
                     f"{high['agreement']:.0%} at {high['size']:.0%}")  # fmt: skip
    text = "; ".join(parts)
    least = table[table["disturbance"] == "noise"].head(1)
    bad = bool((least["flips"] > FLIPS).any())
    if not table["finite"].all():
        bad, text = True, f"a disturbed input gives predictions that are not finite; {text}"
    elif bad:
        text = f"rounding alone would change most predictions: {text}"
    elif least.empty:
        text += "; no noise was tried, because no nn.Embedding takes the ids"
    return Check(name, "warn" if bad else "pass", text, table, plot_robustness(table), critical=False)


def _noise(
    adapter: Adapter, batch: dict[str, Tensor], generator: torch.Generator
) -> Iterator[tuple[str, float, Tensor]]:
    values = values_of(adapter, batch)
    if values is None:
        return
    noise = torch.randn(values.shape, generator=generator).to(values.device, values.dtype)
    scale = values.float().square().mean().sqrt().to(values.dtype)
    for size in NOISE:
        yield "noise", size, logits_at(adapter, batch, values + size * scale * noise)


def _replaced(
    adapter: Adapter, batch: dict[str, Tensor], generator: torch.Generator
) -> Iterator[tuple[str, float, Tensor]]:
    if not adapter.text:
        return
    ids = batch["input_ids"]
    order = torch.rand(ids.shape, generator=generator).argsort(-1).argsort(-1)  # the rank of each position
    others = adapter.random_ids(ids.shape, generator).to(ids.device)
    for share in TOKENS:
        chosen = (order < max(1, round(share * ids.shape[1]))).to(ids.device)
        yield "replaced tokens", share, adapter({**batch, "input_ids": ids.where(~chosen, others)})


def plot_robustness(table: pd.DataFrame) -> Figure:
    """Agreement and KL divergence over the size of the disturbance."""
    with canvas(ncols=2, figsize=(10, 3.2)) as axes:
        for kind, part in table.groupby("disturbance", sort=False):
            axes[0].plot(part["size"], part["agreement"], marker="o", label=kind)
            axes[1].plot(part["size"], part["KL (nats)"].where(part["KL (nats)"] > 0), marker="o", label=kind)
        axes[0].set(title="Predictions that stay", ylabel="top-1 agreement", ylim=(-0.03, 1.03))
        axes[1].set(
            title="KL(clean || disturbed)", ylabel="nats", yscale="log" if (table["KL (nats)"] > 0).any() else "linear"
        )
        for ax in axes:
            ax.set(xscale="log", xlabel="noise (of the RMS), or share of tokens")
        axes[0].legend()
        return axes[0].figure
