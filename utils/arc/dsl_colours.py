"""Primitives that recolour cells, or keep and drop them, by their colours."""

from __future__ import annotations

from utils.arc.dsl_base import Grid, commonest, counts, primitive, rarest


@primitive("colour", "paint", family="recolour")
def recolour(grid: Grid, old: int, new: int) -> Grid:
    """Make every cell of one colour another colour."""
    return [[new if cell == old else cell for cell in row] for row in grid]


@primitive("colour", "colour", family="recolour")
def swap_colours(grid: Grid, first: int, second: int) -> Grid:
    """Exchange two colours."""
    names = list(range(10))
    names[first], names[second] = second, first
    return [[names[cell] for cell in row] for row in grid]


@primitive("paint", family="recolour", suits=("objects", "sparse", "noise"))
def paint_all(grid: Grid, colour: int) -> Grid:
    """Make every cell that is not 0 one colour."""
    return [[colour if cell else 0 for cell in row] for row in grid]


@primitive("paint", family="recolour", suits=("objects", "sparse"))
def fill_background(grid: Grid, colour: int) -> Grid:
    """Make every 0 a colour."""
    return [[cell or colour for cell in row] for row in grid]


@primitive("paint", family="mask", suits=("objects", "sparse"))
def invert(grid: Grid, colour: int) -> Grid:
    """Make every 0 a colour, and everything else 0."""
    return [[0 if cell else colour for cell in row] for row in grid]


@primitive(family="mask", suits=("plain",))
def negative(grid: Grid) -> Grid:
    """Exchange 0 and the commonest colour other than 0."""
    return swap_colours(grid, 0, _main(grid))


@primitive("colour", family="mask")
def keep_colour(grid: Grid, colour: int) -> Grid:
    """Make everything 0 but one colour."""
    return [[cell if cell == colour else 0 for cell in row] for row in grid]


@primitive("colour", family="mask")
def remove_colour(grid: Grid, colour: int) -> Grid:
    """Make one colour 0."""
    return [[0 if cell == colour else cell for cell in row] for row in grid]


def _main(grid: Grid) -> int:
    """The commonest colour other than 0; 0 where there is none."""
    numbers = counts(grid)
    numbers[0] = 0
    return commonest(numbers)


@primitive(family="mask", suits=("noise", "objects"))
def keep_commonest(grid: Grid) -> Grid:
    """Make everything 0 but the commonest colour other than 0."""
    return keep_colour(grid, _main(grid))


@primitive(family="mask", suits=("noise", "objects"))
def remove_commonest(grid: Grid) -> Grid:
    """Make the commonest colour other than 0 into 0."""
    return remove_colour(grid, _main(grid))


@primitive(family="mask", suits=("noise", "objects"))
def keep_rarest(grid: Grid) -> Grid:
    """Make everything 0 but the rarest colour other than 0."""
    return keep_colour(grid, rarest(counts(grid)))


@primitive(family="mask", suits=("noise", "objects"))
def remove_rarest(grid: Grid) -> Grid:
    """Make the rarest colour other than 0 into 0."""
    return remove_colour(grid, rarest(counts(grid)))


@primitive("paint", family="recolour", suits=("noise", "objects"))
def paint_commonest(grid: Grid, colour: int) -> Grid:
    """Make the commonest colour other than 0 into another."""
    old = _main(grid)
    return recolour(grid, old, colour) if old else [row[:] for row in grid]


@primitive("paint", family="recolour", suits=("noise", "objects"))
def paint_rarest(grid: Grid, colour: int) -> Grid:
    """Make the rarest colour other than 0 into another."""
    return recolour(grid, rarest(counts(grid)), colour)


@primitive("paint", family="recolour", suits=("noise",))
def paint_others(grid: Grid, colour: int) -> Grid:
    """Make everything one colour but the commonest colour of all."""
    kept = commonest(counts(grid))
    return [[cell if cell == kept else colour for cell in row] for row in grid]


@primitive(family="recolour", suits=("noise",))
def fill_commonest(grid: Grid) -> Grid:
    """Fill the grid with its commonest colour."""
    colour = commonest(counts(grid))
    return [[colour] * len(row) for row in grid]
