"""What a program of the DSL does, apart from how it is written: its outputs on a fixed set of grids.

Two programs of one behaviour may still differ on some grid that is not among them; programs of different behaviours do
differ. Leaves out the programs of others, which only a sandbox may run.
"""

from __future__ import annotations

import hashlib
from functools import cache
from random import Random

from utils.arc.dsl_base import Grid
from utils.arc.dsl_inputs import INPUTS
from utils.arc.dsl_steps import parse, run

SIDES = ((3, 3), (4, 6), (7, 5))
COLOURS = list(range(1, 10))


@cache
def probes() -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The grids: of every family of inputs and several sizes, every second one in few colours."""
    random = Random(0)
    grids = []
    for make in INPUTS.values():
        for height, width in SIDES:
            colours = COLOURS if len(grids) % 2 else random.sample(COLOURS, 2)
            grids.append(tuple(map(tuple, make(random, height, width, colours))))
    return tuple(grids)


@cache
def behaviour(program: str) -> bytes:
    """16 bytes, equal for programs that make the same of every probe, or fail on it. Raises `ProgramsError`."""
    steps, digest = parse(program), hashlib.blake2b(digest_size=16)
    for probe in probes():
        try:
            made: Grid = run(steps, [list(row) for row in probe])
        except ValueError:
            made = []
        digest.update(bytes((len(made), *(cell for row in made for cell in (len(row), *row)))))
    return digest.digest()
