"""`Search`: a study and what it found so far: its table, its best settings, its figures."""

from __future__ import annotations

import html
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core.config import flatten, parse_overrides
from utils.experiments import search_study
from utils.experiments.search_config import SearchConfig
from utils.experiments.search_study import SearchError

if TYPE_CHECKING:
    import optuna
    import pandas
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


@dataclass
class Search:
    """A study and what it found so far. Shows itself as its best settings and its table."""

    study: optuna.Study
    config: SearchConfig
    base: Any
    folder: Path
    stopped: str = ""
    """why this session's part ended before the search did"""

    @property
    def table(self) -> pandas.DataFrame:
        """A row a trial, by its number: state, the metric, every setting drawn, steps, seconds, results, error.

        `again` is the number of the trial that was tried again, in studies where one was.
        """
        import pandas

        trials = self.study.get_trials(deepcopy=False)
        keys = list(self.config.space)
        rows = [_row(trial, self.config.metric, keys) for trial in trials]
        table = pandas.DataFrame(rows, columns=None if rows else ["trial"]).set_index("trial")
        return (
            table
            if any(search_study.is_again(trial) for trial in trials)
            else table.drop(columns="again", errors="ignore")
        )

    @property
    def has_best(self) -> bool:
        return any(trial.state.name == "COMPLETE" for trial in self.study.get_trials(deepcopy=False))

    @property
    def best(self) -> optuna.trial.FrozenTrial:
        """The best complete trial. Raises `SearchError` where there is none, with the last failure's reason."""
        if not self.has_best:
            reasons = [trial.user_attrs.get("error", search_study.ENDED) for trial in self._in("FAIL")]
            why = f"; the last failure: {reasons[-1]}" if reasons else ""
            raise SearchError(f"No trial of {self.config.name!r} is complete yet ({len(self.study.trials)} begun){why}")
        return self.study.best_trial

    @property
    def best_config(self) -> Any:
        """The base config with the best trial's settings."""
        return self.base.replace(self.best.user_attrs["overrides"])

    def save_best(self, path: str | Path) -> Path:
        """Write the best config as a YAML file, whose first lines say where it is from."""
        best, path = self.best, Path(path)
        head = f"# Trial {best.number} of the search {self.config.name}: {self.config.metric} {best.value:.6g}.\n"
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(head + self.best_config.to_yaml(), encoding="utf-8")
        os.replace(temporary, path)
        return path

    def figures(self) -> dict[str, Figure]:
        """History, slices, parallel coordinates and importances, as far as there are trials enough for each."""
        from utils.experiments.search_plots import plot_history, plot_importance, plot_parallel, plot_slices

        complete = len(self._in("COMPLETE"))
        plots = {"history": (plot_history, 1), "slices": (plot_slices, 1), "parallel": (plot_parallel, 1)}
        plots["importance"] = (plot_importance, 4)
        return {name: plot(self) for name, (plot, least) in plots.items() if complete >= least}

    def tell(self, number: int) -> None:
        """Say in the log how a trial ended."""
        trial = self.study.get_trials(deepcopy=False)[number]
        value = "" if trial.value is None else f", {self.config.metric} {trial.value:.4g}"
        best = f"; best {self.best.value:.4g} in trial {self.best.number}" if self.has_best else ""
        log.info("Trial %d %s%s%s", number, trial.state.name.lower(), value, best)

    def _in(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.name in states]

    def __str__(self) -> str:
        counts = ", ".join(
            f"{len(found)} {state.lower()}"
            for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")
            if (found := self._in(state))
        )
        head = f"Search {self.config.name}: {counts or 'no trials yet'}."
        if self.stopped:
            head += f" It stopped before its end ({self.stopped}); run the same again to go on."
        if not self.has_best:
            return head
        settings = " ".join(self.best.user_attrs["overrides"])
        kept = self.folder / "best.yaml"
        where = f"\nIts recipe: {kept}" if kept.is_file() else ""
        return f"{head} Best {self.config.metric} {self.best.value:.4g} in trial {self.best.number}: {settings}{where}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>{self.table.to_html(na_rep='')}"


def _row(trial: optuna.trial.FrozenTrial, metric: str, keys: list[str]) -> dict[str, Any]:
    drawn = dict(flatten(parse_overrides(trial.user_attrs.get("overrides", []))))
    state = trial.state.name.lower()
    error = trial.user_attrs.get("error", search_study.ENDED) if state == "fail" else ""
    results = {name: one for name, one in trial.user_attrs.get("results", {}).items() if name != metric}
    return {
        "trial": trial.number,
        "state": state,
        metric: trial.value,
        **{key: drawn.get(key) for key in keys},
        "steps": trial.last_step,
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        "again": search_study.first_number(trial) if search_study.is_again(trial) else None,
        **results,
        "error": error,
    }
