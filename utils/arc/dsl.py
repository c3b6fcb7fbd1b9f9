"""The DSL: small pure functions of a grid, from which programs are composed as plain Python.

    def solve(grid):
        grid = crop(grid)
        grid = recolour(grid, 3, 5)
        return flip_rows(grid)

`PRIMITIVES` maps each name to its function: a grid and up to two numbers in, a new grid out, or a ValueError.
`PARAMETERS` gives the kinds of those numbers and `KINDS` the values that a generator draws for each kind.
Standard library only. Leaves out the making of programs (`arc.programs`) and running them safely (`rl.sandbox`).
"""

from __future__ import annotations

from utils.arc import (  # noqa: F401 (each fills the tables)
    dsl_colours,
    dsl_crops,
    dsl_lines,
    dsl_objects,
    dsl_overlays,
    dsl_regions,
    dsl_symmetries,
    dsl_tiles,
)
from utils.arc.dsl_base import FAMILIES, KINDS, PARAMETERS, PRIMITIVES, SUITS, Grid, check

__all__ = ["FAMILIES", "KINDS", "PARAMETERS", "PRIMITIVES", "SUITS", "Grid", "check"]
