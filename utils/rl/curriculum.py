"""The curriculum: which tasks a rollout is made of.

Tasks lie in levels. A level is drawn from in proportion to what there is to learn in it, p (1 - p) of its pass rate p
(the variance of passing, which the policy's gradient scales with), and each level's tasks come in an order that is a
function of the seed, each once before any comes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

FLOOR = 0.05  # the least share p (1 - p) is taken for, so that no level is forgotten
PACE = 0.05  # of the moving average of a level's pass rate


class Curriculum:
    """Draws tasks by number, and is told what became of them."""

    def __init__(self, levels: Sequence[int], *, seed: int):
        """`levels[i]` is the level of task i."""
        numbers = np.asarray(levels)
        self.names = sorted(set(numbers.tolist()))
        self.tasks = {name: np.flatnonzero(numbers == name) for name in self.names}
        self.seed = seed
        self.rates = dict.fromkeys(self.names, 0.5)
        self.drawn = dict.fromkeys(self.names, 0)

    def shares(self) -> dict[int, float]:
        """The share of a rollout that each level gets, on average; they add up to 1."""
        learnable = {name: max(rate * (1 - rate), FLOOR) for name, rate in self.rates.items()}
        return {name: value / sum(learnable.values()) for name, value in learnable.items()}

    def draw(self, count: int, *, step: int) -> np.ndarray:
        """The numbers of `count` tasks, (count,) int64."""
        shares = list(self.shares().values())
        counts = np.random.default_rng((self.seed, 1, step)).multinomial(count, shares)
        return np.concatenate([self._next(name, int(n)) for name, n in zip(self.names, counts)])

    def _next(self, level: int, count: int) -> np.ndarray:
        tasks, start = self.tasks[level], self.drawn[level]
        self.drawn[level] += count
        places = np.arange(start, start + count)
        rounds = np.unique(places // len(tasks))
        orders = {turn: np.random.default_rng((self.seed, 2, level, turn)).permutation(tasks) for turn in rounds}
        return np.array([orders[place // len(tasks)][place % len(tasks)] for place in places], np.int64)

    def update(self, levels: Sequence[int], passed: Sequence[float]) -> None:
        """Take note of the share of programs that solved each of some tasks of these levels."""
        levels, passed = np.asarray(levels), np.asarray(passed, float)
        for name in self.names:
            here = passed[levels == name]
            if len(here):
                keep = (1 - PACE) ** len(here)
                self.rates[name] = keep * self.rates[name] + (1 - keep) * float(here.mean())

    def state(self) -> dict[str, Any]:
        return {"rates": list(self.rates.values()), "drawn": list(self.drawn.values())}

    def restore(self, state: dict[str, Any]) -> None:
        self.rates = dict(zip(self.names, state["rates"]))
        self.drawn = dict(zip(self.names, state["drawn"]))
