"""Tables made from evaluations: the card of rates, what changed, levels, endings, and tasks worth a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas

from utils.rl.estimates import Estimate
from utils.rl.evaluation import ENDINGS, Evaluation, paired

SEEN = {True: "programs of training tasks", False: "programs that made no training task"}


def metric_card(evaluations: Mapping[str, Evaluation]) -> pandas.DataFrame:
    """A row for each evaluation: its rates with 95% intervals over tasks, and the tasks solved by any of its programs.

    A dash where there is no greedy program.
    """
    if not evaluations:
        raise ValueError("No evaluation to show; expected at least one.")
    metrics = list(dict.fromkeys(metric for one in evaluations.values() for metric in one.metrics))
    rows = {}
    for name, one in evaluations.items():
        solved = f"{one.solved_by_any} of {len(one.records)} (of {one.programs_a_task} each)"
        rates = {metric: str(one.rates.get(metric, "–")) for metric in metrics}
        rows[name] = {**rates, "tasks solved by any program": solved}
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("programs of")


def change_table(before: Evaluation, after: Evaluation) -> pandas.DataFrame:
    """A row for each rate: before, after, their difference in points with its paired 95% interval, their ratio."""
    rows = []
    for metric in after.metrics:
        old, new = before.rates[metric].value, after.rates[metric].value
        ratio = f"{new / old:.2f}" if old else "–"
        rows.append((metric, f"{old:.1%}", f"{new:.1%}", points(paired(before, after, metric)), ratio))
    return pandas.DataFrame(rows, columns=["rate", "before", "after", "difference, points", "ratio"])


def points(difference: Estimate) -> str:
    """`+12.5 (+10.1 to +14.8)`"""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(
        *(100 * one for one in (difference.value, difference.low, difference.high))
    )


def changed(before: Evaluation, after: Evaluation, metric: str) -> str:
    """`33.3% to 42.2%, +8.9 points (95%: -3.6 to +20.3)`"""
    change, old, new = paired(before, after, metric), before.rates[metric].value, after.rates[metric].value
    value, low, high = (f"{100 * one:+.1f}" for one in (change.value, change.low, change.high))
    return f"{old:.1%} to {new:.1%}, {value} points (95%: {low} to {high})"


def part_table(evaluations: Mapping[str, Evaluation], metric: str = "pass@1") -> pandas.DataFrame:
    """One rate by the steps of the program that made the task, and by whether it made training tasks, too."""
    first = next(iter(evaluations.values()))
    rows = []
    for kind, names in (("by_level", _levels(first)), ("by_seen", SEEN)):
        for key, part in getattr(first, kind).items():
            found = {name: str(getattr(one, kind)[key].rates[metric]) for name, one in evaluations.items()}
            rows.append({"tasks of": names[key], "tasks": len(part.records), **found})
    return pandas.DataFrame(rows)


def _levels(evaluation: Evaluation) -> dict[int, str]:
    return {level: f"{level} step{'s' * (level != 1)}" if level else "unknown" for level in evaluation.by_level}


def ending_table(evaluations: Mapping[str, Evaluation]) -> pandas.DataFrame:
    """What programs came to, in % of those drawn; endings that none came to are left out."""
    shares = {name: one.endings for name, one in evaluations.items()}
    kept = [name for name in ENDINGS if any(found[name] for found in shares.values())]
    table = pandas.DataFrame({name: [f"{found[one]:.1%}" for one in kept] for name, found in shares.items()})
    table.insert(0, "ending", kept)
    return table


def solved_and_unsolved(evaluation: Evaluation, count: int = 4) -> dict[str, np.ndarray]:
    """Numbers of some tasks: of the solved those of most steps, of the others those that came nearest, then of least.

    Solved is a task that any of its programs solves: of those drawn, or the greedy one.
    """
    records: Sequence = evaluation.records
    passed = np.array([one.passed for one in records])
    levels = np.array([one.level for one in records])
    solved = [at for at in np.lexsort((-np.array([one.correct for one in records]), -levels)) if passed[at] == 1]
    unsolved = [at for at in np.lexsort((levels, -passed)) if passed[at] < 1]
    return {"solved": np.array(solved[:count], int), "unsolved": np.array(unsolved[:count], int)}
