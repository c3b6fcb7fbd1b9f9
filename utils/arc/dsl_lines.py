"""Primitives on rows and columns: gravity, smears, connections, sorting, and dropping lines."""

from __future__ import annotations

from collections.abc import Callable

from utils.arc.dsl_base import Grid, columns, commonest, counts, primitive


def _upright(grid: Grid, change: Callable[[list[int]], list[int]]) -> Grid:
    """`change` of every column."""
    return columns([change(list(column)) for column in zip(*grid)])


def _settled(line: list[int]) -> list[int]:
    """The 0s first, then the rest in order."""
    kept = [cell for cell in line if cell]
    return [0] * (len(line) - len(kept)) + kept


def _risen(line: list[int]) -> list[int]:
    kept = [cell for cell in line if cell]
    return kept + [0] * (len(line) - len(kept))


@primitive(family="gravity", suits=("sparse", "objects"))
def fall_down(grid: Grid) -> Grid:
    """Let every cell that is not 0 fall to the bottom of its column."""
    return _upright(grid, _settled)


@primitive(family="gravity", suits=("sparse", "objects"))
def fall_up(grid: Grid) -> Grid:
    """Let every cell that is not 0 rise to the top of its column."""
    return _upright(grid, _risen)


@primitive(family="gravity", suits=("sparse", "objects"))
def fall_left(grid: Grid) -> Grid:
    """Push every cell that is not 0 to the left of its row."""
    return [_risen(row) for row in grid]


@primitive(family="gravity", suits=("sparse", "objects"))
def fall_right(grid: Grid) -> Grid:
    """Push every cell that is not 0 to the right of its row."""
    return [_settled(row) for row in grid]


def _smeared(line: list[int]) -> list[int]:
    """Each 0 takes the last colour before it."""
    out, last = [], 0
    for cell in line:
        last = cell or last
        out.append(last)
    return out


def _smeared_back(line: list[int]) -> list[int]:
    return _smeared(line[::-1])[::-1]


@primitive(family="smear", suits=("sparse",))
def smear_down(grid: Grid) -> Grid:
    """Draw every colour down until another colour or the edge."""
    return _upright(grid, _smeared)


@primitive(family="smear", suits=("sparse",))
def smear_up(grid: Grid) -> Grid:
    """Draw every colour up until another colour or the edge."""
    return _upright(grid, _smeared_back)


@primitive(family="smear", suits=("sparse",))
def smear_right(grid: Grid) -> Grid:
    """Draw every colour to the right until another colour or the edge."""
    return [_smeared(row) for row in grid]


@primitive(family="smear", suits=("sparse",))
def smear_left(grid: Grid) -> Grid:
    """Draw every colour to the left until another colour or the edge."""
    return [_smeared_back(row) for row in grid]


def _joined(line: list[int], colour: int | None) -> list[int]:
    """The 0s between two neighbouring cells of equal colour painted in it, or in `colour`."""
    out, last = line[:], -1
    for at, cell in enumerate(line):
        if cell:
            if last >= 0 and line[last] == cell:
                for between in range(last + 1, at):
                    out[between] = cell if colour is None else colour
            last = at
    return out


@primitive(family="connect", suits=("sparse", "dots"))
def connect_rows(grid: Grid) -> Grid:
    """Draw a line between two cells of equal colour in a row with only 0s between them."""
    return [_joined(row, None) for row in grid]


@primitive(family="connect", suits=("sparse", "dots"))
def connect_columns(grid: Grid) -> Grid:
    """Draw a line between two cells of equal colour in a column with only 0s between them."""
    return _upright(grid, lambda line: _joined(line, None))


@primitive("paint", family="connect", suits=("sparse", "dots"))
def bridge_rows(grid: Grid, colour: int) -> Grid:
    """Paint the 0s between two cells of equal colour in a row."""
    return [_joined(row, colour) for row in grid]


@primitive("paint", family="connect", suits=("sparse", "dots"))
def bridge_both(grid: Grid, colour: int) -> Grid:
    """Paint the 0s between two cells of equal colour in a row or in a column."""
    upright = _upright(grid, lambda line: _joined(line, colour))
    return [[a if b == c else b for a, b, c in zip(*rows)] for rows in zip(upright, bridge_rows(grid, colour), grid)]


@primitive("colour", family="extend", suits=("sparse", "dots"))
def extend_rows(grid: Grid, colour: int) -> Grid:
    """In every row that holds a colour, paint the 0s in it."""
    return [[cell or colour for cell in row] if colour in row else row[:] for row in grid]


@primitive("colour", family="extend", suits=("sparse", "dots"))
def extend_columns(grid: Grid, colour: int) -> Grid:
    """In every column that holds a colour, paint the 0s in it."""
    return columns(extend_rows(columns(grid), colour))


@primitive(family="sort", suits=("sparse", "noise"))
def sort_rows(grid: Grid) -> Grid:
    """Order the rows by how many of their cells are not 0, fewest first; equal ones stay in order."""
    return [row[:] for row in sorted(grid, key=lambda row: len(row) - row.count(0))]


@primitive(family="sort", suits=("sparse", "noise"))
def sort_columns(grid: Grid) -> Grid:
    """Order the columns by how many of their cells are not 0, fewest first; equal ones stay in order."""
    return columns(sort_rows(columns(grid)))


@primitive(family="sort", suits=("noise",))
def sort_cells(grid: Grid) -> Grid:
    """Order the cells of every row by colour, lowest first."""
    return [sorted(row) for row in grid]


@primitive(family="lines", suits=("lines",))
def remove_empty_rows(grid: Grid) -> Grid:
    """Drop the rows of nothing but 0."""
    return [row[:] for row in grid if any(row)] or _nothing()


@primitive(family="lines", suits=("lines",))
def remove_empty_columns(grid: Grid) -> Grid:
    """Drop the columns of nothing but 0."""
    return columns(remove_empty_rows(columns(grid)))


def _nothing() -> Grid:
    raise ValueError("nothing is left of the grid")


@primitive(family="lines", suits=("lines",))
def unique_rows(grid: Grid) -> Grid:
    """Of equal rows that follow one another keep the first."""
    return [row[:] for at, row in enumerate(grid) if not at or row != grid[at - 1]]


@primitive(family="lines", suits=("lines",))
def unique_columns(grid: Grid) -> Grid:
    """Of equal columns that follow one another keep the first."""
    return columns(unique_rows(columns(grid)))


@primitive(family="lines", suits=("lines", "noise"))
def level_rows(grid: Grid) -> Grid:
    """Fill every row with its commonest colour."""
    return [[commonest(counts([row]))] * len(row) for row in grid]


@primitive(family="lines", suits=("lines", "noise"))
def level_columns(grid: Grid) -> Grid:
    """Fill every column with its commonest colour."""
    return columns(level_rows(columns(grid)))


@primitive("paint", family="lines", suits=("lines",))
def mark_even_rows(grid: Grid, colour: int) -> Grid:
    """Paint the rows that are of one colour; make the rest 0."""
    return [[colour if len(set(row)) == 1 else 0] * len(row) for row in grid]
