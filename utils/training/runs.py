"""What recipes of every kind share on the way to a trained run: the file, the run to take up, `fit`, the best weights.

Leaves out what a recipe is and how its data and model are made (`training.recipes`, `vae.recipes`).
"""

from __future__ import annotations

import difflib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import nn

from utils.core.checkpoints import Checkpoint, Checkpoints
from utils.core.config import Config, ConfigError
from utils.core.device import choose, leave_processes, make_fabric
from utils.core.notebook import ROOT
from utils.core.run import Run
from utils.training.callbacks import Sampler, before_the_first_step
from utils.training.config import TrainConfig
from utils.training.evaluate import Data
from utils.training.families import content, family_of
from utils.training.fit import fit
from utils.training.objectives import Objective
from utils.training.result import Result

log = logging.getLogger(__name__)
CONFIGS = ROOT / "configs"
D = TypeVar("D", bound=Data)


def find_recipe(path: str | Path, family: str = "") -> Path:
    """The YAML file of a recipe: itself, or the one in `configs/` of that bare name.

    Raises `ConfigError` with the names there are, the nearest first: those of one `family` ("search": the spaces), or
    all where it is "".
    """
    named = CONFIGS / f"{path}.yaml"
    if named.is_file():
        return named
    if Path(path).is_file():
        return Path(path)
    names = [file.stem for file in sorted(CONFIGS.glob("*.yaml")) if family in ("", _kind(file))]
    near = difflib.get_close_matches(str(path), names, cutoff=0.7)
    what = f"No {'search' if family == 'search' else 'recipe'} {str(path)!r}"
    shown = ", ".join([*near, *(one for one in names if one not in near)])
    if near:
        raise ConfigError(f"{what}; did you mean {near[0]}? Expected a YAML file, or one of {shown}.")
    raise ConfigError(f"{what}: expected a YAML file, or one of {shown}.")


def _kind(file: Path) -> str:
    """The family of a file in `configs/`; of those without a mark, "search" for a space and else a language model."""
    values = content(file)
    return "search" if "space" in values else family_of(values) or "language model"


def run_of(recipe: Config, root: str | Path) -> Run | None:
    """The newest run of a recipe under `root`."""
    identity = recipe.identity()
    runs = [run for run in Run.all(root) if run.name == recipe.name and run.stamp["identity"] == identity]
    return runs[-1] if runs else None


def taken_up(run: Run, recipe: Config) -> tuple[Callable[[], Run], Checkpoint | None]:
    """How to go on with a run under a recipe: what gives the run, and the state that a branch of it starts from.

    It is `run` itself (and None), or a branch where `recipe` would change its weights. Raises `ConfigError` for a run
    that was pulled: optimiser and generators are not published.
    """
    if run.stamp.get("pulled"):
        raise ConfigError(
            f"{run.path.name} was pulled and has its weights alone: it can be evaluated and sampled from, and"
            " trained on only where it was trained."
        )
    if run.stamp["identity"] == recipe.identity():
        return lambda: run, None
    return lambda: run.branch(recipe), newest_checkpoint(run)


def train_model(
    config: TrainConfig,
    *,
    prepare: Callable[[], D],
    build: Callable[[D], tuple[nn.Module, Objective]],
    take_run: Callable[[D], Run],
    sampler: Callable[[Run, D], Sampler] | None = None,
    parent: Checkpoint | None = None,
    on_evaluation: Callable[[int, dict[str, float]], None] | None = None,
) -> Result:
    """Prepare, build, take the run, `fit`. Of several processes the first prepares and takes the run for all.

    A branch (of the state in `parent`) whose model is of another shape is refused before it has a folder, and one that
    fails before its first checkpoint leaves none.
    """
    fabric = make_fabric(choose(config.device, config.precision))
    with before_the_first_step():
        with fabric.rank_zero_first():
            data = prepare()
        model, objective = build(data)
        if parent is not None:
            _check_shapes(model, parent)
        path = fabric.broadcast(str(take_run(data).path) if fabric.is_global_zero else None)
        run = Run.open(path)
        sample = sampler(run, data) if sampler else None
    try:
        return fit(
            model,
            objective,
            data,
            run,
            config,
            sample=sample,
            parent=parent,
            fabric=fabric,
            on_evaluation=on_evaluation,
        )
    except BaseException:
        if parent is not None and fabric.is_global_zero and not Checkpoints(run.path / "checkpoints").all():
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def _check_shapes(model: nn.Module, parent: Checkpoint) -> None:
    """A branch takes over weights, so its model must be of their shapes; `ConfigError` where it is not."""
    before = {name: tuple(value.shape) for name, value in parent.load()["model"].items()}
    now = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    other = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if other:
        raise ConfigError(
            f"A branch takes over the weights of step {parent.step}, and these settings give a model of another shape"
            f" ({other[0]} was {before.get(other[0])}, now {now.get(other[0])}; {len(other)} such weights). Leave out"
            " the overrides of the model that change it, or train a new run with them."
        )


def best_checkpoint(run: Run) -> Checkpoint:
    """The checkpoint with the lowest validation loss, or the newest where none was evaluated."""
    return Checkpoints(run.path / "checkpoints").best() or newest_checkpoint(run)


def substituted(run: Run, chosen: Checkpoint, *, by_loss: bool) -> str:
    """What to tell where a damaged checkpoint came before the `chosen` one, by loss or else by age; or ""."""
    damaged = sorted((run.path / "checkpoints").glob("step-*.damaged"))
    better = [path for path in damaged if _before(run, path, chosen, by_loss)]
    if not better:
        return ""
    names = ", ".join(path.name for path in better)
    verb = "is" if len(better) == 1 else "are"
    return (
        f"The weights of step {chosen.step} stand in for better or newer ones: {names} in"
        f" {run.path / 'checkpoints'} {verb} damaged and set aside."
    )


def _before(run: Run, damaged: Path, chosen: Checkpoint, by_loss: bool) -> bool:
    step, metrics = int(damaged.stem.removeprefix("step-")), run.metrics()
    if step == chosen.step:  # written again since
        return False
    if not by_loss or chosen.metric is None:
        return step > chosen.step
    losses = metrics["validation/loss"].dropna()
    return bool(step in losses and losses[step] <= chosen.metric)


def newest_checkpoint(run: Run) -> Checkpoint:
    checkpoint = Checkpoints(run.path / "checkpoints").last()
    if checkpoint is None:
        raise ConfigError(f"{run.path} has no checkpoint yet; train it first: run the command that made it again.")
    return checkpoint


def conclude(result: Result, finish: Callable[[Run], Path]) -> None:
    """Judge, sample and report a finished run by `finish`, in which every process takes its share; print it once."""
    report = finish(result.run)
    if int(os.environ.get("RANK", 0)) == 0:
        print(result)
        print(f"Report: {report}")
    leave_processes()
