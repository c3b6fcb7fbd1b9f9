"""Grids of a VAE: as JSON holds them, and as the canvases that it reads and writes."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from .checks import BadRequest, known, number, shown
from .sampling import SEEDS

SIDE, COLOURS, OUTSIDE = 30, 10, 10  # of a canvas: side, colours of a cell, what stands outside the grid


def canvas_of(grid: Any) -> Tensor:
    """A grid as a canvas (30, 30) uint8 in its top-left corner. Raises `BadRequest`."""
    rows = grid if isinstance(grid, list) else []
    widths = {len(row) if isinstance(row, list) else 0 for row in rows}
    if not 1 <= len(rows) <= SIDE or len(widths) != 1 or not 1 <= min(widths) <= SIDE:
        raise BadRequest(f"grid {shown(grid)}; expected 1 to {SIDE} rows of 1 to {SIDE} cells, all rows alike.")
    for row in rows:
        for cell in row:
            if type(cell) is not int or not 0 <= cell < COLOURS:
                raise BadRequest(f"A grid has a cell {shown(cell)}; expected colours 0 to {COLOURS - 1}.")
    canvas = torch.full((SIDE, SIDE), OUTSIDE, dtype=torch.uint8)
    canvas[: len(rows), : len(rows[0])] = torch.tensor(rows, dtype=torch.uint8)
    return canvas


def grid_of(canvas: Tensor) -> list[list[int]]:
    inside = canvas != OUTSIDE
    return canvas[: int(inside[:, 0].sum()), : int(inside[0].sum())].tolist()


def draws(inputs: Any, parameters: dict[str, Any], most: int, size: int) -> tuple[list[Tensor], dict[str, Any]]:
    """Latents (size,) to sample grids from, and what was asked. Raises `BadRequest`."""
    if inputs not in (None, "", []):
        raise BadRequest(f"inputs={shown(inputs)}; sampling reads none: leave them empty, and set n.")
    given = known(parameters, ("n", "seed", "temperature"))
    n = number("n", given.get("n", 1), 1, most, whole=True)
    temperature = number("temperature", given.get("temperature", 1.0), 0, 10)
    seed = given.get("seed")
    seed = random.SystemRandom().randrange(2**32) if seed is None else number("seed", seed, 0, SEEDS, whole=True)
    z = torch.randn(n, size, generator=torch.Generator().manual_seed(seed)) * temperature
    return list(z), {"seed": seed, "temperature": temperature, "prior": "z drawn from N(0, temperature^2 I)"}


def canvases(inputs: Any, parameters: dict[str, Any], most: int) -> tuple[list[Tensor], bool]:
    """Canvases of the grids to reconstruct, and whether one grid came, not a list. Raises `BadRequest`."""
    known(parameters, ())
    deep = isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], list) and bool(inputs[0])
    single = deep and not isinstance(inputs[0][0], list)
    grids = [inputs] if single else inputs
    if not deep or len(grids) > most:
        what = f"{len(grids)} grids" if deep else shown(inputs)
        raise BadRequest(f"inputs={what}; expected a grid, or a list of at most {most} grids.")
    return [canvas_of(grid) for grid in grids], single
