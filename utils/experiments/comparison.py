"""`Comparison`: several runs side by side: a table, their groups, their curves, what differs in their settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from utils.core import report_page
from utils.core.plots import canvas
from utils.core.run import Run
from utils.experiments.scores import Score, purpose, seeds
from utils.experiments.shown import ABSENT, html_table, text_table
from utils.experiments.significance import Difference, spread

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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

    @property
    def purpose(self) -> str:
        """The settings of its task and data, as JSON: equal where values compare."""
        return json.dumps(purpose(self.settings), sort_keys=True, default=str)


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
        """A row a run, the best first, within each task and data."""
        import pandas

        rows = [
            {
                "run": one.run.path.name, "group": one.group, "seed": one.seeds, "best": one.score.best,
                "at step": one.score.best_step, "last": one.score.last, "last step": one.score.last_step,
                "hours": round(one.hours, 4),
            }
            for one in self.entries
        ]  # fmt: skip
        kinds = [one.purpose for one in self.entries]
        table = pandas.DataFrame(rows).assign(kind=[kinds.index(one) for one in kinds])
        table = table.sort_values(["kind", "best"], ascending=[True, self.better == "lower"], kind="stable")
        return table.drop(columns="kind").reset_index(drop=True)

    @cached_property
    def groups(self) -> pandas.DataFrame:
        """A row a group of equal configs but for seeds: mean and standard deviation of the best values, and n."""
        import pandas

        rows = [
            {"group": name, "seeds": len(values), "mean best": sum(values) / len(values), "std": spread(values)}
            for name, values in best_values(self.entries).items()
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
        parts = [f"{self.metric}, {self.better} is better", text_table(self.table)]
        if len(self.groups) < len(self.entries):
            parts.append(text_table(self.groups))
        if len(self.entries) > 1:
            parts.append(text_table(self.configs.reset_index()) if len(self.configs) else "The configs are equal.")
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
        if len(self.entries) > 1:
            equal = "<p>The configs are equal.</p>"
            parts.append(html_table(self.configs.reset_index()) if len(self.configs) else equal)
        return report_page.framed("".join(parts) + "".join(f"<p>{escape(one)}</p>" for one in self._sentences))


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


def best_values(entries: Sequence[Entry]) -> dict[str, list[float]]:
    """The best values of each group, one for each of its seeds: of runs with the same seeds, the newest."""
    newest: dict[str, dict[str, float]] = {}
    for one in sorted(entries, key=lambda one: one.run.created):
        newest.setdefault(one.group, {})[json.dumps(seeds(one.settings), default=str)] = one.score.best
    order = dict.fromkeys(one.group for one in entries)
    return {group: list(newest[group].values()) for group in order}


def _shown(values: dict[str, Any], key: str) -> str:
    return str(values[key]) if key in values else ABSENT
