"""A search: settings drawn by Optuna from a space, each trial a run of its own, the worse ones stopped early.

    found = search(recipe, SearchConfig.load("configs/search_transformer.yaml"), run_one, root)
    found.best_config                        found.save_best("configs/mine.yaml")

Run again, with the same root or database, it goes on where it stopped; run in several processes at once, they share the
trials. Leaves out how a trial's run is made (`training.studies`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core.config import Config, digest
from utils.core.deadline import AskedToStop, OutOfTime, check_time
from utils.experiments import search_study
from utils.experiments.search_config import SearchConfig
from utils.experiments.search_found import Search
from utils.experiments.search_space import check_space, draw, parse_space
from utils.experiments.search_study import SearchError
from utils.experiments.sweep import described, override, told

if TYPE_CHECKING:
    import optuna

__all__ = ["Pruned", "Search", "SearchConfig", "Trial", "Watch", "search"]
log = logging.getLogger(__name__)


class Pruned(AskedToStop):
    """A trial that is not worth going on with; its run ends, and has not failed."""


class Watch:
    """A trial as its run sees it: `watch(step, metrics)` reports an evaluation, and ends a trial that is not worth it.

    Ending is `Pruned`, which must travel through the training. `name` is one for the trial and for its
    further tries, which thereby take up its run; `group` is the study's name.
    """

    def __init__(self, trial: optuna.Trial, config: SearchConfig):
        self._trial, self._metric = trial, config.metric
        frozen = trial.study.get_trials(deepcopy=False)[trial.number]
        self.name = f"{config.name}-{search_study.first_number(frozen):03d}"
        self.group = config.name

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        value = _value(metrics, self._metric)
        self._trial.report(value, step)
        if self._trial.should_prune():
            raise Pruned(f"stopped after {step} steps with {self._metric} {value:.4g}")


Trial = Callable[[Any, Watch], Mapping[str, Any]]
"""(config, watch) -> metrics, the judged one among them; texts such as the run's folder may be there too"""


class _Failed(Exception):
    """A trial's error, told without secrets."""


def search(base: Config, config: SearchConfig, run_one: Trial, root: Path, *, storage: str | None = None) -> Search:
    """Go on with the study under `root`/<name> until it has its trials. `run_one` must begin with fresh weights.

    A trial that fails is recorded with its reason and does not stop the others. One that ran out of time (`OutOfTime`,
    `core.deadline`) ends this session's part, and is gone on with in the next one. `storage` is the URL of a database
    that machines share. Raises `ConfigError` for a space that does not fit the config, `SearchError` for a study of
    another config, space or metric.
    """
    import optuna

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
        except (SearchError, OutOfTime, optuna.TrialPruned):
            raise
        except Pruned as stop:
            raise optuna.TrialPruned(str(stop)) from None
        except Exception as fault:
            trial.set_user_attr("error", described(fault))
            log.warning("Trial %d failed: %s", trial.number, told(fault))
            raise _Failed(described(fault)) from None

    while True:
        search_study.free_dead_trials(study)
        if search_study.complete(study, config.trials):
            break
        ours: list[int] = []
        try:
            check_time()
            with search_study.quiet():
                study.optimize(
                    lambda trial, ours=ours: ours.append(trial.number) or objective(trial),
                    n_trials=1,
                    catch=(_Failed,),
                )
        except OutOfTime as stop:
            for number in ours:
                search_study.interrupted(study, number, retries=None)
            found.stopped = str(stop)
            log.info("The search %s stopped: %s. Run the same again to go on.", config.name, found.stopped)
            break
        except (KeyboardInterrupt, SystemExit):
            for number in ours:
                search_study.interrupted(study, number)
            raise
        found.tell(ours[0])
        if found.has_best:
            found.save_best(folder / "best.yaml")
    return found


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
