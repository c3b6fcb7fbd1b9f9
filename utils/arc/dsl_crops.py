"""Primitives that cut a part out of a grid by its place or its colours."""

from __future__ import annotations

from utils.arc.dsl_base import Grid, box, counts, primitive, rarest, room


def _cut(grid: Grid, top: int, bottom: int, left: int, right: int) -> Grid:
    return [row[left:right] for row in grid[top:bottom]]


@primitive(family="crop", suits=("objects", "sparse"))
def crop(grid: Grid) -> Grid:
    """Cut down to the smallest rectangle that holds every cell which is not 0."""
    return _cut(grid, *box(grid))


@primitive("colour", family="crop", suits=("objects", "sparse"))
def crop_colour(grid: Grid, colour: int) -> Grid:
    """Cut down to the smallest rectangle that holds every cell of a colour."""
    return _cut(grid, *box(grid, colour))


@primitive(family="crop", suits=("objects", "sparse"))
def crop_rarest(grid: Grid) -> Grid:
    """Cut down to the smallest rectangle that holds every cell of the rarest colour other than 0."""
    return _cut(grid, *box(grid, rarest(counts(grid))))


@primitive(family="crop")
def top_half(grid: Grid) -> Grid:
    """Keep the top half; a middle row is dropped."""
    room(len(grid) // 2, 1)
    return [row[:] for row in grid[: len(grid) // 2]]


@primitive(family="crop")
def bottom_half(grid: Grid) -> Grid:
    """Keep the bottom half; a middle row is dropped."""
    room(len(grid) // 2, 1)
    return [row[:] for row in grid[(len(grid) + 1) // 2 :]]


@primitive(family="crop")
def left_half(grid: Grid) -> Grid:
    """Keep the left half; a middle column is dropped."""
    room(1, len(grid[0]) // 2)
    return [row[: len(row) // 2] for row in grid]


@primitive(family="crop")
def right_half(grid: Grid) -> Grid:
    """Keep the right half; a middle column is dropped."""
    room(1, len(grid[0]) // 2)
    return [row[(len(row) + 1) // 2 :] for row in grid]


@primitive(family="crop")
def first_third(grid: Grid) -> Grid:
    """Keep the first third along the longer side (along the rows of a square)."""
    height, width = len(grid), len(grid[0])
    if height > width:
        room(height // 3, 1)
        return [row[:] for row in grid[: height // 3]]
    room(1, width // 3)
    return [row[: width // 3] for row in grid]


@primitive("times", family="crop")
def corner(grid: Grid, side: int) -> Grid:
    """Keep the top left square of so many rows and columns."""
    if side > len(grid) or side > len(grid[0]):
        raise ValueError(f"no square of {side} cells in a grid of {len(grid)}x{len(grid[0])}")
    return _cut(grid, 0, side, 0, side)


@primitive(family="crop", suits=("framed", "noise"))
def trim(grid: Grid) -> Grid:
    """Cut off the outermost rows and columns."""
    room(len(grid) - 2, len(grid[0]) - 2)
    return _cut(grid, 1, len(grid) - 1, 1, len(grid[0]) - 1)
