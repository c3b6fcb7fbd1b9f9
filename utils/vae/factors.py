"""Grids drawn from known factors, for measures of how latents keep factors apart (`vae.disentangle`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.arc.grids import OUTSIDE, SIDE

FACTORS = {
    "height": tuple(range(12, SIDE + 1, 3)),
    "width": tuple(range(12, SIDE + 1, 3)),
    "background": (0, 1, 2, 3, 4),
    "colour": (5, 6, 7, 8, 9),
    "row": tuple(range(8)),
    "column": tuple(range(8)),
    "size": (1, 2, 3, 4),
    "count": tuple(range(6)),
}
"""Values of each factor: the grid's sides; the colours of background and square; the square's place and side, and how
many more cells of its colour stand in the bottom row. Every combination is a grid, and no two are alike."""
NAMES_OF_KINDS = ("background", "colour")
"""factors whose values are names, not amounts"""


@dataclass(frozen=True)
class FactorSet:
    """Grids and the factors that made them."""

    grids: np.ndarray
    """(N, 30, 30) uint8"""
    factors: np.ndarray
    """(N, K): for each factor the place of its value in FACTORS, 0 and up"""
    names: tuple[str, ...] = tuple(FACTORS)


def factor_set(count: int = 4000, *, seed: int = 0) -> FactorSet:
    """Grids of factors drawn independently of one another, each evenly from its values."""
    generator = np.random.default_rng(seed)
    factors = np.stack([generator.integers(len(values), size=count) for values in FACTORS.values()], 1)
    value = {name: np.array(values)[factors[:, at]] for at, (name, values) in enumerate(FACTORS.items())}
    value = {name: chosen[:, None, None] for name, chosen in value.items()}
    rows, columns = np.arange(SIDE)[:, None], np.arange(SIDE)[None, :]
    down, right = rows - value["row"], columns - value["column"]
    square = (down >= 0) & (down < value["size"]) & (right >= 0) & (right < value["size"])
    below = (rows == value["height"] - 1) & (columns % 2 == 0) & (columns < 2 * value["count"])
    grids = np.where(square | below, value["colour"], value["background"])
    inside = (rows < value["height"]) & (columns < value["width"])
    return FactorSet(np.where(inside, grids, OUTSIDE).astype(np.uint8), factors)
