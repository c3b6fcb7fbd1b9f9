"""How hard a task looks, from its train pairs alone: measures, one score to order by, and buckets of equal numbers.

The score is an estimate from what is seen, equal for every turn and mirror of a task, and for every renaming of its
colours that keeps black. Leaves out the hidden pairs, and any record of who solved the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2

import numpy as np

from utils.arc.grids import COLOURS, SIDE
from utils.arc.objects import count_objects, stacked
from utils.arc.tasks import Pair, Task

CELLS = SIDE * SIDE
NOWHERE = COLOURS  # the context of an output cell that has no input cell in its place
SHAPES = {"same": 0.0, "scaled": 1 / 3, "fixed": 2 / 3, "other": 1.0}

# Each part of the score weighs the inverse of its standard deviation over the training set of ARC-AGI-1, so that all
# six part its tasks equally. They are not fitted to who solved what.
WEIGHTS = {"size": 0.18, "colours": 0.12, "shape": 0.08, "pairs": 0.32, "entropy": 0.08, "objects": 0.22}


@dataclass(frozen=True)
class Difficulty:
    """What is measured of a task's train pairs."""

    cells: float
    """mean cells of a grid, inputs and outputs"""
    largest: int
    """cells of the largest grid"""
    colours: int
    """colours that appear anywhere"""
    shape: str
    """same: outputs as large as their inputs; scaled: all by the same two factors; fixed: all outputs of one size;
    other: none of these. The first that holds"""
    pairs: int
    """train pairs"""
    entropy: float
    """`cross_pair_entropy`, bits a cell"""
    objects: float
    """mean objects of a grid, inputs and outputs; see `arc.objects`"""

    @cached_property
    def parts(self) -> dict[str, float]:
        """What the score is the weighted mean of, each from 0 (easy) to 1 (hard).

        Counts enter by their logarithm, as the step from 1 object to 2 is not that from 101 to 102.
        """
        return {
            "size": log2(self.cells) / log2(CELLS),
            "colours": (self.colours - 1) / (COLOURS - 1),
            "shape": SHAPES[self.shape],
            "pairs": 1 / self.pairs,
            "entropy": min(self.entropy / log2(COLOURS), 1.0),
            "objects": log2(1 + self.objects) / log2(1 + CELLS),
        }

    @property
    def score(self) -> float:
        """The mean of `parts`, weighed by WEIGHTS: from 0 (easy) to 1 (hard)."""
        return sum(WEIGHTS[name] * part for name, part in self.parts.items())


def difficulty(task: Task) -> Difficulty:
    """The measures of a task, from its train pairs."""
    grids = [grid for pair in task.train for grid in (pair.input, pair.output)]
    stack = stacked(grids)
    return Difficulty(
        cells=sum(grid.size for grid in grids) / len(grids),
        largest=max(grid.size for grid in grids),
        colours=int(np.count_nonzero(np.bincount(stack.ravel(), minlength=COLOURS)[:COLOURS])),
        shape=_shape(task.train),
        pairs=len(task.train),
        entropy=cross_pair_entropy(task.train),
        objects=float(count_objects(stack).mean()),
    )


def _shape(pairs: Sequence[Pair]) -> str:
    sizes = [(pair.input.shape, pair.output.shape) for pair in pairs]
    if all(before == after for before, after in sizes):
        return "same"
    (height, width), (tall, wide) = sizes[0]
    if all(h * tall == H * height and w * wide == W * width for (h, w), (H, W) in sizes):
        return "scaled"
    return "fixed" if all(after == (tall, wide) for _, after in sizes) else "other"


def cross_pair_entropy(pairs: Sequence[Pair]) -> float:
    """How many bits a cell of one output costs who has counted the cells of the other pairs; the mean over pairs.

    The context x of an output cell of colour y is the colour of the input cell in its place, where the pair keeps its
    size, and else "nowhere". With n(x, y) the counts over all pairs but i, each cell of output i costs
    -log2 p(y | x), p(y | x) = (n(x, y) + 1/2) / (n(x) + 5): Krichevsky and Trofimov's estimate over 10 colours
    (IEEE Trans. Inf. Theory 27, 1981). Pair i costs the mean over its cells. So it is near 0 where one map of colours,
    cell by cell, does for all pairs, log2(10) = 3.32 for a single pair, and more where the other pairs mislead.
    """
    counts = np.stack([_transitions(pair) for pair in pairs])  # (n, 11, 10)
    others = counts.sum(0) - counts
    bits = -np.log2((others + 0.5) / (others.sum(2, keepdims=True) + COLOURS / 2))
    return float(((counts * bits).sum((1, 2)) / counts.sum((1, 2))).mean())


def _transitions(pair: Pair) -> np.ndarray:
    """(11, 10) int64: how many output cells have each context and each colour."""
    context = pair.input.ravel().astype(np.int64) if pair.input.shape == pair.output.shape else NOWHERE
    found = context * COLOURS + pair.output.ravel()
    return np.bincount(found, minlength=(COLOURS + 1) * COLOURS).reshape(COLOURS + 1, COLOURS)


def order(tasks: Iterable[Task]) -> list[Task]:
    """The easiest first; tasks of equal score by id and source, so that the order does not depend on what came first.

    Scores are compared to 9 places, since sums of the same numbers in another order may differ in their last bits.
    """
    return sorted(tasks, key=lambda task: (round(difficulty(task).score, 9), task.id, task.source))


def buckets(tasks: Iterable[Task], n: int) -> list[list[Task]]:
    """The ordered tasks cut into n parts, the easiest first, whose sizes differ by at most one."""
    ordered = order(tasks)
    if not 1 <= n <= len(ordered):
        raise ValueError(f"{n} buckets of {len(ordered)} tasks; expected 1 to as many as there are tasks.")
    cuts = [len(ordered) * number // n for number in range(n + 1)]
    return [ordered[start:end] for start, end in zip(cuts, cuts[1:])]


def levels(tasks: Sequence[Task], n: int) -> np.ndarray:
    """The number of each task's bucket of `buckets(tasks, n)`, 0 for the easiest: (len(tasks),) int64."""
    number = {id(task): level for level, own in enumerate(buckets(tasks, n)) for task in own}
    return np.array([number[id(task)] for task in tasks], np.int64)
