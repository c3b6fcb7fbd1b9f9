"""Primitives that draw on a grid or lay parts of it over one another: borders, diagonals, stripes, halves, images."""

from __future__ import annotations

from utils.arc.dsl_base import Grid, primitive, room


@primitive("paint", family="border")
def border(grid: Grid, colour: int) -> Grid:
    """Paint the outermost rows and columns."""
    line = [colour] * len(grid[0])
    if len(grid) == 1:
        return [line]
    return [line, *([colour, *row[1:-1], colour][-len(row) :] for row in grid[1:-1]), line[:]]


@primitive("paint", family="border")
def diagonal(grid: Grid, colour: int) -> Grid:
    """Paint the diagonal from the top left cell down to the right."""
    out = [row[:] for row in grid]
    for at in range(min(len(grid), len(grid[0]))):
        out[at][at] = colour
    return out


@primitive("paint", family="border")
def other_diagonal(grid: Grid, colour: int) -> Grid:
    """Paint the diagonal from the bottom left cell up to the right."""
    out = [row[:] for row in grid]
    for at in range(min(len(grid), len(grid[0]))):
        out[-1 - at][at] = colour
    return out


@primitive("paint", family="border", suits=("sparse", "objects"))
def stripe_rows(grid: Grid, colour: int) -> Grid:
    """Paint the 0s of every second row, from the first on."""
    return [row[:] if at % 2 else [cell or colour for cell in row] for at, row in enumerate(grid)]


@primitive("paint", family="border", suits=("sparse", "objects"))
def stripe_columns(grid: Grid, colour: int) -> Grid:
    """Paint the 0s of every second column, from the first on."""
    return [[cell or (0 if at % 2 else colour) for at, cell in enumerate(row)] for row in grid]


def _halves(grid: Grid) -> tuple[Grid, Grid]:
    """Left and right, or top and bottom where the grid is higher than wide; a middle line is dropped."""
    height, width = len(grid), len(grid[0])
    if height > width:
        return grid[: height // 2], grid[(height + 1) // 2 :]
    room(1, width // 2)
    return [row[: width // 2] for row in grid], [row[(width + 1) // 2 :] for row in grid]


@primitive("paint", family="halves", suits=("halves",))
def halves_and(grid: Grid, colour: int) -> Grid:
    """Split along the longer side; paint where both halves have a cell other than 0."""
    return [[colour if a and b else 0 for a, b in zip(*rows)] for rows in zip(*_halves(grid))]


@primitive("paint", family="halves", suits=("halves",))
def halves_or(grid: Grid, colour: int) -> Grid:
    """Split along the longer side; paint where either half has a cell other than 0."""
    return [[colour if a or b else 0 for a, b in zip(*rows)] for rows in zip(*_halves(grid))]


@primitive("paint", family="halves", suits=("halves",))
def halves_xor(grid: Grid, colour: int) -> Grid:
    """Split along the longer side; paint where just one half has a cell other than 0."""
    return [[0 if (not a) == (not b) else colour for a, b in zip(*rows)] for rows in zip(*_halves(grid))]


@primitive("paint", family="halves", suits=("halves",))
def halves_nor(grid: Grid, colour: int) -> Grid:
    """Split along the longer side; paint where neither half has a cell other than 0."""
    return [[0 if a or b else colour for a, b in zip(*rows)] for rows in zip(*_halves(grid))]


@primitive(family="halves", suits=("halves",))
def overlay_halves(grid: Grid) -> Grid:
    """Split along the longer side, and lay the first half over the second; 0 lets through."""
    return [[a or b for a, b in zip(*rows)] for rows in zip(*_halves(grid))]


@primitive(family="halves", suits=("halves",))
def underlay_halves(grid: Grid) -> Grid:
    """Split along the longer side, and lay the second half over the first; 0 lets through."""
    return [[b or a for a, b in zip(*rows)] for rows in zip(*_halves(grid))]


@primitive(family="overlay", suits=("sparse", "objects"))
def overlay_flip_columns(grid: Grid) -> Grid:
    """Fill the 0s from the mirror image, left to right."""
    return [[a or b for a, b in zip(row, reversed(row))] for row in grid]


@primitive(family="overlay", suits=("sparse", "objects"))
def overlay_flip_rows(grid: Grid) -> Grid:
    """Fill the 0s from the upside-down image."""
    return [[a or b for a, b in zip(*rows)] for rows in zip(grid, reversed(grid))]


@primitive(family="overlay", suits=("square",))
def overlay_transpose(grid: Grid) -> Grid:
    """Fill the 0s of a square from its mirror image over the main diagonal."""
    if len(grid) != len(grid[0]):
        raise ValueError(f"only a square has an image over its diagonal, not {len(grid)}x{len(grid[0])}")
    return [[a or b for a, b in zip(*rows)] for rows in zip(grid, zip(*grid))]
