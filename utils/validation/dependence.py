"""What an output depends on: its input, nothing later (causality), no padding, no other row, no chance.

Two calls are compared after the same seed; where their shapes are equal, a sound model's answers are equal bit for
bit on a CPU, so the tolerances are far below any real dependence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from utils.core.check import Check
from utils.core.repro import seed_generators
from utils.models.adapter import Adapter
from utils.validation.steady import (
    Effort,
    WithoutDropout,
    backward_in_eval,
    blank,
    frame,
    untouched,
)

SAME = 1e-5  # of the largest logit, for calls of equal shape
CLOSE = 1e-4  # for calls of different shapes, whose products are summed in another order


def input_sensitivity(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """Different inputs give different outputs. Threshold: a change above 1e-5 of the largest logit.

    A model whose answer does not depend on what it reads has lost its input on the way (a detached or overwritten
    tensor, zeroed activations); no training can repair that.
    """
    name = "input sensitivity"
    if blank(adapter):
        return Check(
            name, "skip", "every weight matrix is constant, see initialisation; nothing can depend on the input"
        )
    if not sees_input(adapter, effort, seed):
        return Check(
            name, "fail", "the output is the same for every input: look for a place where the input is overwritten, "
            "multiplied by zero or not used at all",
        )  # fmt: skip
    return Check(name, "pass", "different inputs give different outputs")


def sees_input(adapter: Adapter, effort: Effort, seed: int) -> bool:
    """Whether the output differs between random inputs; where a zero-initialised head hides it, after one step."""
    first, second = (adapter.batch(2, effort.length_for(adapter), seed=seed + shift) for shift in (0, 1))

    def differs() -> bool:
        with torch.no_grad():
            one, two = _twice(adapter, first, second, seed)
        return change(one, two) > SAME

    with untouched(adapter, seed=seed):
        if differs():
            return True
    if not adapter.head:
        return False
    with untouched(adapter, weights=True, seed=seed):  # a zero head (as in nanochat) lives after a step or two
        for _ in range(2):
            sign_step(adapter, first)
        return differs()


def sees_context(adapter: Adapter, batch: dict[str, Tensor], seed: int) -> bool:
    """Whether the last position's output changes with the tokens before it, and with a seq2seq model's source."""
    other = adapter.batch(len(batch["labels"]), batch["labels"].shape[1], seed=seed + 1)
    changed = dict(other)
    changed[adapter.varied] = torch.cat((other[adapter.varied][:, :-1], batch[adapter.varied][:, -1:]), dim=1)
    with untouched(adapter, seed=seed), torch.no_grad():
        one, two = _twice(adapter, batch, changed, seed)
    return change(one[:, -1], two[:, -1], one) > 1e-7


def sign_step(adapter: Adapter, batch: dict[str, Tensor], size: float = 1e-3) -> None:
    """One step of sign descent: moves every parameter that has a gradient, however small, by `size`."""
    with torch.enable_grad(), WithoutDropout(), backward_in_eval():
        loss = adapter.loss(batch)
        if loss.requires_grad:
            loss.backward()
    with torch.no_grad():
        for parameter in adapter.model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad.sign(), alpha=size)
                parameter.grad = None


def causality(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """No position's output changes with a later token: of the ids, or of the decoder's ids for seq2seq.

    Threshold: 1e-5 of the largest logit; the two calls have equal shapes, so a causal model shows 0. A leak makes the
    training loss fall far below what the model can do when it generates, where the future is not there to copy. An
    optional mask is given and left out, as callers do.
    """
    name = "causality"
    if adapter.kind not in ("causal_lm", "seq2seq"):
        return Check(name, "skip", f"{adapter.kind} models may look at every position")
    length = effort.length_for(adapter)
    if length < 2:
        return Check(name, "skip", "the context holds one token: there is no future")
    batch, other = (adapter.batch(2, length, seed=seed + shift) for shift in (0, 1))
    key, rows = adapter.varied, []
    masks = [mask for mask in ("attention_mask", "decoder_attention_mask") if mask in batch]
    with untouched(adapter, seed=seed), torch.no_grad():
        for masked in (True, False) if masks and not any(map(adapter.signature.needs, masks)) else (bool(masks),):
            for cut in sorted({1, length // 2, length - 1}):
                given = {name: value for name, value in batch.items() if masked or name not in masks}
                changed = dict(given)
                changed[key] = torch.cat((batch[key][:, :cut], other[key][:, cut:]), dim=1)
                one, two = _twice(adapter, given, changed, seed)
                leak = change(one[:, :cut], two[:, :cut], one)
                rows.append({"attention_mask": masked, "tokens changed from": cut, "largest change before": leak})
    table = frame(rows)
    leaks = table[table["largest change before"] > SAME]
    if len(leaks):
        first = leaks.iloc[0]
        without = " when no attention_mask is given" if masks and not leaks["attention_mask"].any() else ""
        summary = (
            f"the future leaks{without}: new tokens from position {first['tokens changed from']} on change earlier "
            f"outputs (by {first['largest change before']:.1e} of the largest logit); look at the causal mask"
        )
        return Check(name, "fail", summary, table)
    return Check(name, "pass", f"no output changes with a later token, over {length} positions", table)


def padding_invariance(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """Outputs at real tokens are the same with and without as much padding on the right, hidden by the mask.

    Threshold: 1e-4 of the largest logit (the shapes differ, so sums are taken in another order). A model that fails
    gives a text another answer depending on what else is in the batch. A causal model cannot see padding on the right;
    what stands in padding on the left, where batched generation puts it, must not matter to it either (1e-5).
    """
    name = "padding invariance"
    if not adapter.text:
        return Check(name, "skip", "images are not padded")
    if not adapter.signature.takes("attention_mask"):
        return Check(name, "skip", _unmasked(adapter))
    real = min(effort.length, (adapter.limit or 2 * effort.length) // 2)
    if real < 1:
        return Check(name, "skip", "the context holds one token: there is no room for padding")
    batch = adapter.batch(2, real, seed=seed)
    padded = dict(batch)
    generator = torch.Generator().manual_seed(seed + 1)
    for ids, mask in (("input_ids", "attention_mask"), ("decoder_input_ids", "decoder_attention_mask")):
        if ids in batch and mask in batch:
            filler = torch.full((2, real), adapter.pad_id) if adapter.pad_id is not None else None
            filler = adapter.random_ids((2, real), generator) if filler is None else filler
            padded[ids] = torch.cat((batch[ids], filler.to(adapter.device)), dim=1)
            padded[mask] = torch.cat((batch[mask], torch.zeros_like(batch[mask])), dim=1)
    with_what = "random tokens" if adapter.pad_id is None else f"id {adapter.pad_id}"
    with untouched(adapter, seed=seed), torch.no_grad(), WithoutDropout():
        alone, with_padding = _twice(adapter, batch, padded, seed)
        right = change(alone, with_padding[:, :real] if alone.dim() == 3 else with_padding)
        rows = [{"padding": "right", "of": real, "filled with": with_what, "largest change": right}]
        if adapter.kind == "causal_lm":
            before, other = (_padded_left(adapter, batch, generator) for _ in range(2))
            one, two = _twice(adapter, before, other, seed)
            left = change(one[:, real:], two[:, real:])
            rows.append({"padding": "left", "of": real, "filled with": "other tokens", "largest change": left})
    table = frame(rows)
    bad = [row for row in rows if row["largest change"] > (CLOSE if row["padding"] == "right" else SAME)]
    if bad:
        summary = (
            f"{real} padded positions on the {bad[0]['padding']} change the outputs of the real ones by "
            f"{bad[0]['largest change']:.1e} of the largest logit: padding is attended or pooled; pass attention_mask "
            "on to every attention (and to the pooling)"
        )
        return Check(name, "fail", summary, table)
    return Check(name, "pass", f"{real} padded positions, filled with {with_what}, change nothing", table)


def _padded_left(adapter: Adapter, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """The batch after as many random tokens, which the mask hides."""
    filler = adapter.random_ids(tuple(batch["input_ids"].shape), generator).to(adapter.device)
    mask = batch["attention_mask"]
    return batch | {
        "input_ids": torch.cat((filler, batch["input_ids"]), dim=1),
        "attention_mask": torch.cat((torch.zeros_like(mask), mask), dim=1),
    }


def _unmasked(adapter: Adapter) -> str:
    if adapter.kind == "causal_lm":
        return "takes no attention_mask; padding on the right is harmless to a causal model, on the left it is not"
    return "takes no attention_mask: whether it leaves padding out in its own way is not known; was not checked"


def batch_independence(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """A row's output does not change with the other rows of its batch.

    Threshold: 1e-5 of the largest logit, at equal shapes. Rows mix where statistics are taken over the batch, or where
    an attention with batch_first=False reads (B, T, C) as (T, B, C).
    """
    name = "batch independence"
    length = effort.length_for(adapter)
    batch, other = (adapter.batch(3, length, seed=seed + shift) for shift in (0, 1))
    changed = {key: torch.cat((batch[key][:1], other[key][1:])) for key in batch}
    with untouched(adapter, seed=seed), torch.no_grad():
        one, two = _twice(adapter, batch, changed, seed)
    gap = change(one[:1], two[:1], one)
    if gap > SAME:
        summary = (
            f"a row's output changes by {gap:.1e} of the largest logit with the other rows of its batch: look for "
            "statistics over dimension 0, and for attention with batch_first=False"
        )
        return Check(name, "fail", summary)
    if adapter.language and any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) for module in adapter.model.modules()
    ):
        summary = (
            "in eval mode rows do not mix, but BatchNorm in training takes its statistics over other rows and later "
            "positions; LayerNorm does not"
        )
        return Check(name, "warn", summary)
    return Check(name, "pass", "a row's output does not depend on the other rows of its batch")


def eval_determinism(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """In eval mode the same batch gives the same output, whatever the generators' state.

    Threshold: 1e-6 of the largest logit (0 on a CPU; a GPU's atomic sums may differ in the last bit). Dropout called as
    F.dropout(x) without training=self.training stays on in eval, and blurs every evaluation.
    """
    name = "eval determinism"
    batch = adapter.batch(2, effort.length_for(adapter), seed=seed)
    outputs = []
    for draw in range(3):
        with untouched(adapter, seed=seed + draw), torch.no_grad():
            outputs.append(adapter(batch))
    gap = max(change(outputs[0], output) for output in outputs[1:])
    if gap > 1e-6:
        summary = (
            f"in eval mode the same input gives outputs that differ by {gap:.1e} of the largest logit: a dropout or "
            "other noise is left on; make it depend on self.training"
        )
        return Check(name, "fail", summary)
    return Check(name, "pass", "in eval mode the same input gives the same output")


def _twice(adapter: Adapter, first: dict[str, Tensor], second: dict[str, Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """Both outputs, each computed from the same state of the generators."""
    seed_generators(seed)
    one = adapter(first)
    seed_generators(seed)
    return one, adapter(second)


def change(one: Tensor, two: Tensor, whole: Tensor | None = None) -> float:
    """The largest difference, over the largest finite number in `whole` (or `one`); equal infinities do not differ."""
    gap = torch.where(one == two, 0.0, (one - two).abs()).max().item()
    whole = one if whole is None else whole
    largest = whole[whole.isfinite()].abs().max().item() if whole.isfinite().any() else 0.0
    return gap / max(largest, 1e-8) if gap == gap else float("inf")
