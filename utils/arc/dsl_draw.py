"""Drawing a program at random, and grids on which it does something.

Leaves out whether the pairs tell the program from others (`arc.dsl_shown`).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from utils.arc.dsl import FAMILIES, KINDS, PARAMETERS, SUITS, Grid
from utils.arc.dsl_inputs import INPUTS, SIZES, below
from utils.arc.dsl_steps import Step, Steps, run


class Sides(NamedTuple):
    """Least and greatest side of an input, and greatest of an output, in cells."""

    low: int
    high: int
    output: int


def draw_steps(random: Random, names: Sequence[str], depth: int, colours: list[int]) -> Steps | None:
    """A program, its numbers drawn from the colours that its grids have by then; None for two symmetries in a row."""
    present = colours[:]
    steps: list[Step] = []
    family = ""
    for _ in range(depth):
        name = names[below(random, len(names))]
        if FAMILIES[name] == family == "symmetry":
            return None
        family = FAMILIES[name]
        numbers: list[int] = []
        for kind in PARAMETERS[name]:
            if kind == "colour":
                pool = [0, *present] if random.random() < 0.15 else present
            elif kind == "paint":
                pool = range(10) if random.random() < 0.15 else range(1, 10)
            else:
                pool = KINDS[kind]
            numbers.append(pool[below(random, len(pool))])
        if len(numbers) == 2 and numbers[0] == numbers[1]:
            return None
        present += [n for n, kind in zip(numbers, PARAMETERS[name]) if kind == "paint" and n and n not in present]
        steps.append((name, tuple(numbers)))
    return tuple(steps)


def draw_pairs(
    random: Random, steps: Steps, colours: list[int], count: int, sides: Sides, suited: float
) -> list[tuple[Grid, Grid]] | None:
    """`count` inputs and what the program makes of them; None for a bad draw.

    An input is drawn again, up to 4 times in all, where a step cannot be done, where the output equals the input or is
    too large, where the input is there already, and where the output has a single colour as another one already has.
    All the outputs may not be equal. A share `suited` of the tasks has inputs of the families that suit the steps.
    """
    first = SUITS[steps[0][0]]
    suits = [suit for name, _ in steps for suit in SUITS[name]]
    if random.random() >= suited or not suits:
        suits = list(INPUTS)
    elif first and random.random() < 0.7:
        suits = list(first)
    named = [
        n for name, numbers in steps for n, kind in zip(numbers, PARAMETERS[name]) if kind == "colour" and n in colours
    ]
    pairs: list[tuple[Grid, Grid]] = []
    solid = False
    for _ in range(count + 4):
        if len(pairs) == count:
            break
        grid = _draw_grid(random, suits[below(random, len(suits))], colours, named, sides)
        try:
            output = run(steps, grid)
        except ValueError:
            continue
        if len(output) > sides.output or len(output[0]) > sides.output:
            continue
        if output == grid or any(grid == other for other, _ in pairs):
            continue
        if len(set().union(*output)) == 1:
            if solid:
                continue
            solid = True
        pairs.append((grid, output))
    if len(pairs) < count or all(output == pairs[0][1] for _, output in pairs):
        return None
    return pairs


def _draw_grid(random: Random, suit: str, colours: list[int], named: list[int], sides: Sides) -> Grid:
    """A grid of a family, or of a size, with the colours that the program names (nearly always) in it."""
    low, high = sides.low, sides.high
    height, width = low + below(random, high - low + 1), low + below(random, high - low + 1)
    if suit in SIZES:
        height, width = SIZES[suit](height, width, low)
        suit = ("noise", "objects", "sparse")[below(random, 3)]
    grid = INPUTS[suit](random, height, width, colours)
    for colour in named:
        if not any(colour in row for row in grid) and random.random() < 0.9:
            spare = [cell for cell in set().union(*grid) if cell and cell not in named]
            if spare:
                old = spare[below(random, len(spare))]
                grid = [[colour if cell == old else cell for cell in row] for row in grid]
            else:
                grid[below(random, height)][below(random, width)] = colour
    return grid
