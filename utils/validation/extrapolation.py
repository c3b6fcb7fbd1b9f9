"""What a model says at lengths up to its context and past it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from utils.core.check import Check
from utils.core.plots import canvas
from utils.models.adapter import Adapter
from utils.validation.steady import Effort, WithoutDropout, untouched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRACTIONS = (0.25, 0.5, 1.0, 1.25, 1.5, 2.0)
SHIFT = 1.0
LAST = 8
ROWS = 4


def lengths_for(limit: int | None, longest: int) -> list[int]:
    """A quarter of the context to twice it, as far as `longest` goes; where there is no context, up to `longest`."""
    whole = limit or max(1, longest // 2)
    lengths = sorted({max(1, round(fraction * whole)) for fraction in FRACTIONS})
    return [length for length in lengths if length <= longest] or [longest]


def describe(logits: Tensor) -> dict[str, float]:
    """Entropy in nats of the last prediction (the mean over a row's last 8, to steady it), and RMS of the logits."""
    chances = (logits[:, -LAST:] if logits.dim() == 3 else logits).log_softmax(-1)
    return {
        "entropy (nats)": float(-(chances.exp() * chances).sum(-1).mean()),
        "RMS of the logits": float(logits.norm()) / logits.numel() ** 0.5,
        "positions": logits.shape[1] if logits.dim() == 3 else 1,
    }


def length_extrapolation(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """The entropy of the last predictions and the size of the logits, by length, through the context and past it.

    Past the context a model may refuse, and that is right. If it answers, warns where the entropy is over 1 nat from
    that at the full context: a nat is a factor of e in how many tokens it hesitates between, well beyond what more
    context does to random tokens (Press et al. 2022, "Train Short, Test Long", show how positions never trained break).
    Where no context is stated any length is right, and the shortest one tried takes its place. Warns where logits are
    not finite at any length. Lengths past the context run on a copy on the CPU: an index out of range ends a CUDA
    process for good.
    """
    name = "length extrapolation"
    if not adapter.text:
        return Check(name, "skip", "images have one size", critical=False)
    lengths, refused = lengths_for(adapter.limit, effort.longest), ""
    rows: list[dict[str, Any]] = []
    with untouched(adapter, seed=seed), WithoutDropout(), torch.no_grad():
        for one, length in _adapters(adapter, lengths):
            batch = one.batch(min(effort.rows, ROWS), length, seed=seed)
            past = adapter.limit is not None and length > adapter.limit
            row = {"tokens": length, "past the context": past}
            try:  # an input at a time: at these lengths the logits of many would fill the memory
                found = [describe(one(single)) for single in _singles(batch)]
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # past its context a model may raise whatever it likes
                if not past:
                    raise
                refused = f"{length} tokens are refused ({type(error).__name__})"
                rows.append(row | {"outcome": f"{type(error).__name__}: {error}"[:200]})
                break
            rows.append(row | {"outcome": "answers"} | pd.DataFrame(found).mean().to_dict())
    table = pd.DataFrame(rows)
    answers = table[table["outcome"] == "answers"]
    base, beyond = _parts(answers, adapter.limit)
    shift = (beyond["entropy (nats)"] - base).abs().max() if len(beyond) else 0.0
    broken = answers["tokens"][~np.isfinite(answers["RMS of the logits"])]
    tokens = answers["tokens"]
    text = (
        f"the entropy of the last predictions goes from {answers['entropy (nats)'].min():.2f} to "
        f"{answers['entropy (nats)'].max():.2f} nats over {tokens.min()} to {tokens.max()} tokens"
    )
    if adapter.limit is None:
        text += " (no context is stated)"
    elif refused:
        text += f"; past the context of {adapter.limit}, {refused}, as is right"
    elif len(beyond):
        text += f"; past the context of {adapter.limit} it answers, its entropy {shift:.2f} nats off"
    else:
        text += f"; nothing past the context of {adapter.limit} was tried, at this scale"
    bad = len(broken) > 0 or not shift <= SHIFT
    if len(broken):
        text = f"the logits are not finite at {broken.iloc[0]} tokens; {text}"
    elif bad:
        text = f"do not use it at {beyond['tokens'].min()} tokens and more: {text}"
    return Check(name, "warn" if bad else "pass", text, table, plot_lengths(answers, adapter.limit), critical=False)


def _singles(batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    for row in range(len(batch["labels"])):
        yield {key: value[row : row + 1] for key, value in batch.items()}


def _adapters(adapter: Adapter, lengths: list[int]) -> Iterator[tuple[Adapter, int]]:
    copied = None
    for length in lengths:
        if adapter.limit is None or length <= adapter.limit:
            yield adapter, length
            continue
        if copied is None:
            copied = adapter.on_cpu()
        yield copied, length


def _parts(answers: pd.DataFrame, limit: int | None) -> tuple[float, pd.DataFrame]:
    """The entropy that the others are held against, and the lengths that are."""
    if limit is None:
        return answers["entropy (nats)"].iloc[0], answers.iloc[1:]
    within = answers[~answers["past the context"]]
    return within["entropy (nats)"].iloc[-1], answers[answers["past the context"]]


def plot_lengths(table: pd.DataFrame, limit: int | None) -> Figure:
    """Entropy and RMS over the length, with the context where one is stated."""
    with canvas(ncols=2, figsize=(10, 3.2)) as axes:
        for ax, column in zip(axes, ("entropy (nats)", "RMS of the logits")):
            ax.plot(table["tokens"], table[column], marker="o")
            if limit is not None:
                ax.axvline(limit, color="0.4", linestyle="--", label="context")
                ax.legend()
            highest = table[column][np.isfinite(table[column])].max()
            ax.set(title=column[0].upper() + column[1:], xlabel="tokens", ylim=(0, 1.1 * highest if highest > 0 else 1))
        return axes[0].figure
