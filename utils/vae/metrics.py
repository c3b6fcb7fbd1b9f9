"""How well canvases are predicted: counts per grid, the rates they give, and intervals over tasks.

About 80% of a canvas is padding and two thirds of the rest one colour, so the rates differ in what they can see:
`all` and `non_padding` are high for a model that draws one colour at the right size, `foreground` is 0 for it.
Leaves out the model: every function takes canvases (N, 30, 30) of 0 to 9, with 10 outside, the grid at the top left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.arc.grids import COLOURS, OUTSIDE, SIDE
from utils.core.check import Check

RATES = {
    "all": ("right", "cells"),
    "non_padding": ("inside_right", "inside"),
    "foreground": ("foreground_right", "foreground"),
    "shape": ("shape", "grids"),
    "exact": ("exact", "grids"),
    "valid": ("valid", "grids"),
}
"""each rate as (what is counted, of how many)"""
TITLES = {
    "all": "all cells",
    "non_padding": "cells inside",
    "non_padding_macro": "cells inside, by task",
    "foreground": "foreground",
    "shape": "size",
    "exact": "exact grids",
}
"""what each rate is called where people read it"""
GATE = "beats the modal colour"
NO_INTERVAL = "no interval: one task"

Counts = Mapping[str, np.ndarray]


def grid_counts(predicted: Tensor | np.ndarray, true: Tensor | np.ndarray) -> dict[str, np.ndarray]:
    """Counts of each grid, (N,) each.

    cells, right                    all 900, and those predicted right
    inside, inside_right            those of the true grid (not padding)
    foreground, foreground_right    those of them that are not of the true grid's modal colour; none in a plain grid
    shape                           1 where exactly the cells inside the true grid are predicted to be inside
    exact                           1 where every cell is right
    valid                           1 where the prediction is a grid: `valid_canvases`
    grids                           1
    """
    predicted, true = _canvases(predicted), _canvases(true)
    if predicted.shape != true.shape:
        raise ValueError(f"Predicted canvases are {tuple(predicted.shape)} and true ones {tuple(true.shape)}.")
    right, inside = predicted == true, true != OUTSIDE
    foreground = inside & (true != modal_colours(true)[:, None, None])
    counts = {
        "cells": torch.full_like(true[:, 0, 0], SIDE * SIDE, dtype=torch.long),
        "right": _sum(right),
        "inside": _sum(inside),
        "inside_right": _sum(right & inside),
        "foreground": _sum(foreground),
        "foreground_right": _sum(right & foreground),
        "shape": ((predicted != OUTSIDE) == inside).flatten(1).all(1),
        "exact": right.flatten(1).all(1),
        "valid": valid_canvases(predicted),
        "grids": torch.ones_like(true[:, 0, 0], dtype=torch.long),
    }
    return {name: count.long().cpu().numpy() for name, count in counts.items()}


def modal_colours(canvases: Tensor | np.ndarray) -> Tensor:
    """The most frequent colour inside each grid (N,) uint8; the lowest of those that are equally frequent."""
    canvases = _canvases(canvases)
    found = torch.stack([_sum(canvases == colour) for colour in range(COLOURS)], 1)  # (N, 10)
    order = torch.arange(COLOURS, device=found.device)
    return (found * COLOURS - order).argmax(1).to(torch.uint8)


def valid_canvases(canvases: Tensor | np.ndarray) -> Tensor:
    """Whether each canvas (N,) holds a grid: colours 0 to 9 in a rectangle from the top left, and 10 around it."""
    canvases = _canvases(canvases)
    inside = canvases != OUTSIDE
    rectangle = inside[:, :, :1] & inside[:, :1, :]  # what the first row and column say
    return (inside == rectangle).flatten(1).all(1) & inside[:, 0, 0] & (canvases <= OUTSIDE).flatten(1).all(1)


def rates(counts: Counts) -> dict[str, float]:
    """Every rate over all grids together (micro); NaN where there is nothing to count."""
    return {name: float(_ratio(counts[part].sum(), counts[whole].sum())) for name, (part, whole) in RATES.items()}


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95% interval; NaN where there is none, as over a single task."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isfinite(self.value) and np.isnan(self.low):
            return f"{self.value:.4g} ({NO_INTERVAL})"
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


class Bootstrap:
    """Percentile intervals from whole tasks drawn anew, since the grids of one task are alike; none from one task.

    One object draws once, so that two predictors judged by it are compared on the same draws (paired).
    """

    def __init__(self, task_ids: Sequence, *, draws: int = 1000, seed: int = 0):
        self.tasks, self.member = np.unique(np.asarray(task_ids), return_inverse=True)
        number = len(self.tasks)
        if number == 0:
            raise ValueError("No grid to judge: the split is empty.")
        generator = np.random.default_rng(seed)
        self.weights = generator.multinomial(number, np.full(number, 1 / number), size=draws).astype(float)

    def micro(self, part: np.ndarray, whole: np.ndarray) -> Estimate:
        """sum(part) / sum(whole) over grids; both (N,)."""
        return self._estimate(part.sum(), whole.sum(), self._sum(part), self._sum(whole))

    def macro(self, part: np.ndarray, whole: np.ndarray) -> Estimate:
        """The mean over tasks of each task's sum(part) / sum(whole); tasks without any `whole` are left out."""
        number, size = self._sum(part), self._sum(whole)
        share = np.divide(number, size, out=np.zeros_like(number), where=size != 0)
        return self._estimate(share.sum(), (size != 0).sum(), share, (size != 0).astype(float))

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """(N,) -> (tasks,)."""
        return np.bincount(self.member, weights=np.asarray(values, float), minlength=len(self.tasks))

    def _estimate(self, part: float, whole: float, parts: np.ndarray, wholes: np.ndarray) -> Estimate:
        drawn = _ratio(self.weights @ parts, self.weights @ wholes)
        drawn = drawn[np.isfinite(drawn)] if len(self.tasks) > 1 else drawn[:0]
        low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
        return Estimate(float(_ratio(part, whole)), float(low), float(high))


