"""The training loop: step-based, on Lightning Fabric, resumed exactly.

`fit` trains until the last step, through any number of interruptions: called again on the same run it takes up the
newest sound checkpoint, in mid-epoch, and the steps that follow are those of a run that never stopped. Fabric gives the
device, precision and data parallelism; the loop is our own because resuming has to replay no batch and skip none.

The gradient of a step is that of the mean loss over all targets of its batch, however the batch is cut into
micro-batches or spread over processes. Leaves out what is learned (`objectives`) and from what (`data`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

from utils.core.checkpoints import Checkpoint
from utils.core.config import ConfigError
from utils.core.device import choose, make_fabric
from utils.core.run import Run
from utils.training.budget import Budget
from utils.training.callbacks import Interrupts, Sampler, before_the_first_step
from utils.training.config import TrainConfig
from utils.training.evaluate import Data
from utils.training.objectives import Objective
from utils.training.recompute import recomputed
from utils.training.result import Result
from utils.training.session import Session
from utils.training.step import NonFiniteError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["NonFiniteError", "fit"]
log = logging.getLogger(__name__)


def fit(
    model: nn.Module,
    objective: Objective,
    data: Data,
    run: Run,
    config: TrainConfig,
    *,
    sample: Sampler | None = None,
    parent: Checkpoint | None = None,
    fabric: Fabric | None = None,
    on_evaluation: Callable[[int, dict[str, float]], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Train `model` in place until `config` says it is done, or take up where `run` stopped.

    `sample(model, step)` gives a text to print, when `config.sample_every` says; `on_evaluation(step, metrics)` is told
    each evaluation, in the first process, and what it raises ends the session (`AskedToStop`: without a failure). A
    branch starts from the state in `parent`. `config.max_hours` are counted from here, by `clock` (seconds), unless a
    `core.deadline` ends before. Raises `NonFiniteError` before a step that would spoil the weights, `RowError` where
    single rows fail, `OutOfMemory` where one row is too much, and `RunError` where the run was trained with other
    settings or other data.
    """
    budget = Budget(config.max_hours, clock)
    compute = choose(config.device, config.precision)
    fabric = fabric or make_fabric(compute)
    with contextlib.ExitStack() as stack:
        if fabric.is_global_zero:
            stack.enter_context(run.locked())
        stack.enter_context(recomputed(model, on=config.gradient_checkpointing))
        with before_the_first_step():
            session = Session(
                model, smoothed(objective, config.label_smoothing), data, run, config, compute, fabric, budget
            )
        interrupts = stack.enter_context(Interrupts())
        newest = session.saver.newest()
        if newest is not None:
            with budget.timing("checkpoint"):  # reading one takes about as long as writing it
                session.state.restore(newest.load())
            session.remember_rows()
        elif parent is not None:
            session.state.branch_from(parent.load(), session.total)
        session.weights_step = session.progress.step
        if session.progress.finished:
            log.info("%s is done (%s): nothing is trained again.", run.path.name, session.progress.finished)
        else:
            session.train(sample, on_evaluation, interrupts, stack, fresh=newest is None)
        session.leave_weights()
        session.saver.settle(done=bool(session.progress.finished))
        fabric.barrier()  # the first process may still be writing
    interrupts.deliver()
    return Result(
        run, session.progress, session.weights_step, session.evaluations.metrics, session.stopped,
        averaged=session.average is not None,
    )  # fmt: skip


def smoothed(objective: Objective, share: float) -> Objective:
    """The objective with its `label_smoothing` set, where a share of it is asked for. Raises ConfigError without it."""
    if not share:
        return objective
    if "label_smoothing" not in inspect.signature(objective).parameters:
        name = getattr(objective, "__name__", type(objective).__name__)
        raise ConfigError(
            f"train.label_smoothing is {share}, and the objective {name} takes no label_smoothing. Set it to 0, or give"
            " the objective that keyword."
        )
    return functools.partial(objective, label_smoothing=share)
