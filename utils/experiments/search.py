"""A search: settings drawn by Optuna from a space, each trial a run of its own, the worse ones stopped early.

    found = search(recipe, SearchConfig.load("configs/search_transformer.yaml"), run_one, root)
    found.best_config                        found.save_best("configs/mine.yaml")

Run again, with the same root or database, it goes on where it stopped; run in several processes at once, they share the
trials. Leaves out how a trial's run is made (`training.studies`).
"""

from __future__ import annotations

import html
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from utils.core.config import Config, digest, flatten, parse_overrides
from utils.experiments import search_study
from utils.experiments.search_space import check_space, draw, parse_space
from utils.experiments.search_study import SearchError
from utils.experiments.sweep import described, override, told

if TYPE_CHECKING:
    import optuna
    import pandas
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


class SearchConfig(Config):
    """What is searched, and how."""

    name: str = Field("search", pattern=r"^\w[\w.-]*$")
    """name of the study, of its folder and of its runs' group"""
    trials: int = Field(20, ge=1)
    """trials of the whole study, over all its sessions; processes that share it may each add one"""
    metric: str = "loss"
    """which metric of a trial is judged"""
    direction: Literal["minimize", "maximize"] = "minimize"
    """whether the metric is better low or high"""
    sampler: Literal["tpe", "random"] = "tpe"
    """how settings are drawn: near the good ones (tree of Parzen estimators), or evenly"""
    pruner: Literal["none", "median", "hyperband"] = "median"
    """stop a trial that is worse than the median at the same step, or by successive halving, or none"""
    startup_trials: int = Field(5, ge=1)
    """trials drawn evenly, and not stopped by the median, before there is enough to judge by"""
    min_steps: int = Field(0, ge=0)
    """steps of training before a trial may be stopped"""
    seed: int = Field(0, ge=0)
    """seed of the settings drawn; the weights' is in the config that is searched"""
    space: dict[str, Any]
    """setting -> what it varies over, as in utils/experiments/search_space.py"""

    @field_validator("space")
    @classmethod
    def _readable(cls, space: dict[str, Any]) -> dict[str, Any]:
        parse_space(space)
        return space


class Watch:
    """A trial as its run sees it: `watch(step, metrics)` reports an evaluation, and ends a trial that is not worth it.

    Ending is `optuna.TrialPruned`, which must travel through the training. `name` is one for the trial and for its
    further tries, which thereby take up its run; `group` is the study's name.
    """

    def __init__(self, trial: optuna.Trial, config: SearchConfig):
        self._trial, self._metric = trial, config.metric
        frozen = trial.study.get_trials(deepcopy=False)[trial.number]
        self.name = f"{config.name}-{search_study.first_number(frozen):03d}"
        self.group = config.name

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        import optuna

        value = _value(metrics, self._metric)
        self._trial.report(value, step)
        if self._trial.should_prune():
            raise optuna.TrialPruned(f"stopped after {step} steps with {self._metric} {value:.4g}")


Trial = Callable[[Any, Watch], Mapping[str, Any]]
"""(config, watch) -> metrics, the judged one among them; texts such as the run's folder may be there too"""


class _Failed(Exception):
    """A trial's error, told without secrets."""


def search(base: Config, config: SearchConfig, run_one: Trial, root: Path, *, storage: str | None = None) -> Search:
    """Go on with the study under `root`/<name> until it has its trials. `run_one` must begin with fresh weights.

    A trial that fails is recorded with its reason and does not stop the others. `storage` is the URL of a database that
    machines share. Raises `ConfigError` for a space that does not fit the config, `SearchError` for a study of another
    config, space or metric.
    """
    dimensions = parse_space(config.space)
    check_space(dimensions, base)
    folder = Path(root).expanduser().resolve() / config.name
    facts = {"base config": base.identity(), "space": digest(config.space)}
    facts |= {"metric": config.metric, "direction": config.direction}
    study = search_study.open_study(config, folder, storage, facts)
    found = Search(study, config, base, folder)

    def objective(trial: optuna.Trial) -> float:
        study.sampler = search_study.make_sampler(config, trial.number)
        search_study.claim(trial)
        try:
            return _judged(trial, dimensions, base, config, run_one)
        except SearchError:
            raise
        except Exception as fault:
            if _pruned(fault):
                raise
            trial.set_user_attr("error", described(fault))
            log.warning("Trial %d failed: %s", trial.number, told(fault))
            raise _Failed(described(fault)) from None

    while True:
        search_study.free_dead_trials(study)
        if search_study.complete(study, config.trials):
            break
        ours: list[int] = []
        try:
            with search_study.quiet():
                study.optimize(
                    lambda trial, ours=ours: ours.append(trial.number) or objective(trial),
                    n_trials=1,
                    catch=(_Failed,),
                )
        except (KeyboardInterrupt, SystemExit):
            for number in ours:
                search_study.interrupted(study, number)
            raise
        found.tell(ours[0])
        if found.has_best:
            found.save_best(folder / "best.yaml")
    return found


@dataclass
class Search:
    """A study and what it found so far. Shows itself as its best settings and its table."""

    study: optuna.Study
    config: SearchConfig
    base: Config
    folder: Path

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
        if not self.has_best:
            return head
        settings = " ".join(self.best.user_attrs["overrides"])
        return f"{head} Best {self.config.metric} {self.best.value:.4g} in trial {self.best.number}: {settings}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>{self.table.to_html(na_rep='')}"


def _judged(trial: optuna.Trial, dimensions: Any, base: Config, config: SearchConfig, run_one: Trial) -> float:
    """Draw, run, judge."""
    overrides = [override(key, value) for key, value in draw(dimensions, base, trial).items()]
    trial.set_user_attr("overrides", overrides)
    results = run_one(base.replace(overrides), Watch(trial, config))
    value = _value(results, config.metric)
    plain = {name: one for name, one in results.items() if isinstance(one, (str, int, float))}
    plain = {name: one for name, one in plain.items() if isinstance(one, str) or math.isfinite(one)}  # as JSON has it
    trial.set_user_attr("results", plain)
    if not math.isfinite(value):
        raise ArithmeticError(f"{config.metric} is {value} at the end of the trial")
    return value


def _value(metrics: Mapping[str, Any], name: str) -> float:
    if name not in metrics:
        raise SearchError(f"The search judges by {name!r}, and the trial gives {', '.join(metrics)}; set metric=...")
    return float(metrics[name])


def _pruned(fault: Exception) -> bool:
    import optuna

    return isinstance(fault, optuna.TrialPruned)


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