def estimates(counts: Counts, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Every rate over cells or grids, and `non_padding_macro`: the mean over tasks of their non-padding accuracy."""
    found = {name: bootstrap.micro(counts[part], counts[whole]) for name, (part, whole) in RATES.items()}
    macro = bootstrap.macro(counts["inside_right"], counts["inside"])
    return {"all": found.pop("all"), "non_padding": found.pop("non_padding"), "non_padding_macro": macro, **found}


def gate(model: Counts, modal: Counts, bootstrap: Bootstrap) -> Check:
    """Whether a model sees more than sizes and backgrounds; `modal` are the counts of the modal colour at true size.

    Passes where its share of the cells inside is above that baseline by a difference whose 95% interval over tasks lies
    above zero, and some foreground cell is right; warns where it is above on the one task there is.
    """
    ahead = bootstrap.micro(model["inside_right"] - modal["inside_right"], model["inside"])
    reached, base, foreground = rates(model)["non_padding"], rates(modal)["non_padding"], rates(model)["foreground"]
    measured = f"{reached:.1%} of the cells inside, {base:.1%} for one colour at the true size"
    alone = len(bootstrap.tasks) == 1
    apart = f"{100 * ahead.value:.1f} points; {NO_INTERVAL}"
    if not alone:
        apart = f"{100 * ahead.low:.1f} to {100 * ahead.high:.1f} points"
    passed = (ahead.value if alone else ahead.low) > 0 and foreground > 0
    todo = "" if passed else ": train longer; nothing else it reports means much before that"
    status = ("warn" if alone else "pass") if passed else "fail"
    return Check(GATE, status, f"{measured} (difference {apart}), foreground {foreground:.1%}{todo}")


def _canvases(values: Tensor | np.ndarray) -> Tensor:
    canvases = torch.as_tensor(values)
    if canvases.ndim != 3 or canvases.shape[1:] != (SIDE, SIDE) or canvases.is_floating_point():
        raise ValueError(
            f"Canvases are {tuple(canvases.shape)} {canvases.dtype}; expected integers of (N, {SIDE}, {SIDE})."
        )
    return canvases


def _sum(cells: Tensor) -> Tensor:
    return cells.flatten(1).sum(1)


def _ratio(part: float | np.ndarray, whole: float | np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)
