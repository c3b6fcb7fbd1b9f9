"""Several runs against each other by one metric: a table, their curves, what differs in their configs, and whether the
difference is more than seeds explain. Computed from the run folders; leaves out how the runs were made."""

from __future__ import annotations

import itertools
import json
import logging
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.core import report_page
from utils.core.plots import canvas
from utils.core.run import Run
from utils.experiments.scores import Better, Score, direction, hours, score, seeds, settings
from utils.experiments.significance import Difference, compare_groups, holm, spread

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
# Settings that decide no weight: runs that differ in them alone are of one group.
REPORTING = {
    "trackers", "log_every", "sample_every", "checkpoint_every", "checkpoint_minutes", "keep_last", "keep_best",
    "device", "eval_batch_size", "max_hours", "storage", "root",
}  # fmt: skip
DATA = ("task", "data", "rows", "corpus", "pool")  # settings that say what a run was trained for, and on
ABSENT = "–"


@dataclass(frozen=True)
class Entry:
    """One run of a comparison."""

    run: Run
    group: str
    settings: dict[str, Any]
    curve: pandas.Series
    score: Score
    hours: float

    @property
    def seeds(self) -> str:
        """`train.seed=1 data.seed=2`, or just the number where there is one."""
        found = seeds(self.settings)
        if len(set(found.values())) < 2:
            return ", ".join(map(str, list(found.values())[:1]))
        return " ".join(f"{key}={value}" for key, value in found.items())


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found. Shows itself; `str` of it is plain text."""

    metric: str
    better: Literal["lower", "higher"]
    entries: list[Entry]
    differences: list[Difference]
    notes: list[str]

    @cached_property
    def table(self) -> pandas.DataFrame:
        """A row a run, the best first."""
        import pandas

        rows = [
            {
                "run": one.run.path.name, "group": one.group, "seed": one.seeds, "best": one.score.best,
                "at step": one.score.best_step, "last": one.score.last, "last step": one.score.last_step,
                "hours": round(one.hours, 4),
            }
            for one in self.entries
        ]  # fmt: skip
        table = pandas.DataFrame(rows).sort_values("best", ascending=self.better == "lower", kind="stable")
        return table.reset_index(drop=True)

    @cached_property
    def groups(self) -> pandas.DataFrame:
        """A row a group of equal configs but for seeds: mean and standard deviation of the best values, and n."""
        import pandas

        rows = [
            {"group": name, "seeds": len(values), "mean best": sum(values) / len(values), "std": spread(values)}
            for name, values in _values(self.entries).items()
        ]
        return pandas.DataFrame(rows)

    @cached_property
    def configs(self) -> pandas.DataFrame:
        """The settings that differ: a row each, a column a run."""
        import pandas

        keys = dict.fromkeys(key for one in self.entries for key in one.settings)
        shown = {key: [_shown(one.settings, key) for one in self.entries] for key in keys}
        differing = {key: values for key, values in shown.items() if len(set(values)) > 1}
        columns = [one.run.path.name for one in self.entries]
        return pandas.DataFrame.from_dict(differing, orient="index", columns=columns).rename_axis("setting")

    @cached_property
    def figure(self) -> Figure:
        return plot_comparison(self)

    def __str__(self) -> str:
        parts = [f"{self.metric}, {self.better} is better", _text(self.table)]
        if len(self.groups) < len(self.entries):
            parts.append(_text(self.groups))
        parts.append(_text(self.configs.reset_index()) if len(self.configs) else "The configs are equal.")
        return "\n\n".join([*parts, *(["\n".join(self._sentences)] if self._sentences else [])])

    @property
    def _sentences(self) -> list[str]:
        return [*map(str, self.differences), *self.notes]

    def _repr_html_(self) -> str:
        picture = report_page.png(self.figure)
        parts = [f"<h2>{escape(self.metric)}</h2>", html_table(self.table)]
        if len(self.groups) < len(self.entries):
            parts.append(html_table(self.groups))
        parts += [report_page.picture(picture, f"{self.metric} over the steps of {len(self.entries)} runs")]
        parts += [html_table(self.configs.reset_index()) if len(self.configs) else "<p>The configs are equal.</p>"]
        return report_page.framed("".join(parts) + "".join(f"<p>{escape(one)}</p>" for one in self._sentences))


def compare_runs(
    runs: Sequence[Run | str | Path], metric: str = "validation/loss", *, better: Better = "auto"
) -> Comparison:
    """Compare runs (or their folders) by the best value of `metric`.

    Runs of equal configs but for their seeds are a group; groups are compared over their seeds. Raises `RunError` for a
    folder that is no run, and ValueError where a run has no such metric.
    """
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    if not opened:
        raise ValueError("No runs to compare; expected at least one run or run folder.")
    towards = direction(metric, better)
    names: dict[str, str] = {}
    entries = []
    for run in opened:
        metrics = run.metrics()
        found = score(metrics[metric], towards) if metric in metrics else None
        if found is None:
            logged = ", ".join(name for name in metrics if name.startswith("validation/")) or "none"
            raise ValueError(f"{run.path.name} has no {metric}; its validation metrics: {logged}.")
        values = settings(run)
        group = names.setdefault(_group(values), _letter(len(names)))
        entries.append(Entry(run, group, values, metrics[metric].dropna(), found, hours(run)))
    notes = list(_repeats(entries))
    pairs = itertools.combinations(_values(entries).items(), 2)
    differences = [compare_groups((a, b), first, second) for (a, first), (b, second) in pairs]
    return Comparison(metric, towards, entries, holm(differences), notes)


def beside(run: Run, metric: str = "validation/loss", *, most: int = 6) -> Comparison:
    """`run` and the best of those beside it that were trained for the same task on the same data, compared."""
    data = [run.config.get(key) for key in DATA]
    alike = [one for one in Run.all(run.path.parent) if [one.config.get(key) for key in DATA] == data]
    towards = direction(metric, "auto")
    scored = {one: score(one.metrics()[metric], towards) for one in alike if metric in one.metrics()}
    others = [one for one, found in scored.items() if found is not None and one.path != run.path]
    best = sorted(others, key=lambda one: scored[one].best, reverse=towards == "higher")
    return compare_runs([run, *best[: most - 1]], metric)


def plot_comparison(comparison: Comparison, ax: Axes | None = None) -> Figure:
    """The metric of every run over its steps, a colour a group; a circle at each best."""
    with canvas(ax) as ax:
        groups = list(dict.fromkeys(one.group for one in comparison.entries))
        for one in comparison.entries:
            colour = f"C{groups.index(one.group) % 10}"
            label = f"{one.group}: {one.run.path.name}" if len(comparison.entries) <= 8 else one.group
            known = label in ax.get_legend_handles_labels()[1]
            ax.plot(
                one.curve.index, one.curve, color=colour, marker="." if len(one.curve) < 30 else None,
                label=None if known else label,
            )  # fmt: skip
            ax.plot(one.score.best_step, one.score.best, "o", color=colour, fillstyle="none", markersize=9)
        ax.set(xlabel="step", ylabel=comparison.metric.replace("/", " "))
        ax.legend(fontsize="small")
        return ax.figure


def html_table(table: pandas.DataFrame) -> str:
    return report_page._table("table", table)


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


def _values(entries: Sequence[Entry]) -> dict[str, list[float]]:
    """The best values of each group, one for each of its seeds: of runs with the same seeds, the newest."""
    newest: dict[str, dict[str, float]] = {}
    for one in sorted(entries, key=lambda one: one.run.created):
        newest.setdefault(one.group, {})[json.dumps(seeds(one.settings), default=str)] = one.score.best
    order = dict.fromkeys(one.group for one in entries)
    return {group: list(newest[group].values()) for group in order}


def _repeats(entries: Sequence[Entry]) -> Iterator[str]:
    """A sentence for each seed that several runs of one group share: they count once."""
    for (group, seed), several in itertools.groupby(
        sorted(entries, key=lambda one: (one.group, one.seeds)), key=lambda one: (one.group, one.seeds)
    ):
        count = len(list(several))
        if count > 1:
            yield f"{count} runs of group {group} have the same seed ({seed or 'none'}): the newest counts."


def _shown(values: dict[str, Any], key: str) -> str:
    return str(values[key]) if key in values else ABSENT


def _text(table: pandas.DataFrame) -> str:
    return table.to_string(index=False, float_format=lambda value: f"{value:.5g}", na_rep=ABSENT)
