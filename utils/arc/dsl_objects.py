"""Primitives on objects: the largest, the smallest, single cells, those at the edge.

An object is a set of touching cells of one colour other than 0, corners counting as touching; a shape is the same with
any colours other than 0. Of several objects equally large the first in reading order counts.
"""

from __future__ import annotations

from utils.arc.dsl_base import Grid, primitive

Cells = list[tuple[int, int]]


def objects(grid: Grid) -> list[Cells]:
    """The (row, column) cells of every object, in reading order of their first cells."""
    flat, stride = padded(grid)
    found = []
    steps = (1, -1, stride, -stride, stride + 1, stride - 1, -stride + 1, -stride - 1)
    for start, colour in enumerate(flat):
        if colour:
            flat[start] = 0
            cells = [start]
            for cell in cells:  # grows while it is read
                for step in steps:
                    if flat[cell + step] == colour:
                        flat[cell + step] = 0
                        cells.append(cell + step)
            found.append([(cell // stride - 1, cell % stride) for cell in cells])
    return found


def shapes(grid: Grid) -> list[Cells]:
    """`objects` whatever their colours."""
    return objects([[1 if cell else 0 for cell in row] for row in grid])


def padded(grid: Grid) -> tuple[list[int], int]:
    """The cells in one list with a row of 0s before and after and a 0 after each row; and the length of a row.

    One 0 a row is enough: the neighbour to the left of a row's first cell is the 0 after the row before.
    """
    stride = len(grid[0]) + 1
    flat = [0] * stride
    for row in grid:
        flat += row
        flat.append(0)
    flat += [0] * stride
    return flat, stride


def _largest(found: list[Cells]) -> Cells:
    if not found:
        raise ValueError("the grid has no object")
    return max(found, key=len)


def _smallest(found: list[Cells]) -> Cells:
    if not found:
        raise ValueError("the grid has no object")
    return min(found, key=len)


def _only(grid: Grid, cells: Cells) -> Grid:
    out = [[0] * len(row) for row in grid]
    for row, column in cells:
        out[row][column] = grid[row][column]
    return out


def _painted(grid: Grid, cells: Cells, colour: int) -> Grid:
    out = [row[:] for row in grid]
    for row, column in cells:
        out[row][column] = colour
    return out


def _boxed(grid: Grid, cells: Cells) -> Grid:
    """The rectangle around the cells, with all that is in it."""
    rows, sides = [row for row, _ in cells], [column for _, column in cells]
    return [row[min(sides) : max(sides) + 1] for row in grid[min(rows) : max(rows) + 1]]


@primitive(family="object", suits=("objects",))
def keep_largest(grid: Grid) -> Grid:
    """Keep the largest object and make everything else 0."""
    return _only(grid, _largest(objects(grid)))


@primitive(family="object", suits=("objects",))
def keep_smallest(grid: Grid) -> Grid:
    """Keep the smallest object and make everything else 0."""
    return _only(grid, _smallest(objects(grid)))


@primitive(family="object", suits=("objects",))
def remove_largest(grid: Grid) -> Grid:
    """Make the largest object 0."""
    return _painted(grid, _largest(objects(grid)), 0)


@primitive(family="object", suits=("objects",))
def remove_smallest(grid: Grid) -> Grid:
    """Make the smallest object 0."""
    return _painted(grid, _smallest(objects(grid)), 0)


@primitive("paint", family="object", suits=("objects",))
def paint_largest(grid: Grid, colour: int) -> Grid:
    """Paint the largest object."""
    return _painted(grid, _largest(objects(grid)), colour)


@primitive("paint", family="object", suits=("objects",))
def paint_smallest(grid: Grid, colour: int) -> Grid:
    """Paint the smallest object."""
    return _painted(grid, _smallest(objects(grid)), colour)


@primitive(family="crop", suits=("objects",))
def crop_largest(grid: Grid) -> Grid:
    """Cut out the rectangle around the largest object."""
    return _boxed(grid, _largest(objects(grid)))


@primitive(family="crop", suits=("objects",))
def crop_smallest(grid: Grid) -> Grid:
    """Cut out the rectangle around the smallest object."""
    return _boxed(grid, _smallest(objects(grid)))


@primitive(family="crop", suits=("objects",))
def crop_largest_shape(grid: Grid) -> Grid:
    """Cut out the rectangle around the largest shape, whatever its colours."""
    return _boxed(grid, _largest(shapes(grid)))


@primitive(family="crop", suits=("objects",))
def crop_smallest_shape(grid: Grid) -> Grid:
    """Cut out the rectangle around the smallest shape, whatever its colours."""
    return _boxed(grid, _smallest(shapes(grid)))


@primitive(family="object", suits=("dots",))
def remove_dots(grid: Grid) -> Grid:
    """Make objects of a single cell 0."""
    return _painted(grid, [cells[0] for cells in objects(grid) if len(cells) == 1], 0)


@primitive(family="object", suits=("dots",))
def keep_dots(grid: Grid) -> Grid:
    """Keep objects of a single cell and make everything else 0."""
    return _only(grid, [cells[0] for cells in objects(grid) if len(cells) == 1])


@primitive("paint", family="object", suits=("dots",))
def paint_dots(grid: Grid, colour: int) -> Grid:
    """Paint objects of a single cell."""
    return _painted(grid, [cells[0] for cells in objects(grid) if len(cells) == 1], colour)


@primitive(family="object", suits=("objects",))
def remove_touching(grid: Grid) -> Grid:
    """Make the objects that touch the edge of the grid 0."""
    return _painted(grid, [cell for cells in objects(grid) if _touches(grid, cells) for cell in cells], 0)


@primitive("paint", family="object", suits=("objects",))
def paint_touching(grid: Grid, colour: int) -> Grid:
    """Paint the objects that touch the edge of the grid."""
    return _painted(grid, [cell for cells in objects(grid) if _touches(grid, cells) for cell in cells], colour)


def _touches(grid: Grid, cells: Cells) -> bool:
    bottom, right = len(grid) - 1, len(grid[0]) - 1
    return any(row in (0, bottom) or column in (0, right) for row, column in cells)
