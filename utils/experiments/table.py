"""A root folder's runs as one table: a view computed anew from their folders each time, without any registry.

Runs in folders of their own, such as a search's trials and reproductions, are among them, under their path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from utils.core import report_page
from utils.core.run import STAMP, Run, RunError
from utils.experiments.scores import Better, direction, ended, hours, purpose, score, seeds, settings
from utils.experiments.shown import ABSENT, html_table, text_table

if TYPE_CHECKING:
    import pandas

MARKS = (STAMP, "config.yaml", "metrics.jsonl")  # a folder with one of them is a run, or was meant to be one
PREFERRED = ("validation/loss", "validation/pass@1")
DEPTH = 3  # folders down from the root in which runs are looked for


@dataclass(frozen=True)
class _Read:
    """What a row needs of a run's folder, read once."""

    settings: dict[str, Any]
    metrics: pandas.DataFrame
    hours: float
    status: str
    last: int
    """step at which it ended, as its events say"""
    sessions: int

    @classmethod
    def of(cls, run: Run) -> _Read:
        return cls(settings(run), run.metrics(), hours(run), *ended(run), len(run.stamp["sessions"]))


@dataclass(frozen=True)
class ExperimentTable:
    """The runs under a root, and the folders that could not be read, each with its reason."""

    root: Path
    runs: list[Run]
    read: dict[str, _Read]
    """by the run's id"""
    unreadable: dict[str, str]
    """folder -> reason"""
    metric: str | None = None
    """what the table is sorted by; None: by age, the newest first"""
    better: Better = "auto"

    @cached_property
    def table(self) -> pandas.DataFrame:
        """A row a run: its name, start, status, steps, hours and seed, then the best value of each validation metric
        (the last one of a metric whose name does not say which way is better). Sorted by a metric, runs of one task and
        data stand together, the best first; which is named where there are several."""
        import pandas

        names = dict.fromkeys(name for one in self.read.values() for name in one.metrics)
        shown = [name for name in names if name.startswith("validation/")] or ["train/loss"]
        shown = sorted(shown, key=lambda name: (name not in PREFERRED, name))
        if self.metric is not None:
            shown = [self.metric, *(name for name in shown if name != self.metric)]
        kinds = [str(purpose(self.read[run.id].settings)) for run in self.runs]
        table = pandas.DataFrame([self._row(run, shown) for run in self.runs])
        if len(set(kinds)) > 1:
            told = [_told(self.read[run.id].settings) for run in self.runs]
            table.insert(1, "task and data", told)
        if table.empty:
            return table
        if self.metric is None:
            return table.iloc[::-1].reset_index(drop=True)
        ascending = direction(self.metric, self.better) == "lower"
        newest = {kind: -at for at, kind in enumerate(kinds)}  # of the last run of a kind: the newest kind first
        table = table.assign(kind=[newest[kind] for kind in kinds])
        table = table.sort_values(["kind", self.metric], ascending=[True, ascending], kind="stable")
        return table.drop(columns="kind").reset_index(drop=True)

    def sort(self, metric: str, *, better: Better = "auto") -> ExperimentTable:
        """The same runs, of each task and data the best by any logged metric first, and those without it last.

        Raises `RunError` where no run has it (but for those that every run comes to, `PREFERRED`), or where its name
        does not say which way is better and `better` does not either.
        """
        known = sorted({name for one in self.read.values() for name in one.metrics})
        if metric not in known and metric not in PREFERRED:
            raise RunError(f"No run under {self.root} has {metric}; logged are: {', '.join(known) or 'none'}.")
        direction(metric, better)
        return replace(self, metric=metric, better=better)

    def _row(self, run: Run, shown: list[str]) -> dict[str, Any]:
        read = self.read[run.id]
        frame = read.metrics
        row = {
            "run": run.path.relative_to(self.root).as_posix(),
            "started": run.created[:16].replace("T", " "),
            "status": read.status,
            "sessions": read.sessions,
            "steps": max(int(frame.index[-1]) if len(frame) else 0, read.last),
            "hours": round(read.hours, 4),
            "seed": ", ".join(dict.fromkeys(map(str, seeds(read.settings).values()))),
        }
        return row | {name: self._value(frame, name) for name in shown}

    def _value(self, frame: pandas.DataFrame, name: str) -> float | None:
        try:
            way, last = direction(name, self.better if name == self.metric else "auto"), False
        except RunError:
            way, last = "lower", True
        found = score(frame[name], way) if name in frame else None
        return None if found is None else found.last if last else found.best

    def _head(self) -> str:
        return f"{len(self.runs)} {'run' if len(self.runs) == 1 else 'runs'} under {self.root}"

    def __str__(self) -> str:
        head = self._head()
        reasons = [f"  {folder}: {reason}" for folder, reason in self.unreadable.items()]
        folders = "1 folder" if len(reasons) == 1 else f"{len(reasons)} folders"
        left_out = "\n".join([f"{folders} could not be read:", *reasons]) if reasons else ""
        return "\n\n".join(filter(None, [head, text_table(self.table) if self.runs else "", left_out]))

    def _repr_html_(self) -> str:
        import pandas

        parts = [f"<p>{escape(self._head())}</p>"]
        parts += [html_table(self.table)] if self.runs else []
        if self.unreadable:
            reasons = pandas.DataFrame(
                {"folder": list(self.unreadable), "not read because": [*self.unreadable.values()]}
            )
            parts.append(html_table(reasons))
        return report_page.framed("".join(parts))


def experiment_table(root: str | Path, *, sort: str | None = None, better: Better = "auto") -> ExperimentTable:
    """The runs in the folders under `root`, and in folders in there. Raises `RunError` where there is no folder."""
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        raise RunError(f"No folder {root}; expected one with runs in it.")
    runs, read, unreadable = [], {}, {}
    for folder in _folders(root, DEPTH):
        try:
            run = Run.open(folder)
            found = _Read.of(run)
        except (RunError, OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            unreadable[folder.relative_to(root).as_posix()] = " ".join(f"{type(error).__name__}: {error}".split())
        else:
            runs.append(run)
            read[run.id] = found
    runs.sort(key=lambda run: (run.created, run.id))
    table = ExperimentTable(root, runs, read, unreadable)
    return table if sort is None else table.sort(sort, better=better)


def _told(values: dict[str, Any]) -> str:
    """A run's task and where its data come from, in a few words."""
    named = (values.get(key) for key in ("rows.source", "data.corpus"))
    source = next((Path(str(one)).name for one in named if one), "")
    task = values.get("task") or next((one for one in ("corpus", "pool") if any(k.startswith(one) for k in values)), "")
    return ", ".join(filter(None, [str(task), source])) or ABSENT


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Folders that are runs, or were meant to be; what lies in a run is its own."""
    for folder in sorted(root.iterdir()):
        if folder.name.startswith(".") or folder.is_symlink() or not folder.is_dir():
            continue
        if any((folder / mark).exists() for mark in MARKS):
            yield folder
        elif depth > 1:
            yield from _folders(folder, depth - 1)
