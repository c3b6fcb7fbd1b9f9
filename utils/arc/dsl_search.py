"""Which tasks a program of one or two steps solves: tried out on the train pairs, then verified on the test pairs.

Depth 1 tries every primitive with every number that the pairs allow. Depth 2 goes on from the distinct results of the
first steps, and leaves out second steps that cannot give the output's size or colours. Runs the primitives here, with
no sandbox. Leaves out deeper programs: their number grows a hundredfold a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from utils.arc.dsl import FAMILIES, KINDS, PARAMETERS, Grid
from utils.arc.dsl_steps import RAW, Step, Steps, render, run
from utils.arc.tasks import Task

# Primitives that may change a grid's size, and those that may leave it (a crop may find nothing to cut).
RESIZERS = tuple(name for name, family in FAMILIES.items() if family in {"symmetry", "crop", "tile", "halves", "lines"})
KEEPERS = tuple(name for name, family in FAMILIES.items() if family not in {"tile", "halves"})


def search(tasks: Sequence[Task], max_depth: int = 2) -> dict[str, str]:
    """Task id -> the text of a program that is right on every train and test pair; unsolved tasks are left out.

    The first program that is right on the train pairs and also on the test pairs is taken, so a depth 2 program may be
    found where a depth 1 program explains the train pairs alone.
    """
    if max_depth not in (1, 2):
        raise ValueError(f"max_depth={max_depth}; expected 1 or 2")
    found = {}
    for task in tasks:
        steps = solve(task, max_depth)
        if steps:
            found[task.id] = render(steps)
    return found


def solve(task: Task, max_depth: int = 2) -> Steps | None:
    """The first program of `search` for one task; None where there is none."""
    train = [(pair.input.tolist(), pair.output.tolist()) for pair in task.train]
    train.sort(key=lambda pair: sum(len(grid) * len(grid[0]) for grid in pair))  # the cheapest refutes most
    test = [(pair.input.tolist(), pair.output.tolist()) for pair in task.test]
    inputs, outputs = (tuple(grids) for grids in zip(*train))
    for step in _steps(RAW, *(sorted(set.union(*map(_colours, grids)) | {0}) for grids in (inputs, outputs))):
        if right((step,), train) and right((step,), test):
            return (step,)
    if max_depth == 1:
        return None
    states: dict[tuple, Steps] = {_key(inputs): ()}
    for step in _steps(RAW, *(sorted(set.intersection(*map(_colours, grids)) | {0}) for grids in (inputs, outputs))):
        made = _run(step, inputs)
        if made is not None:
            states.setdefault(_key(made), (step,))
    for key, first in states.items():
        grids = [[list(row) for row in grid] for grid in key]
        for step in last_steps(grids[0], outputs[0]) if first else ():
            if makes(step, grids[0], outputs[0]) and _run(step, grids) == outputs and right((*first, step), test):
                return (*first, step)
    return None


def _steps(names: Iterable[str], colours: Sequence[int], paints: Sequence[int]) -> Iterator[Step]:
    """Every use of these primitives with numbers from these colours."""
    pools = {**KINDS, "colour": colours, "paint": paints}
    for name in names:
        for numbers in itertools.product(*(pools[kind] for kind in PARAMETERS[name])):
            yield name, numbers


def last_steps(grid: Grid, output: Grid) -> Iterator[Step]:
    """The steps that could make `output` of `grid`, by its size and its colours."""
    present, wanted = _colours(grid), _colours(output)
    missing = wanted - present - {0}
    if len(missing) > 1:
        return
    names = KEEPERS if _shape(grid) == _shape(output) else RESIZERS
    for name, numbers in _steps(names, sorted(present), sorted(missing or wanted)):
        if not missing or missing.issubset(numbers):
            yield name, numbers


def makes(step: Step, grid: Grid, output: Grid) -> bool:
    try:
        return RAW[step[0]](grid, *step[1]) == output
    except ValueError:
        return False


def _run(step: Step, grids: Sequence[Grid]) -> tuple[Grid, ...] | None:
    """What a step makes of each grid; None where it fails on one."""
    name, numbers = step
    try:
        return tuple(RAW[name](grid, *numbers) for grid in grids)
    except ValueError:
        return None


def right(steps: Steps, pairs: Sequence[tuple[Grid, Grid]]) -> bool:
    try:
        return all(run(steps, grid) == output for grid, output in pairs)
    except ValueError:
        return False


def _key(grids: Sequence[Grid]) -> tuple:
    return tuple(tuple(map(tuple, grid)) for grid in grids)


def _colours(grid: Grid) -> set[int]:
    return set().union(*grid)


def _shape(grid: Grid) -> tuple[int, int]:
    return len(grid), len(grid[0])
