"""The PPO loop: a run trained to its end, through any number of sessions; resumed exactly.

`train_ppo` goes on until the last update, through any number of interruptions: called again on the same run it takes up
the newest sound checkpoint, and the updates that follow are those of a run that never stopped. One thing is left to the
clock: a program that takes about as long as the sandbox allows may end in time once and be stopped another time, and
then the rewards differ, and all that follows from them. Leaves out what a session does (`rl.session`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from utils.core.device import choose, make_fabric
from utils.core.run import Run
from utils.rl.config import PPOConfig
from utils.rl.course import course_of
from utils.rl.game import Game
from utils.rl.policy import CodePolicy
from utils.rl.reference import Reference
from utils.rl.session import Session
from utils.rl.state import Progress
from utils.training.callbacks import Interrupts

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Game", "Result", "train_ppo"]
log = logging.getLogger(__name__)


@dataclass
class Result:
    """What `train_ppo` leaves. `weights_update` is the update whose weights the policy holds."""

    run: Run
    progress: Progress
    weights_update: int
    validation: dict[str, float] = field(default_factory=dict)
    """rates of the last evaluation of this session; empty where the run was complete already"""

    def __str__(self) -> str:
        done = self.progress
        state = done.finished or f"interrupted after {done.update} updates"
        return (
            f"{state}, {done.episodes:,} programs drawn. Best validation pass@1 {done.best:.1%} at update"
            f" {done.best_update}{course_of(self.run).caveat}; the policy holds the weights of update"
            f" {self.weights_update}."
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>"


def train_ppo(
    policy: CodePolicy,
    reference: Reference,
    game: Game,
    run: Run,
    config: PPOConfig,
    *,
    watch: Callable[[int], str] | None = None,
    fabric: Fabric | None = None,
) -> Result:
    """Train `policy` in place until `config` says it is done, or take up where `run` stopped.

    `reference` is what the KL penalty holds it to (`rl.reference`); a run that is taken up puts into it the weights
    that it had at first. A fresh run of a policy that was trained before begins with the weights that are in the
    reference, as the first one did. `watch(update)` gives a text to print after each evaluation. Raises
    `NonFiniteError` before a step that would spoil the weights, and `RunError` where the run was trained with other
    settings or other tasks, or for more updates than `config` asks for.
    """
    compute = choose(config.device, config.precision)
    fabric = fabric or make_fabric(compute)
    with contextlib.ExitStack() as stack:
        if fabric.is_global_zero:
            stack.enter_context(run.locked())
        session = Session(policy, reference, game, run, config, compute, fabric)
        interrupts = stack.enter_context(Interrupts())
        newest = session.saver.newest()
        if newest is not None:
            session.take_up(newest.load())
        elif policy.start:
            log.info("The policy was trained before: it begins again with the weights that it was trained from.")
            policy.start[0].put_back()
        policy.start = policy.start or (session.reference,)
        session.weights_update = session.progress.update
        if session.progress.finished:
            log.info("%s is done (%s): nothing is trained again.", run.path.name, session.progress.finished)
        else:
            session.train(watch, interrupts, stack, fresh=newest is None)
        if session.progress.finished:
            session.keep_best_weights()
        session.saver.settle(done=bool(session.progress.finished))
        fabric.barrier()  # the first process may still be writing
    interrupts.deliver()
    return Result(run, session.progress, session.weights_update, session.validation)
