"""Primitives that move a grid as a whole: symmetries and shifts."""

from __future__ import annotations

from utils.arc.dsl_base import Grid, columns, primitive


@primitive(family="symmetry")
def flip_rows(grid: Grid) -> Grid:
    """Turn upside down: the last row comes first."""
    return [row[:] for row in reversed(grid)]


@primitive(family="symmetry")
def flip_columns(grid: Grid) -> Grid:
    """Mirror left to right: the last column comes first."""
    return [row[::-1] for row in grid]


@primitive(family="symmetry")
def rotate_right(grid: Grid) -> Grid:
    """Turn a quarter clockwise."""
    return [list(column) for column in zip(*reversed(grid))]


@primitive(family="symmetry")
def rotate_left(grid: Grid) -> Grid:
    """Turn a quarter anticlockwise."""
    return columns(grid)[::-1]


@primitive(family="symmetry")
def rotate_half(grid: Grid) -> Grid:
    """Turn by a half."""
    return [row[::-1] for row in reversed(grid)]


@primitive(family="symmetry")
def transpose(grid: Grid) -> Grid:
    """Mirror over the main diagonal: rows become columns."""
    return columns(grid)


@primitive(family="symmetry")
def transpose_other(grid: Grid) -> Grid:
    """Mirror over the other diagonal, from bottom left to top right."""
    return [list(column) for column in zip(*(row[::-1] for row in reversed(grid)))]


@primitive("steps", family="shift")
def roll_down(grid: Grid, steps: int) -> Grid:
    """Move all rows down; what leaves at the bottom comes in at the top."""
    steps %= len(grid)
    return [row[:] for row in grid[len(grid) - steps :] + grid[: len(grid) - steps]]


@primitive("steps", family="shift")
def roll_right(grid: Grid, steps: int) -> Grid:
    """Move all columns right; what leaves at the right comes in at the left."""
    cut = len(grid[0]) - steps % len(grid[0])
    return [row[cut:] + row[:cut] for row in grid]


@primitive("steps", family="shift")
def roll_up(grid: Grid, steps: int) -> Grid:
    """Move all rows up; what leaves at the top comes in at the bottom."""
    return roll_down(grid, -steps)


@primitive("steps", family="shift")
def roll_left(grid: Grid, steps: int) -> Grid:
    """Move all columns left; what leaves at the left comes in at the right."""
    return roll_right(grid, -steps)


@primitive("steps", family="shift")
def shift_down(grid: Grid, steps: int) -> Grid:
    """Move all rows down, with 0s coming in at the top."""
    steps = min(steps, len(grid))
    return [[0] * len(grid[0]) for _ in range(steps)] + [row[:] for row in grid[: len(grid) - steps]]


@primitive("steps", family="shift")
def shift_right(grid: Grid, steps: int) -> Grid:
    """Move all columns right, with 0s coming in at the left."""
    steps = min(steps, len(grid[0]))
    return [[0] * steps + row[: len(row) - steps] for row in grid]
