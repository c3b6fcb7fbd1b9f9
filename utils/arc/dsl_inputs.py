"""Random input grids in several families, on which the primitives of the DSL show what they do.

Each family takes a generator, a height, a width and the colours to use, and returns rows of plain ints. Written for
speed on grids of a few dozen cells: lists and `random.Random`. Leaves out the choice of family (`arc.programs`).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from utils.arc.dsl_base import Grid


def below(random: Random, bound: int) -> int:
    """A whole number from 0 to bound - 1 (several times as fast as `randrange`)."""
    return int(random.random() * bound)


def _rows(cells: list[int], width: int) -> Grid:
    return [cells[at : at + width] for at in range(0, len(cells), width)]


def noise(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """Every cell drawn for itself, a third to all of them coloured."""
    blank = below(random, 2 * len(colours) + 1)
    return _rows(random.choices([0] * blank + colours, k=height * width), width)


def plain(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """Noise of one colour."""
    return noise(random, height, width, [colours[below(random, len(colours))]])


def sparse(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """Single cells, on an eighth to a third of the grid."""
    size = height * width
    cells = [0] * size
    for _ in range(max(2, size // 8 + below(random, size // 4 + 1))):
        cells[below(random, size)] = colours[below(random, len(colours))]
    return _rows(cells, width)


def dots(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """Single cells of which many share a row, a column and a colour, with or without a rectangle."""
    grid = [[0] * width for _ in range(height)]
    if random.random() < 0.5:
        _rectangle(random, grid, colours[below(random, len(colours))], 2, 0)
    for _ in range(1 + below(random, max(1, (height + width) // 4))):
        colour = colours[below(random, len(colours))]
        row, column = below(random, height), below(random, width)
        grid[row][column] = colour
        if random.random() < 0.5:
            grid[row][below(random, width)] = colour
        else:
            grid[below(random, height)][column] = colour
    return grid


def objects(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """Two to five solid, hollow or ragged rectangles."""
    grid = [[0] * width for _ in range(height)]
    for _ in range(2 + below(random, min(4, height * width // 12 + 1))):
        _rectangle(random, grid, colours[below(random, len(colours))], 1, below(random, 3))
    return grid


def blocks(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """One to three solid rectangles, some with sides of three or more where there is room."""
    grid = [[0] * width for _ in range(height)]
    for _ in range(1 + below(random, 3)):
        _rectangle(random, grid, colours[below(random, len(colours))], 3, 0)
    return grid


def enclosed(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """One to three rings, some broken, and a few single cells."""
    grid = sparse(random, height, width, colours) if random.random() < 0.3 else [[0] * width for _ in range(height)]
    for _ in range(1 + below(random, 3)):
        _rectangle(random, grid, colours[below(random, len(colours))], 3, 1)
    if random.random() < 0.5:
        grid[below(random, height)][below(random, width)] = 0
    return grid


def _rectangle(random: Random, grid: Grid, colour: int, least: int, style: int) -> None:
    """Draw a rectangle with sides of at least `least`: solid (0), hollow (1) or ragged (2)."""
    height, width = len(grid), len(grid[0])
    tall, wide = (min(side, least + below(random, max(1, side * 2 // 3))) for side in (height, width))
    top, left = below(random, height - tall + 1), below(random, width - wide + 1)
    for at in range(top, top + tall):
        row = grid[at]
        if style == 2:
            for column in range(left, left + wide):
                if random.random() < 0.6:
                    row[column] = colour
        elif style == 0 or at in (top, top + tall - 1):
            row[left : left + wide] = [colour] * wide
        else:
            row[left] = row[left + wide - 1] = colour
            row[left + 1 : left + wide - 1] = [0] * (wide - 2)


def symmetric(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """Noise folded over, left to right or top to bottom, with one cell changed."""
    grid = noise(random, height, width, colours)
    if random.random() < 0.5:
        grid = [row[: (width + 1) // 2] + row[: width // 2][::-1] for row in grid]
    else:
        grid = grid[: (height + 1) // 2] + [row[:] for row in grid[: height // 2][::-1]]
    grid[below(random, height)][below(random, width)] = colours[below(random, len(colours))]
    return grid


def halves(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """Two halves of noise, each of a colour, side by side along the longer side; on either side of a line if odd."""
    tall = height > width
    short, long = (width, height) if tall else (height, width)
    first, second, line = (colours[below(random, len(colours))] for _ in range(3))
    half = long // 2
    parts = [_rows(random.choices((0, colour), k=short * half), short) for colour in (first, second)]
    grid = parts[0] + [[line] * short] * (long % 2) + parts[1]
    return grid if tall else [list(column) for column in zip(*grid)]


def lines(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """Rows or columns, some of them repeated, empty or of one colour."""
    upright = random.random() < 0.5
    count, length = (width, height) if upright else (height, width)
    grid: Grid = []
    while len(grid) < count:
        kind = random.random()
        if kind < 0.25:
            line = [colours[below(random, len(colours))]] * length
        elif kind < 0.5:
            line = [0] * length
        else:
            line = random.choices([0, *colours], k=length)
        grid += [line[:] for _ in range(min(1 + below(random, 3), count - len(grid)))]
    return [list(column) for column in zip(*grid)] if upright else grid


def framed(random: Random, height: int, width: int, colours: list[int]) -> Grid:
    """Objects inside a ring of one colour."""
    grid = objects(random, height, width, colours)
    colour = colours[below(random, len(colours))]
    grid[0], grid[-1] = [colour] * width, [colour] * width
    for row in grid:
        row[0] = row[-1] = colour
    return grid


INPUTS: dict[str, Callable[[Random, int, int, list[int]], Grid]] = {
    "noise": noise,
    "plain": plain,
    "sparse": sparse,
    "dots": dots,
    "objects": objects,
    "blocks": blocks,
    "enclosed": enclosed,
    "symmetric": symmetric,
    "halves": halves,
    "lines": lines,
    "framed": framed,
}
# Suits that are no family: noise, objects or single cells with sides of a kind, from a height, a width and the least.
SIZES: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
    "small": lambda height, width, low: (min(height, max(low, 5)), min(width, max(low, 5))),
    "tiny": lambda height, width, low: (min(height, max(low, 3)), min(width, max(low, 3))),
    "square": lambda height, width, low: (height, height),
}
