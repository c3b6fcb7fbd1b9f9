"""Several recipes in one go: one after another or over processes, each its own run, no failure stopping the rest."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core.config import Config, ConfigError
from utils.core.deadline import Deadline, OutOfTime, check_time, current, deadline
from utils.experiments.sweep import described, told
from utils.training.recipes import train
from utils.training.result import Result
from utils.training.runs import run_of

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)
ERROR = "error.txt"


def train_many(
    recipes: Iterable[Config], root: Path, processes: int = 1, *, train: Callable[..., Result] = train
) -> pandas.DataFrame:
    """A row a recipe, in their order: name, run, how it ended, step, the best evaluation's metrics, seconds, error.

    A run that fails is recorded, with the traceback in its folder's `error.txt`, and the others go on; trained again,
    each takes up its own run. With several `processes` each run has a fresh one with one thread, so that one that is
    killed takes no other with it; `train` must then be a function of a module. An interrupt stops them all, saved.

    They share the hours of a session: the fewest `train.max_hours` that any of them asks for. What is not begun by then
    says so, and is when the same is run again.
    """
    import pandas

    recipes, root = list(recipes), Path(root).expanduser().resolve()
    if processes < 1:
        raise ConfigError(f"processes={processes}: expected at least 1.")
    identities = [recipe.identity() for recipe in recipes]
    twice = [number for number, one in enumerate(identities) if one in identities[:number]]
    if twice:
        first = identities.index(identities[twice[0]])
        raise ConfigError(f"Recipes {first} and {twice[0]} are one experiment and would share a run; leave one out.")
    hours = [recipe.train.max_hours for recipe in recipes if recipe.train.max_hours is not None]
    with deadline(min(hours, default=None)):
        one_by_one = processes == 1
        rows = _one_by_one(recipes, root, train) if one_by_one else _over_processes(recipes, root, processes, train)
    for row in rows:
        if row["error"]:
            log.warning("%s failed: %s", row["run"] or row["name"], row["error"])
    columns = ["name", "run", "ended", "step"]
    metrics = [name for row in rows for name in row if name not in (*columns, "seconds", "error")]
    return pandas.DataFrame(rows, columns=[*columns, *dict.fromkeys(metrics), "seconds", "error"])


def outcome(result: Result) -> dict[str, Any]:
    """What a run came to: its folder, how it ended, and the metrics of its best evaluation, by their bare names.

    They are read from the run, so that one that was complete already gives the same.
    """
    metrics, best = result.run.metrics(), result.progress.best_step
    row = metrics.loc[best] if best in metrics.index else metrics.iloc[-1]
    judged = {name.removeprefix("validation/"): value for name, value in row.items() if name.startswith("validation/")}
    progress = result.progress
    ended = progress.finished or f"{result.stopped or 'interrupted'} after {progress.step} steps"
    found = {"run": str(result.run.path), "ended": ended, "step": best, **judged}
    return {name: value for name, value in found.items() if value == value}  # not what was not logged


def _one_by_one(recipes: list[Config], root: Path, train: Callable[..., Result]) -> list[dict[str, Any]]:
    """Rows, in this process; after one that ran out of time none is begun."""
    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        over = bool(rows) and rows[-1].get("ended", "").startswith(("stopped for", "not begun"))
        rows.append(_not_begun(recipe) if over else _here(recipe, root, train))
    return rows


def _not_begun(recipe: Config) -> dict[str, Any]:
    ended = "not begun: the hours of this session (max_hours) are over"
    return {"name": recipe.name, "run": None, "ended": ended, "error": "", "seconds": 0.0}


def _here(recipe: Config, root: Path, train: Callable[..., Result]) -> dict[str, Any]:
    """Train one recipe in this process; its row."""
    start, row = time.perf_counter(), {"name": recipe.name, "run": None, "error": ""}
    try:
        check_time()
        result = train(recipe, root)
        row |= outcome(result)
        (result.run.path / ERROR).unlink(missing_ok=True)
    except OutOfTime:
        return _not_begun(recipe)
    except Exception as fault:
        run = run_of(recipe, root)
        row |= {"run": str(run.path) if run else None, "error": described(fault)}
        if run:
            (run.path / ERROR).write_text(told(fault), encoding="utf-8")
        else:
            log.warning("%s failed before it had a run: %s", recipe.name, told(fault))
    return {**row, "seconds": time.perf_counter() - start}


def _over_processes(
    recipes: list[Config], root: Path, processes: int, train: Callable[..., Result]
) -> list[dict[str, Any]]:
    """Each recipe in a process of its own; on an interrupt they are told to save and stop, and no others begin."""
    under_way: list[BaseProcess] = []
    with ThreadPoolExecutor(processes) as pool:
        end = current()
        futures = [pool.submit(_apart, recipe, root, train, under_way, end) for recipe in recipes]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(under_way):
                process.terminate()  # SIGTERM: a step is finished and saved first
            raise


def _apart(
    recipe: Config, root: Path, train: Callable[..., Result], under_way: list[BaseProcess], end: Deadline | None
) -> dict[str, Any]:
    """Train one recipe in a process of its own; its row, also where the process is killed."""
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, recipe, root, train, end and end.left() / 3600))
    process.start()
    under_way.append(process)
    sender.close()
    try:
        row = receiver.recv()
    except EOFError:  # it ended without a word
        row = None
    process.join()
    under_way.remove(process)
    if row is None:
        run, code = run_of(recipe, root), process.exitcode
        error = f"its process was killed by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
        row = {"name": recipe.name, "run": str(run.path) if run else None, "error": error}
    return {**row, "seconds": time.perf_counter() - start}


def _child(sender: Connection, recipe: Config, root: Path, train: Callable[..., Result], hours: float | None) -> None:
    import torch

    logging.basicConfig(format=f"{recipe.name}: %(levelname)s: %(message)s", level=logging.WARNING)
    torch.set_num_threads(1)
    with deadline(hours):
        sender.send(_here(recipe, root, train))
