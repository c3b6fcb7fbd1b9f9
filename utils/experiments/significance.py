"""Whether two groups of runs differ by more than their seeds: Welch's t-test and a bootstrap interval, with their n.

B. L. Welch, "The generalization of Student's problem when several different population variances are involved",
Biometrika 34 (1947). Several pairs are judged together by Holm's correction (Scand. J. Statist. 6, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """Mean of b minus mean of a, over `counts` runs of distinct seeds; `p` is None where nothing can be stated."""

    groups: tuple[str, str]
    counts: tuple[int, int]
    mean: float
    p: float | None = None
    welch: tuple[float, float] | None = None
    """95% interval of the difference by Welch's t"""
    bootstrap: tuple[float, float] | None = None
    """95% percentile interval of the difference; narrow for few seeds, whose spread it cannot see beyond"""
    pairs: int = 1
    """compared together; `p` is corrected for them"""
    why: str = ""
    """why nothing is stated"""

    def __str__(self) -> str:
        a, b = self.groups
        n = f"n = {self.counts[0]} and {self.counts[1]} seeds"
        if self.p is None:
            return f"{b} against {a}: {self.mean:+.4g} ({n}). {self.why}"
        low, high = self.welch
        corrected = f", Holm's for {self.pairs} pairs" if self.pairs > 1 else ""
        verdict = "more than their seeds explain" if self.p < 0.05 else "no more than their seeds may explain"
        return (
            f"{b} against {a}: {self.mean:+.4g}, 95% interval {low:+.4g} to {high:+.4g} (Welch, p = {self.p:.3g}"
            f"{corrected}, {n}; bootstrap {self.bootstrap[0]:+.4g} to {self.bootstrap[1]:+.4g}): {verdict}."
        )


def compare_groups(groups: tuple[str, str], a: Sequence[float], b: Sequence[float]) -> Difference:
    """The difference b - a of two samples, one value a seed."""
    import numpy
    from scipy import stats

    counts, mean = (len(a), len(b)), float(numpy.mean(b) - numpy.mean(a))
    if min(counts) < 2:
        which = "one seed each" if counts == (1, 1) else f"one seed in {groups[counts.index(1)]}"
        return Difference(groups, counts, mean, why=f"{which}: no statement.")
    if numpy.var(a) + numpy.var(b) == 0:
        return Difference(groups, counts, mean, why="The seeds make no difference at all: no statement.")
    test = stats.ttest_ind(b, a, equal_var=False)
    welch = test.confidence_interval(0.95)
    draws = numpy.random.default_rng(0)
    means = [draws.choice(numpy.asarray(one), (RESAMPLES, len(one))).mean(1) for one in (a, b)]
    low, high = numpy.quantile(means[1] - means[0], [0.025, 0.975])
    interval = (float(welch.low), float(welch.high))
    return Difference(groups, counts, mean, float(test.pvalue), interval, (float(low), float(high)))


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The same differences, each p corrected for all that have one."""
    judged = sorted((one for one in differences if one.p is not None), key=lambda one: one.p)
    corrected, floor = {}, 0.0
    for place, one in enumerate(judged):
        floor = max(floor, min(1.0, (len(judged) - place) * one.p))
        corrected[id(one)] = floor
    return [one if one.p is None else replace(one, p=corrected[id(one)], pairs=len(judged)) for one in differences]


def spread(values: Sequence[float]) -> float:
    """Standard deviation (n - 1); NaN for one value."""
    import numpy

    return float(numpy.std(values, ddof=1)) if len(values) > 1 else math.nan
