"""Several runs against each other by one metric: a table, their curves, what differs in their configs, and whether the
difference is more than seeds explain. Computed from the run folders; leaves out how the runs were made."""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from utils.core.reporting import DECIDES_NO_WEIGHT
from utils.core.run import Run, RunError
from utils.experiments.comparison import Comparison, Entry, best_values
from utils.experiments.scores import DATA, Better, direction, hours, score, seeds, settings
from utils.experiments.significance import compare_groups, holm

# Runs that differ in these settings alone are of one group. The precision may change in a run that is taken up, but it
# does change the numbers; the last ones are of PPO's sampling, and of forms.
REPORTING = DECIDES_NO_WEIGHT - {"precision"} | {"sample_batch", "micro_batch_prompts", "storage", "root"}


@dataclass(frozen=True)
class Nothing:
    """What there is to show where nothing can be compared: why."""

    why: str

    def __str__(self) -> str:
        return self.why

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.why)}</p>"


def compare_runs(
    runs: Sequence[Run | str | Path], metric: str = "validation/loss", *, better: Better = "auto"
) -> Comparison:
    """Compare runs (or their folders) by the best value of `metric`.

    Runs of equal configs but for their seeds are a group; groups of the same task and data are compared over their
    seeds. Raises `RunError` for a folder that is no run, and where a run has no such metric.
    """
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    if not opened:
        raise RunError("No runs to compare; expected at least one run or run folder.")
    towards = direction(metric, better)
    names: dict[str, str] = {}
    entries = []
    for run in opened:
        metrics = run.metrics()
        found = score(metrics[metric], towards) if metric in metrics else None
        if found is None:
            logged = ", ".join(name for name in metrics if name.startswith("validation/")) or "none"
            raise RunError(f"{run.path.name} has no {metric}; its validation metrics: {logged}.")
        values = settings(run)
        group = names.setdefault(_group(values), _letter(len(names)))
        entries.append(Entry(run, group, values, metrics[metric].dropna(), found, hours(run)))
    notes = [*_repeats(entries), *_apart(entries, metric)]
    purposes = {one.group: one.purpose for one in entries}
    pairs = itertools.combinations(best_values(entries).items(), 2)
    differences = [
        compare_groups((a, b), first, second) for (a, first), (b, second) in pairs if purposes[a] == purposes[b]
    ]
    return Comparison(metric, towards, entries, holm(differences), notes)


def beside(run: Run, metric: str = "validation/loss", *, most: int = 6) -> Comparison | Nothing:
    """`run` and the best of those beside it that were trained for the same task on the same data, compared.

    A run that has no such metric yet, such as one that stopped before its first evaluation, is left out with a note.
    """
    data, towards = _data(run), direction(metric, "auto")
    frames = {one: one.metrics() for one in Run.all(run.path.parent) if _data(one) == data}
    scored = {one: score(frame[metric], towards) for one, frame in frames.items() if metric in frame}
    others = [one for one, found in scored.items() if found is not None and one.path != run.path]
    best = sorted(others, key=lambda one: scored[one].best, reverse=towards == "higher")[: most - 1]
    if any(one.path == run.path and found is not None for one, found in scored.items()):
        return compare_runs([run, *best], metric) if best else Nothing("No other run on this data yet.")
    note = f"{run.path.name} has no {metric} yet: it stopped before its first evaluation. Run it again to go on."
    if not best:
        return Nothing(f"{note} Nor has any run beside it.")
    found = compare_runs(best, metric)
    return replace(found, notes=[note, *found.notes])


def _data(run: Run) -> list[Any]:
    """What a run was trained for, and on."""
    config = run.config
    return [config.get(key) for key in DATA]


def _group(values: dict[str, Any]) -> str:
    """What runs of one group have in common: every setting but seeds and reporting."""
    kept = {
        key: value
        for key, value in values.items()
        if key not in seeds(values) and key.rpartition(".")[2] not in REPORTING
    }
    return json.dumps(kept, sort_keys=True, default=str)


def _letter(number: int) -> str:
    """A, B, ..., Z, A1, B1, ..."""
    around, place = divmod(number, 26)
    return string.ascii_uppercase[place] + (str(around) if around else "")


def _apart(entries: Sequence[Entry], metric: str) -> Iterator[str]:
    """A sentence where not all were trained for the same task on the same data: which groups were, what differs."""
    found: dict[str, list[str]] = {}
    for one in entries:
        if one.group not in found.setdefault(one.purpose, []):
            found[one.purpose].append(one.group)
    if len(found) > 1:
        purposes = [json.loads(one) for one in found]
        keys = dict.fromkeys(key for one in purposes for key in one)
        differing = [key for key in keys if len({str(one.get(key)) for one in purposes}) > 1]
        shown = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        kinds = " | ".join(", ".join(groups) for groups in found.values())
        yield (
            f"Different tasks or data ({kinds}: {shown}): their {metric} is not comparable, and no difference is given."
        )


def _repeats(entries: Sequence[Entry]) -> Iterator[str]:
    """A sentence for each seed that several runs of one group share: they count once."""
    for (group, seed), several in itertools.groupby(
        sorted(entries, key=lambda one: (one.group, one.seeds)), key=lambda one: (one.group, one.seeds)
    ):
        count = len(list(several))
        if count > 1:
            yield f"{count} runs of group {group} have the same seed ({seed or 'none'}): the newest counts."
