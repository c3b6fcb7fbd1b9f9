"""A root folder's runs as one table: a view computed anew from their folders each time, without any registry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from utils.core import report_page
from utils.core.run import STAMP, Run, RunError
from utils.experiments.compare import _text, html_table
from utils.experiments.scores import Better, direction, hours, score, seeds, settings

if TYPE_CHECKING:
    import pandas

MARKS = (STAMP, "config.yaml", "metrics.jsonl")  # a folder with one of them is a run, or was meant to be one
PREFERRED = ("validation/loss", "validation/pass@1")


@dataclass(frozen=True)
class ExperimentTable:
    """The runs under a root, and the folders that could not be read, each with its reason."""

    root: Path
    runs: list[Run]
    metrics: dict[str, pandas.DataFrame]
    """run id -> `run.metrics()`"""
    unreadable: dict[str, str]
    """folder -> reason"""
    metric: str | None = None
    """what the table is sorted by; None: by age, the newest first"""
    better: Better = "auto"

    @cached_property
    def table(self) -> pandas.DataFrame:
        """A row a run: its name, start, steps, hours and seed, then the best value of each validation metric (the last
        one of a metric whose name does not say which way is better)."""
        import pandas

        names = dict.fromkeys(name for frame in self.metrics.values() for name in frame)
        shown = [name for name in names if name.startswith("validation/")] or ["train/loss"]
        shown = sorted(shown, key=lambda name: (name not in PREFERRED, name))
        if self.metric is not None:
            shown = [self.metric, *(name for name in shown if name != self.metric)]
        table = pandas.DataFrame([self._row(run, shown) for run in self.runs])
        if table.empty:
            return table
        if self.metric is None:
            return table.iloc[::-1].reset_index(drop=True)
        ascending = direction(self.metric, self.better) == "lower"
        return table.sort_values(self.metric, ascending=ascending, kind="stable").reset_index(drop=True)

    def sort(self, metric: str, *, better: Better = "auto") -> ExperimentTable:
        """The same runs, the best by any logged metric first; those without it last. Raises ValueError where no run has
        it, or where its name does not say which way is better and `better` does not either."""
        known = sorted({name for frame in self.metrics.values() for name in frame})
        if metric not in known:
            raise ValueError(f"No run under {self.root} has {metric}; logged are: {', '.join(known) or 'none'}.")
        direction(metric, better)
        return replace(self, metric=metric, better=better)

    def _row(self, run: Run, shown: list[str]) -> dict[str, Any]:
        frame = self.metrics[run.id]
        row = {
            "run": run.path.name,
            "started": run.created[:16].replace("T", " "),
            "sessions": len(run.stamp["sessions"]),
            "steps": int(frame.index[-1]) if len(frame) else 0,
            "hours": round(hours(run), 4),
            "seed": ", ".join(dict.fromkeys(map(str, seeds(settings(run)).values()))),
        }
        return row | {name: self._value(frame, name) for name in shown}

    def _value(self, frame: pandas.DataFrame, name: str) -> float | None:
        try:
            way, last = direction(name, self.better if name == self.metric else "auto"), False
        except ValueError:
            way, last = "lower", True
        found = score(frame[name], way) if name in frame else None
        return None if found is None else found.last if last else found.best

    def __str__(self) -> str:
        head = f"{len(self.runs)} runs under {self.root}"
        reasons = [f"  {folder}: {reason}" for folder, reason in self.unreadable.items()]
        left_out = "\n".join([f"{len(reasons)} folders could not be read:", *reasons]) if reasons else ""
        return "\n\n".join(filter(None, [head, _text(self.table) if self.runs else "", left_out]))

    def _repr_html_(self) -> str:
        import pandas

        parts = [f"<p>{len(self.runs)} runs under {escape(str(self.root))}</p>"]
        parts += [html_table(self.table)] if self.runs else []
        if self.unreadable:
            reasons = pandas.DataFrame(
                {"folder": list(self.unreadable), "not read because": [*self.unreadable.values()]}
            )
            parts.append(html_table(reasons))
        return report_page.framed("".join(parts))


def experiment_table(root: str | Path, *, sort: str | None = None, better: Better = "auto") -> ExperimentTable:
    """The runs in the folders directly under `root`. Raises ValueError where there is no such folder."""
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        raise ValueError(f"No folder {root}; expected one with runs in it.")
    runs, metrics, unreadable = [], {}, {}
    for folder in sorted(root.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            if not any((folder / mark).exists() for mark in MARKS):
                continue  # no run, and nothing says so
            run = Run.open(folder)
            found = run.metrics()
            run.config.items(), hours(run)  # the rest of what a row is made of
        except (RunError, OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            unreadable[folder.name] = " ".join(f"{type(error).__name__}: {error}".split())
        else:
            runs.append(run)
            metrics[run.id] = found
    runs.sort(key=lambda run: (run.created, run.id))
    table = ExperimentTable(root, runs, metrics, unreadable)
    return table if sort is None else table.sort(sort, better=better)
