"""Rates over tasks: pass@k without bias, and intervals from tasks drawn anew.

Leaves out where the counts come from (`rl.evaluate`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

CHUNK = 500  # draws of tasks made at a time


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that at least one of k programs is correct, estimated without bias from `samples` of them.

    1 - C(n - c, k) / C(n, k): the share of k-subsets of the n programs that hold one of the c correct ones (Chen et al.
    2021, https://arxiv.org/abs/2107.03374, equation 1). Exact up to the rounding of the quotient.
    """
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(f"{correct} correct of {samples} programs and k={k}; expected 0 <= correct <= n, 1 <= k <= n")
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks and the ends of its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`22.4% (20.1 to 24.9)`"""
        return f"{self.value:.1%} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def bootstrap(values: np.ndarray, *, draws: int = 2000, seed: int = 0) -> Estimate:
    """The mean of one value a task (N,), with the percentile interval of its means over tasks drawn with replacement.

    Equal seeds draw equal tasks, so two evaluations of the same tasks are paired by taking differences first. Where
    all values are alike (no task solved) the interval has no width: `most_likely` says how far that can be trusted.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values of shape {values.shape}; expected one number a task, of at least one task")
    rng = np.random.default_rng(seed)
    even = np.full(len(values), 1 / len(values))
    sizes = [min(CHUNK, draws - start) for start in range(0, draws, CHUNK)]
    means = np.concatenate([rng.multinomial(len(values), even, size) @ values for size in sizes]) / len(values)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))


def most_likely(tasks: int) -> float:
    """The highest rate at which none of so many tasks is still solved one time in twenty: 1 - 0.05^(1/n), about 3/n."""
    return 1 - 0.05 ** (1 / tasks)
