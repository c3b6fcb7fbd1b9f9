"""Primitives on regions: holes, outlines, insides, and rectangles around objects as of `arc.dsl_objects`."""

from __future__ import annotations

from utils.arc.dsl_base import Grid, primitive
from utils.arc.dsl_objects import Cells, objects, padded


@primitive("paint", family="region", suits=("enclosed",))
def fill_holes(grid: Grid, colour: int) -> Grid:
    """Paint the 0s that no way along 0s, up, down, left or right, joins to the edge of the grid."""
    flat, stride = padded(grid)
    todo = [
        stride * (row + 1) + column
        for row, line in enumerate(grid)
        for column in (range(len(line)) if row in (0, len(grid) - 1) else (0, len(line) - 1))
        if not line[column]
    ]
    inner = {
        stride * (row + 1) + column for row, line in enumerate(grid) for column, cell in enumerate(line) if not cell
    }
    inner.difference_update(todo)
    for cell in todo:  # grows while it is read
        for near in (cell + 1, cell - 1, cell + stride, cell - stride):
            if near in inner:
                inner.remove(near)
                todo.append(near)
    for cell in inner:
        flat[cell] = colour
    return [flat[at : at + stride - 1] for at in range(stride, stride * (len(grid) + 1), stride)]


@primitive("paint", family="region", suits=("objects", "sparse"))
def outline(grid: Grid, colour: int) -> Grid:
    """Paint the 0s that touch a cell other than 0, corners counting."""
    return _haloed(grid, colour, True)


@primitive("paint", family="region", suits=("objects", "sparse"))
def outline_sides(grid: Grid, colour: int) -> Grid:
    """Paint the 0s that touch a cell other than 0 along a side."""
    return _haloed(grid, colour, False)


def _haloed(grid: Grid, colour: int, corners: bool) -> Grid:
    flat, stride = padded(grid)
    steps = (1, -1, stride, -stride) + ((stride + 1, stride - 1, -stride + 1, -stride - 1) if corners else ())
    out = flat[:]
    for at, cell in enumerate(flat):
        if cell:
            for step in steps:
                if not flat[at + step]:
                    out[at + step] = colour
    return [out[at : at + stride - 1] for at in range(stride, stride * (len(grid) + 1), stride)]


@primitive(family="region", suits=("blocks",))
def hollow(grid: Grid) -> Grid:
    """Make every cell 0 whose eight neighbours have its own colour."""
    return _gutted(grid, 0)


@primitive("paint", family="region", suits=("blocks",))
def paint_inside(grid: Grid, colour: int) -> Grid:
    """Paint every cell other than 0 whose eight neighbours have its own colour."""
    return _gutted(grid, colour)


def _gutted(grid: Grid, colour: int) -> Grid:
    out = [row[:] for row in grid]
    for at in range(1, len(grid) - 1):
        for above, row, below, column in (
            (grid[at - 1], grid[at], grid[at + 1], c) for c in range(1, len(grid[0]) - 1)
        ):
            cell = row[column]
            if cell and row[column - 1] == cell == row[column + 1]:
                near = [cell] * 3
                span = slice(column - 1, column + 2)
                if above[span] == near == below[span]:
                    out[at][column] = colour
    return out


@primitive("paint", family="region", suits=("objects", "sparse"))
def fill_boxes(grid: Grid, colour: int) -> Grid:
    """Paint the 0s inside the rectangle around each object."""
    out = [row[:] for row in grid]
    for cells in objects(grid):
        _fill(out, grid, cells, colour)
    return out


@primitive(family="region", suits=("dots", "sparse"))
def fill_colour_boxes(grid: Grid) -> Grid:
    """Paint the 0s inside the rectangle around the cells of each colour in that colour; the lowest colour first."""
    out = [row[:] for row in grid]
    for colour in sorted({cell for row in grid for cell in row if cell}):
        cells = [(r, c) for r, row in enumerate(grid) for c, cell in enumerate(row) if cell == colour]
        _fill(out, out, cells, colour)
    return out


def _fill(out: Grid, grid: Grid, cells: Cells, colour: int) -> None:
    rows, sides = [row for row, _ in cells], [column for _, column in cells]
    for row in range(min(rows), max(rows) + 1):
        for column in range(min(sides), max(sides) + 1):
            if not grid[row][column]:
                out[row][column] = colour
