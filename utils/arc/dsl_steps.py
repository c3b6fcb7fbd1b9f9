"""Programs of the DSL as steps: written as Python that a person can read, read back, and run here.

A step is a primitive's name and its numbers. Leaves out programs that are no such sequence: `rl.sandbox` runs those.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from utils.arc.dsl import PRIMITIVES, Grid

Step = tuple[str, tuple[int, ...]]
Steps = tuple[Step, ...]
RAW = {name: function.__wrapped__ for name, function in PRIMITIVES.items()}  # unguarded: for grids known to be good


class ProgramsError(ValueError):
    """A program that is none, or settings under which no task is found; the message says what was expected."""


def render(steps: Sequence[Step]) -> str:
    """The text of a program; `parse` reads it back."""
    calls = [f"{name}({', '.join(map(str, ('grid', *numbers)))})" for name, numbers in steps]
    return "\n".join(
        ["def solve(grid):", *(f"    grid = {call}" for call in calls[:-1]), f"    return {calls[-1]}", ""]
    )


def parse(program: str) -> Steps:
    """The steps of a program in the form that `render` writes. Raises `ProgramsError` for any other."""
    try:
        (function,) = ast.parse(program).body
        calls = [line.value for line in function.body]  # type: ignore[attr-defined]
        steps = tuple((call.func.id, tuple(number.value for number in call.args[1:])) for call in calls)  # type: ignore
    except (SyntaxError, ValueError, AttributeError):
        steps = ()
    if not steps or render(steps) != program or any(name not in PRIMITIVES for name, _ in steps):
        raise ProgramsError(
            f"{program!r:.200} is no composition of primitives; expected 'def solve(grid):', lines 'grid = name(grid,"
            " ...)', and a last line 'return name(grid, ...)'"
        )
    return steps


def run(steps: Sequence[Step], grid: Grid) -> Grid:
    """What a program makes of a grid. Raises ValueError where a step cannot be done."""
    for name, numbers in steps:
        grid = RAW[name](grid, *numbers)
    return grid
