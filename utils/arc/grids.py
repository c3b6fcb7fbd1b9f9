"""ARC grids: checked, turned, put on a canvas, and reduced to one form that D4 and colour changes share.

A grid is an (h, w) uint8 array of colours 0 to 9, with sides of 1 to 30. A canvas is a grid in the top-left corner of
a 30x30 array whose other cells are OUTSIDE. Leaves out tasks (`arc.tasks`) and anything random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

SIDE = 30
COLOURS = 10
OUTSIDE = 10


class GridError(ValueError):
    """Values that are no ARC grid, or no canvas of one; the message says where and what was expected."""


def check_grid(rows: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """Rows of colours as a new (h, w) uint8 array. Raises `GridError` for what is not a grid."""
    if isinstance(rows, np.ndarray):
        if rows.ndim != 2 or rows.dtype.kind not in "iu":
            raise GridError(f"an array of shape {rows.shape} and type {rows.dtype}; expected (h, w) integers")
    else:
        _check_rows(rows)
    grid = np.asarray(rows)
    height, width = grid.shape
    if not (1 <= height <= SIDE and 1 <= width <= SIDE):
        raise GridError(f"a grid of {height}x{width} cells; expected sides of 1 to {SIDE}")
    if grid.min() < 0 or grid.max() >= COLOURS:
        row, column = np.argwhere((grid < 0) | (grid >= COLOURS))[0]
        raise GridError(f"colour {grid[row, column]} at row {row}, column {column}; expected 0 to {COLOURS - 1}")
    return grid.astype(np.uint8)


def _check_rows(rows: Sequence[Sequence[int]]) -> None:
    """Lists of whole numbers, as long as one another (numpy would take booleans for numbers)."""
    if not isinstance(rows, (list, tuple)) or not rows or not all(isinstance(row, (list, tuple)) for row in rows):
        raise GridError(f"{rows!r:.60} is no grid; expected a list of rows, each a list of colours")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]) or not row:
            raise GridError(f"row {number} has {len(row)} cells and row 0 has {len(rows[0])}; expected a rectangle")
        if any(not issubclass(kind, (int, np.integer)) or kind is bool for kind in set(map(type, row))):
            raise GridError(f"row {number} holds {row!r:.60}; expected whole numbers 0 to {COLOURS - 1}")


def d4(grid: np.ndarray) -> list[np.ndarray]:
    """The 8 symmetric images: 0 to 3 quarter turns anticlockwise, then the transpose turned likewise."""
    return [np.rot90(side, turns) for side in (grid, grid.T) for turns in range(4)]


def canonical(grid: np.ndarray) -> np.ndarray:
    """The least image of a grid under D4 and renaming of colours, by (height, width, cells in reading order).

    Two grids have one canonical form exactly where a turn, mirror or renaming makes one into the other.
    """
    return canonical_stack(np.asarray(grid)[None])[0]


def canonical_stack(grids: np.ndarray) -> np.ndarray:
    """`canonical` of (n, h, w) grids at once, as (n, min(h, w), max(h, w)) uint8."""
    count, height, width = grids.shape
    sides = [np.rot90(side, turns, (1, 2)) for side in (grids, grids.transpose(0, 2, 1)) for turns in range(4)]
    least = None
    for image in sides:
        if image.shape[1] > image.shape[2]:  # only the lying images can be least
            continue
        image = renamed(image.reshape(count, -1))
        if least is None:
            least = image
            continue
        first = (image != least).argmax(1)[:, None]  # where they part; 0 where equal
        smaller = np.take_along_axis(image, first, 1) < np.take_along_axis(least, first, 1)
        least = np.where(smaller, image, least)
    return least.reshape(count, min(height, width), max(height, width))


def renamed(cells: np.ndarray) -> np.ndarray:
    """(n, cells) with colours renamed 0, 1, ... in the order in which they appear: the least renaming."""
    count, size = cells.shape
    first = np.empty((count, COLOURS), np.int64)
    for colour in range(COLOURS):
        found = cells == colour
        at = found.argmax(1)
        first[:, colour] = np.where(found[np.arange(count), at], at, size + colour)
    names = first.argsort(1).argsort(1).astype(np.uint8)  # rank of each colour's first place
    return np.take_along_axis(names, cells.astype(np.int64), 1)


def canonical_keys(canvases: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> list[bytes]:
    """A 16-byte key of each canvas' canonical form; (N, 30, 30), (N,), (N,) in."""
    out = np.full((len(canvases), SIDE, SIDE), OUTSIDE, np.uint8)
    shapes = heights.astype(np.int64) * (SIDE + 1) + widths
    order = shapes.argsort(kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(shapes[order])) + 1) if len(order) else []:
        height, width = int(heights[rows[0]]), int(widths[rows[0]])
        out[rows, : min(height, width), : max(height, width)] = canonical_stack(canvases[rows, :height, :width])
    return keys(out)


def keys(canvases: np.ndarray) -> list[bytes]:
    """16 bytes of blake2b of each canvas: equal for equal grids only (a clash in 100,000 has chance 1e-29)."""
    rows = np.ascontiguousarray(canvases, np.uint8).reshape(len(canvases), SIDE * SIDE)
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]


def to_canvas(grid: np.ndarray) -> np.ndarray:
    """(h, w) -> (30, 30) uint8, the grid at the top left and OUTSIDE around it."""
    canvas = np.full((SIDE, SIDE), OUTSIDE, np.uint8)
    canvas[: grid.shape[0], : grid.shape[1]] = grid
    return canvas


def from_canvas(canvas: np.ndarray) -> np.ndarray:
    """(30, 30) -> (h, w). Raises `GridError` where the cells that are not OUTSIDE are no top-left rectangle."""
    canvas = np.asarray(canvas)
    if canvas.shape != (SIDE, SIDE):
        raise GridError(f"a canvas of shape {canvas.shape}; expected ({SIDE}, {SIDE})")
    height, width = (int(side[0]) for side in sizes(canvas[None]))
    if height == 0 or width == 0 or (canvas[:height, :width] == OUTSIDE).any():
        raise GridError("the cells inside the grid are no rectangle at the top left of the canvas")
    return check_grid(canvas[:height, :width])


def sizes(canvases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths (N,) of the boxes from the top left that hold every cell which is not OUTSIDE; 0 for none."""
    inside = canvases != OUTSIDE
    place = np.arange(1, SIDE + 1)
    return (inside.any(2) * place).max(1), (inside.any(1) * place).max(1)
