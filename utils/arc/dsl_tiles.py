"""Primitives that repeat, scale or surround a grid."""

from __future__ import annotations

from utils.arc.dsl_base import Grid, commonest, counts, primitive, room
from utils.arc.dsl_symmetries import flip_rows, rotate_half, rotate_left, rotate_right


@primitive("times", family="tile", suits=("small",))
def scale(grid: Grid, times: int) -> Grid:
    """Make every cell a square of so many cells a side."""
    room(len(grid) * times, len(grid[0]) * times)
    return [[cell for cell in row for _ in range(times)] for row in grid for _ in range(times)]


@primitive("times", family="tile")
def shrink(grid: Grid, times: int) -> Grid:
    """Keep every so-manieth row and column, from the first on."""
    return [row[::times] for row in grid[::times]]


@primitive("times", family="tile", suits=("small",))
def repeat_right(grid: Grid, times: int) -> Grid:
    """So many copies side by side."""
    room(len(grid), len(grid[0]) * times)
    return [row * times for row in grid]


@primitive("times", family="tile", suits=("small",))
def repeat_down(grid: Grid, times: int) -> Grid:
    """So many copies one below another."""
    room(len(grid) * times, len(grid[0]))
    return [row[:] for _ in range(times) for row in grid]


@primitive("times", family="tile", suits=("small",))
def tile(grid: Grid, times: int) -> Grid:
    """A square of so many copies a side."""
    room(len(grid) * times, len(grid[0]) * times)
    return [row * times for _ in range(times) for row in grid]


@primitive(family="tile", suits=("small",))
def mirror_right(grid: Grid) -> Grid:
    """Put the mirror image to the right."""
    room(len(grid), 2 * len(grid[0]))
    return [row + row[::-1] for row in grid]


@primitive(family="tile", suits=("small",))
def mirror_left(grid: Grid) -> Grid:
    """Put the mirror image to the left."""
    room(len(grid), 2 * len(grid[0]))
    return [row[::-1] + row for row in grid]


@primitive(family="tile", suits=("small",))
def mirror_down(grid: Grid) -> Grid:
    """Put the upside-down image below."""
    room(2 * len(grid), len(grid[0]))
    return [row[:] for row in grid] + flip_rows(grid)


@primitive(family="tile", suits=("small",))
def mirror_up(grid: Grid) -> Grid:
    """Put the upside-down image above."""
    room(2 * len(grid), len(grid[0]))
    return flip_rows(grid) + [row[:] for row in grid]


@primitive(family="tile", suits=("small",))
def mirror_both(grid: Grid) -> Grid:
    """Mirror to the right, then all of it down: four images."""
    return mirror_down(mirror_right(grid))


@primitive(family="tile", suits=("square",))
def pinwheel(grid: Grid) -> Grid:
    """Four images of a square around its bottom right corner, each a quarter turn from the one before."""
    if len(grid) != len(grid[0]):
        raise ValueError(f"a pinwheel needs a square, not {len(grid)}x{len(grid[0])}")
    room(2 * len(grid), 2 * len(grid))
    top = [a + b for a, b in zip(grid, rotate_right(grid))]
    return top + [a + b for a, b in zip(rotate_left(grid), rotate_half(grid))]


@primitive(family="tile", suits=("tiny",))
def fractal(grid: Grid) -> Grid:
    """A copy of the grid where it has a cell other than 0, and 0s elsewhere."""
    height, width = len(grid), len(grid[0])
    room(height * height, width * width)
    empty = [0] * width
    return [[x for cell in row for x in (line if cell else empty)] for row in grid for line in grid]


@primitive(family="tile", suits=("tiny",))
def repeat_by_colours(grid: Grid) -> Grid:
    """A square of as many copies a side as the grid has colours other than 0."""
    return tile(grid, sum(map(bool, counts(grid)[1:])) or 1)


@primitive(family="tile", suits=("tiny",))
def scale_by_colours(grid: Grid) -> Grid:
    """Make every cell a square with as many cells a side as the grid has colours other than 0."""
    return scale(grid, sum(map(bool, counts(grid)[1:])) or 1)


@primitive(family="tile", suits=("tiny",))
def fractal_commonest(grid: Grid) -> Grid:
    """A copy of the grid where it has its commonest colour, and 0s elsewhere."""
    height, width, kept = len(grid), len(grid[0]), commonest(counts(grid))
    room(height * height, width * width)
    empty = [0] * width
    return [[x for cell in row for x in (line if cell == kept else empty)] for row in grid for line in grid]


@primitive("paint", family="tile")
def frame(grid: Grid, colour: int) -> Grid:
    """Put a ring of a colour around the grid."""
    room(len(grid) + 2, len(grid[0]) + 2)
    line = [colour] * (len(grid[0]) + 2)
    return [line, *([colour, *row, colour] for row in grid), line[:]]
