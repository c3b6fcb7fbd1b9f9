"""The Optuna study behind a search: its storage, how it draws and prunes, and what a dead process leaves in it.

A study lives in a database, so that it outlives its process, and several processes or machines share it. A trial whose
process ended before it did counts as failed, and is tried again with the same settings. Leaves out what a trial does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from utils.core.redact import redacted
from utils.core.run import RunError

if TYPE_CHECKING:
    import optuna

    from utils.experiments.search_config import SearchConfig

HEARTBEAT_SECONDS, GRACE_SECONDS = 30, 180
RETRIES = 5
ENDED = "its process ended before the trial did"


class SearchError(RunError):
    """A study that cannot be opened, gone on with or judged; the message says what to do."""


def open_study(config: SearchConfig, folder: Path, storage: str | None, facts: dict[str, Any]) -> optuna.Study:
    """The study of this name, made where there is none: in `folder`/study.db, or at a database URL.

    `facts` say what is searched; a study of others raises `SearchError`, as does a database that cannot be reached.
    """
    import optuna
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{folder / 'study.db'}"
    local = url.startswith("sqlite")
    lock = FileLock(folder / ".study.lock") if local else contextlib.nullcontext()  # SQLite's tables are made once
    try:
        with quiet(), lock:
            backend = optuna.storages.RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": 60}} if local else {"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=_again(),
            )
            study = optuna.create_study(
                storage=backend,
                study_name=config.name,
                direction=config.direction,
                pruner=make_pruner(config),
                load_if_exists=True,
            )
    except Exception as error:
        where = "study.db" if storage is None else "the database of the given URL"
        fault = redacted(f"{type(error).__name__}: {error}").replace(url, "the URL")
        raise SearchError(f"No study could be opened in {where} ({folder}): {fault}") from None
    before = study.user_attrs.get("facts")
    if before is None and not study.trials:
        study.set_user_attr("facts", facts)
    elif before != facts:
        other = ", ".join(name for name in facts if (before or {}).get(name) != facts[name])
        raise SearchError(
            f"The study {config.name!r} in {folder} was made with another {other}. Put it back to go on with the study,"
            " or begin a new one: give it another name (--name, or `name` in a copy of its YAML file), or another"
            " --root."
        )
    return study


def make_sampler(config: SearchConfig, number: int) -> optuna.samplers.BaseSampler:
    """What draws the settings of trial `number`.

    Its seed is that of the search and the number, so that sessions and processes that share a study draw apart, and a
    study that was resumed draws what it would have drawn.
    """
    import optuna

    seed = int(numpy.random.SeedSequence((config.seed, number)).generate_state(1)[0])
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup_trials)


def make_pruner(config: SearchConfig) -> optuna.pruners.BasePruner:
    import optuna

    if config.pruner == "none":
        return optuna.pruners.NopPruner()
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=config.startup_trials, n_warmup_steps=config.min_steps)
    return optuna.pruners.HyperbandPruner(min_resource=max(config.min_steps, 1), reduction_factor=3)


def claim(trial: optuna.Trial) -> None:
    """Note which process runs the trial."""
    trial.set_user_attr("process", {"number": trial.number, "host": socket.gethostname(), **_process(os.getpid())})


def free_dead_trials(study: optuna.Study) -> None:
    """Fail the running trials whose process is gone, and have them tried again.

    A process of this machine is looked up; one of another is gone once it has given no sign for three minutes.
    """
    import optuna

    running = optuna.trial.TrialState.RUNNING
    for trial in study.get_trials(deepcopy=False, states=(running,)):
        owner = trial.user_attrs.get("process", {})
        # A trial that is tried again carries its forerunner's owner until it is claimed.
        ours = owner.get("number") == trial.number and owner.get("host") == socket.gethostname()
        if ours and _process(owner["pid"]) != {name: owner[name] for name in ("pid", "began")}:
            try_again(study, trial.number)
    with quiet():
        optuna.storages.fail_stale_trials(study)


def try_again(study: optuna.Study, number: int, retries: int | None = RETRIES) -> None:
    """Count a running trial as failed, and put its settings in line for a new one, `retries` times at most (None:
    however often, for trials that get further each time)."""
    import optuna

    with contextlib.suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):  # another process was first
        study.tell(number, state=optuna.trial.TrialState.FAIL)
        _put_in_line(study, number, retries)


def interrupted(study: optuna.Study, number: int, retries: int | None = RETRIES) -> None:
    """As `try_again`, of this process's own trial, which Optuna may have counted as failed already."""
    if study.get_trials(deepcopy=False)[number].state.is_finished():
        _put_in_line(study, number, retries)
    else:
        try_again(study, number, retries)


def _put_in_line(study: optuna.Study, number: int, retries: int | None) -> None:
    with quiet():
        _again(retries)(study, study.get_trials(deepcopy=False)[number])


def is_again(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether it tries an earlier trial again, whose process ended before it."""
    return "failed_trial" in trial.system_attrs


def first_number(trial: optuna.trial.FrozenTrial) -> int:
    """The trial's number, or that of the one it tries again."""
    return trial.system_attrs.get("failed_trial", trial.number)


def complete(study: optuna.Study, number: int) -> bool:
    """Whether so many trials have begun, and none is in line. One that was tried again counts once."""
    trials = study.get_trials(deepcopy=False)
    begun = {first_number(trial) for trial in trials if trial.state.name != "WAITING"}
    return len(begun) >= number and all(trial.state.name != "WAITING" for trial in trials)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's own reports of each trial, and its notes that heartbeats are experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _again(retries: int | None = RETRIES) -> Any:
    import optuna

    with quiet():
        return optuna.storages.RetryHeartbeatStaleTrialCallback(retries, inherit_intermediate_values=True)


def _process(pid: int) -> dict[str, Any]:
    """A process and when it began, since numbers are given again; `began` is None for one that is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        gone = process.status() == psutil.STATUS_ZOMBIE
        return {"pid": pid, "began": None if gone else process.create_time()}
    except psutil.NoSuchProcess:
        return {"pid": pid, "began": None}
