"""How a primitive of the DSL is declared and guarded, and what several of them share.

A grid here is a list of rows, each a list of plain ints 0 to 9; 0 is the background. Standard library only: a sandboxed
child imports this. Leaves out the primitives (`arc.dsl` gathers them).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

Grid = list[list[int]]
Function = TypeVar("Function", bound=Callable[..., Grid])

SIDE = 30
KINDS: dict[str, tuple[int, ...]] = {
    "colour": tuple(range(10)),  # a colour that is looked for, so one the grid should hold
    "paint": tuple(range(10)),  # a colour that is put down
    "times": (2, 3, 4),  # how often something is repeated
    "steps": (1, 2, 3),  # how far something is moved
}
BOUNDS = {"colour": (0, 9), "paint": (0, 9), "times": (1, 30), "steps": (0, 30)}
PRIMITIVES: dict[str, Callable[..., Grid]] = {}  # guarded: for programs
PARAMETERS: dict[str, tuple[str, ...]] = {}  # kinds of the arguments after the grid
FAMILIES: dict[str, str] = {}  # the module's own grouping
SUITS: dict[str, tuple[str, ...]] = {}  # the kinds of input on which a primitive shows what it does
_COLOURS = frozenset(range(10))


def primitive(*kinds: str, family: str, suits: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Enter a function of a grid and `kinds` of numbers into the tables; the function itself stays unguarded."""

    def enter(function: Function) -> Function:
        name = function.__name__
        if name in PRIMITIVES:
            raise ValueError(f"primitive {name} is declared twice")
        PRIMITIVES[name] = _guarded(function, kinds)
        PARAMETERS[name], FAMILIES[name], SUITS[name] = kinds, family, suits
        return function

    return enter


def _guarded(function: Callable[..., Grid], kinds: tuple[str, ...]) -> Callable[..., Grid]:
    """`function` that answers arguments of the wrong number, type or range with a ValueError."""
    name, bounds = function.__name__, tuple(BOUNDS[kind] for kind in kinds)

    @wraps(function)
    def guarded(*arguments: object) -> Grid:
        if len(arguments) != len(bounds) + 1:
            raise ValueError(f"{name} takes a grid and {len(bounds)} numbers, not {len(arguments)} arguments")
        grid = arguments[0]
        check(grid)
        for value, (low, high) in zip(arguments[1:], bounds):
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} takes whole numbers {low} to {high}, not {value!r:.20}")
        return function(*arguments)

    return guarded


def check(grid: object) -> None:
    """Raises ValueError for what is no list of rows of 1 to 30 colours, all as long."""
    if type(grid) is not list or not 1 <= len(grid) <= SIDE or type(grid[0]) is not list:
        raise ValueError(f"expected a grid of 1 to {SIDE} rows, got {grid!r:.40}")
    width = len(grid[0])
    if not 1 <= width <= SIDE:
        raise ValueError(f"expected rows of 1 to {SIDE} cells, got {width}")
    for row in grid:
        if type(row) is not list or len(row) != width:
            raise ValueError(f"expected rows of {width} cells, got {row!r:.40}")
        for cell in row:
            if type(cell) is not int or cell not in _COLOURS:
                raise ValueError(f"expected colours 0 to 9, got {cell!r:.40}")


def room(height: int, width: int) -> None:
    """Raises ValueError where a grid of this size would be no grid."""
    if height > SIDE or width > SIDE or height < 1 or width < 1:
        raise ValueError(f"a grid of {height}x{width} cells; sides go from 1 to {SIDE}")


def columns(grid: Grid) -> Grid:
    """The transpose: the columns as rows."""
    return [list(column) for column in zip(*grid)]


def counts(grid: Grid) -> list[int]:
    """How many cells each of the 10 colours has."""
    found = [0] * 10
    for row in grid:
        for cell in row:
            found[cell] += 1
    return found


def commonest(numbers: list[int]) -> int:
    """The colour of most cells; the lowest of several."""
    return numbers.index(max(numbers))


def rarest(numbers: list[int]) -> int:
    """The colour other than 0 of fewest cells, at least one; the lowest of several. Raises ValueError for none."""
    return min((n, colour) for colour, n in enumerate(numbers) if n and colour)[1] if any(numbers[1:]) else _none()


def _none() -> int:
    raise ValueError("the grid has no colour but 0")


def box(grid: Grid, colour: int | None = None) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the cells of a colour, or of all that are not 0; ends after the last cell."""
    if colour is None:
        rows = [at for at, row in enumerate(grid) if any(row)]
        sides = [at for at, column in enumerate(zip(*grid)) if any(column)]
    else:
        rows = [at for at, row in enumerate(grid) if colour in row]
        sides = [at for at, column in enumerate(zip(*grid)) if colour in column]
    if not rows:
        raise ValueError("the grid has no cell to crop to")
    return rows[0], rows[-1] + 1, sides[0], sides[-1] + 1
