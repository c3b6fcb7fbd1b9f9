"""What recipes of every kind share on the way to a trained run: the file, the run to take up, `fit`, the best weights.

Leaves out what a recipe is and how its data and model are made (`training.recipes`, `vae.recipes`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import nn

from utils.core.checkpoints import Checkpoint, Checkpoints
from utils.core.config import Config, ConfigError
from utils.core.device import choose, leave_processes, make_fabric
from utils.core.notebook import ROOT
from utils.core.run import Run
from utils.training.callbacks import Sampler
from utils.training.config import TrainConfig
from utils.training.evaluate import Data
from utils.training.fit import fit
from utils.training.objectives import Objective
from utils.training.result import Result

CONFIGS = ROOT / "configs"
D = TypeVar("D", bound=Data)


def find_recipe(path: str | Path) -> Path:
    """The YAML file of a recipe: itself, or the one in `configs/` of that bare name."""
    named = CONFIGS / f"{path}.yaml"
    if not named.is_file() and not Path(path).is_file():
        names = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
        raise ConfigError(f"No recipe {str(path)!r}: expected a YAML file, or one of {names}.")
    return named if named.is_file() else Path(path)


def taken_up(run: Run, recipe: Config) -> tuple[Callable[[], Run], Checkpoint | None]:
    """How to go on with a run under a recipe: what gives the run, and the state that a branch of it starts from.

    It is `run` itself (and None), or a branch where `recipe` would change its weights.
    """
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
) -> Result:
    """Prepare, build, take the run, `fit`. Of several processes the first prepares and takes the run for all."""
    fabric = make_fabric(choose(config.device, config.precision))
    with fabric.rank_zero_first():
        data = prepare()
    model, objective = build(data)
    path = fabric.broadcast(str(take_run(data).path) if fabric.is_global_zero else None)
    run = Run.open(path)
    sample = sampler(run, data) if sampler else None
    return fit(model, objective, data, run, config, sample=sample, parent=parent, fabric=fabric)


def best_checkpoint(run: Run) -> Checkpoint:
    """The checkpoint with the lowest validation loss, or the newest where none was evaluated."""
    return Checkpoints(run.path / "checkpoints").best() or newest_checkpoint(run)


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
