"""Schedules of beta: pure functions of training's progress (0 at its start, 1 at its end), as a share of the highest.

Leaves out what beta weighs (`vae.objective`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utils.vae.config import VAEConfig

CLASSICAL = ((1 / 50, 0.1), (10 / 50, 1.0), (30 / 50, 2.0), (1.0, 2.0))  # epochs 1, 10, 30 and 50 of 50


def constant(progress: float) -> float:
    return 1.0


def linear(progress: float, *, rise: float = 0.2) -> float:
    """From 0 up in a line over the first `rise` of training, then 1."""
    return min(1.0, progress / rise)


def cosine(progress: float, *, rise: float = 0.2) -> float:
    """From 0 up in half a cosine wave over the first `rise` of training, then 1."""
    return 0.5 * (1 - math.cos(math.pi * min(1.0, progress / rise)))


def cyclical(progress: float, *, cycles: int = 4, rise: float = 0.5) -> float:
    """`cycles` (M) times from 0 up in a line over the first `rise` (R) of the cycle, then 1 (Fu et al. 2019)."""
    if progress >= 1:
        return 1.0
    return linear(progress * cycles % 1.0, rise=rise)


def classical(progress: float) -> float:
    """0.1, 1, 2 and 2 at epochs 1, 10, 30 and 50 of 50, straight in between; 0.1 before the first."""
    before, value = CLASSICAL[0]
    for point, target in CLASSICAL:
        if progress <= point:
            return target if point == before else value + (target - value) * (progress - before) / (point - before)
        before, value = point, target
    return value


def share(config: VAEConfig, progress: float) -> float:
    """The config's schedule at `progress`; past the end it stays as it ended."""
    progress = min(max(progress, 0.0), 1.0)
    if config.schedule == "cyclical":
        return cyclical(progress, cycles=config.cycles, rise=config.rise)
    if config.schedule in ("linear", "cosine"):
        return {"linear": linear, "cosine": cosine}[config.schedule](progress, rise=config.rise)
    return {"constant": constant, "classical": classical}[config.schedule](progress)
