"""Whether pairs show a program: what a shorter one, one with other numbers, and any of one step make of them.

Leaves out longer programs that happen to do the same.
"""

from __future__ import annotations

from utils.arc.dsl import KINDS, PARAMETERS, Grid
from utils.arc.dsl_search import last_steps, right
from utils.arc.dsl_steps import Steps, run

Pairs = list[tuple[Grid, Grid]]


def needed(steps: Steps, pairs: Pairs, colours: list[int]) -> bool:
    """Whether some shown pair tells the program from itself without each step, and with each number changed."""
    if len(steps) > 1:
        for at in range(len(steps)):
            if not _differs(steps[:at] + steps[at + 1 :], pairs):
                return False
    for at, (name, numbers) in enumerate(steps):
        for place, kind in enumerate(PARAMETERS[name]):
            if not any(
                _differs(
                    (*steps[:at], (name, (*numbers[:place], other, *numbers[place + 1 :])), *steps[at + 1 :]), pairs
                )
                for other in _others(numbers[place], kind, colours)
            ):
                return False
    return True


def _others(number: int, kind: str, colours: list[int]) -> list[int]:
    """Two other values of a number: for colours one that is in the inputs, and one that may not be."""
    pool = [n for n in (KINDS[kind] if kind in ("times", "steps") else (*colours, *range(1, 10))) if n != number]
    return [pool[0], pool[-1]]


def _differs(steps: Steps, pairs: Pairs) -> bool:
    """Whether these steps fail on a pair, or make something else of its input."""
    for grid, output in pairs:
        try:
            if run(steps, grid) != output:
                return True
        except ValueError:
            return True
    return False


def ambiguous(steps: Steps, shown: Pairs, hidden: Pairs) -> bool:
    """Whether another program of one step is right on the shown pairs, and is shorter or wrong on a hidden pair."""
    for step in last_steps(*shown[0]):
        if (step,) != steps and right((step,), shown) and (len(steps) > 1 or not right((step,), hidden)):
            return True
    return False
