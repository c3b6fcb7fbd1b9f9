"""The objects of grids: regions of one colour whose cells touch by their sides, other than the background.

Many grids are labelled at once. Leaves out any other idea of an object: of several colours, or touching at corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.arc.grids import COLOURS, OUTSIDE


@dataclass(frozen=True)
class Object:
    """A region: its colour, the number of its cells, and its box, whose last row and column are part of it."""

    colour: int
    cells: int
    top: int
    left: int
    bottom: int
    right: int


def label(stack: np.ndarray) -> np.ndarray:
    """(n, h, w) canvases -> (n, h, w) int64: one number for each region, which is the place of its first cell.

    Places count the cells of the whole stack in reading order. Every cell that is OUTSIDE is a region of its own.
    """
    place = np.arange(stack.size).reshape(stack.shape)
    right = (stack[:, :, :-1] == stack[:, :, 1:]) & (stack[:, :, 1:] != OUTSIDE)
    down = (stack[:, :-1] == stack[:, 1:]) & (stack[:, 1:] != OUTSIDE)
    one = np.concatenate((place[:, :, :-1][right], place[:, :-1][down]))
    other = np.concatenate((place[:, :, 1:][right], place[:, 1:][down]))
    root = place.ravel()
    while len(one):  # hang each root on the least root beside it, until neighbours have one root
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(above := root[root], root):
            root = above
        one, other = root[one], root[other]
        apart = one != other
        one, other = one[apart], other[apart]
    return root.reshape(stack.shape)


def count_objects(stack: np.ndarray) -> np.ndarray:
    """(n, h, w) canvases -> (n,) int64: the objects of each.

    It is the same for every turn and mirror of a grid, and every renaming of its colours that keeps black.
    """
    _, regions, below = _regions(stack)
    return regions.sum(1) - regions[np.arange(len(stack)), below]


def background(grid: np.ndarray) -> int:
    """Black (0) in an (h, w) grid that has some; else the colour of most cells.

    Of several such colours the one in fewest regions, and of several still the least.
    """
    return int(_regions(grid[None])[2][0])


def _regions(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The labels (n, h, w), how many regions each colour has in each grid (n, 10), the background of each (n,)."""
    count = len(stack)
    labels = label(stack)
    keys = stack.reshape(count, -1) + (OUTSIDE + 1) * np.arange(count)[:, None]
    first = labels.reshape(count, -1) == np.arange(stack.size).reshape(count, -1)
    cells, regions = (
        np.bincount(part, minlength=count * (OUTSIDE + 1)).reshape(count, -1)[:, :COLOURS]
        for part in (keys.ravel(), keys[first])
    )
    below = (cells * (stack.size + 1) - regions).argmax(1)
    return labels, regions, np.where(cells[:, 0] > 0, 0, below)


def find_objects(grid: np.ndarray) -> list[Object]:
    """The objects of an (h, w) grid, the largest first; of equal ones, the one that begins first in reading order."""
    labels, _, below = _regions(grid[None])
    rows, columns = np.nonzero(grid != below[0])
    first, number, cells = np.unique(labels[0, rows, columns], return_inverse=True, return_counts=True)
    box = np.empty((4, len(first)), np.int64)  # top, left, bottom, right
    box[:2], box[2:] = max(grid.shape), 0
    for side, least, place in zip(range(4), (np.minimum, np.minimum, np.maximum, np.maximum), (rows, columns) * 2):
        least.at(box[side], number, place)
    table = np.stack((grid.flat[first], cells, *box), axis=1)[np.argsort(-cells, kind="stable")]
    return [Object(*row) for row in table.tolist()]


def stacked(grids: Sequence[np.ndarray]) -> np.ndarray:
    """Grids of any sizes as (n, h, w) canvases of the greatest sides among them, OUTSIDE around each."""
    height, width = (max(grid.shape[axis] for grid in grids) for axis in (0, 1))
    stack = np.full((len(grids), height, width), OUTSIDE, np.uint8)
    for canvas, grid in zip(stack, grids):
        canvas[: grid.shape[0], : grid.shape[1]] = grid
    return stack
