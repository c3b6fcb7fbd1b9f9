"""The PPO loop: rollout, passes over it, evaluation, checkpoints; resumed exactly.

`train_ppo` goes on until the last update, through any number of interruptions: called again on the same run it takes up
the newest sound checkpoint, and the updates that follow are those of a run that never stopped. What an update draws is
a function of the seed, its number and the process. One thing is left to the clock: a program that takes about as long
as the sandbox allows may end in time once and be stopped another time, and then the rewards differ, and all that
follows from them. Leaves out the arithmetic (`rl.ppo`), the drawing (`rl.rollout`) and what a checkpoint holds
(`rl.state`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from utils.core import repro
from utils.core.device import Compute, choose, keep_freed_memory, make_fabric
from utils.core.run import Run, RunError
from utils.core.tracking import Tracking
from utils.rl import ppo
from utils.rl.advantages import trajectories_of
from utils.rl.buffer import Trajectories
from utils.rl.config import PPOConfig
from utils.rl.curriculum import Curriculum
from utils.rl.episodes import episodes_of
from utils.rl.policy import CodePolicy
from utils.rl.reward import RewardConfig
from utils.rl.rollout import Problem, collect
from utils.rl.sandbox import Sandbox
from utils.rl.solve import pass_rates
from utils.rl.state import PPOState, Progress, keep_reference
from utils.training.callbacks import Interrupts, progress_bar
from utils.training.fit import NonFiniteError
from utils.training.optim import learning_rate, make_optimizer
from utils.training.saver import Saver

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
DRAWS, SHUFFLE, ORDER = range(3)  # what the seeds of an update are for


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
            f" {done.best_update}; the policy holds the weights of update {self.weights_update}."
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>"


@dataclass(frozen=True)
class Game:
    """What the policy plays against: problems, how its texts are read as programs, where they run, what they earn."""

    train: Sequence[Problem]
    validation: Sequence[Problem]
    read: Callable[[str], str]
    sandbox: Sandbox
    """open; each process has its own"""
    reward: RewardConfig
    fingerprint: str
    """of the problems"""


def train_ppo(
    policy: CodePolicy,
    reference: nn.Module,
    game: Game,
    run: Run,
    config: PPOConfig,
    *,
    watch: Callable[[int], str] | None = None,
    fabric: Fabric | None = None,
) -> Result:
    """Train `policy` in place until `config` says it is done, or take up where `run` stopped.

    `reference` is what the KL penalty holds it to (`rl.reference`); a run that is taken up puts into it the weights
    that it had at first. `watch(update)` gives a text to print after each evaluation. Raises `NonFiniteError` before a
    step that would spoil the weights, and `RunError` where the run was trained with other settings or other tasks.
    """
    compute = choose(config.device, config.precision)
    fabric = fabric or make_fabric(compute)
    with contextlib.ExitStack() as stack:
        if fabric.is_global_zero:
            stack.enter_context(run.locked())
        session = _Session(policy, reference, game, run, config, compute, fabric)
        interrupts = stack.enter_context(Interrupts())
        newest = session.saver.newest()
        if newest is not None:
            session.state.restore(newest.load())
        session.weights_update = session.progress.update
        if session.progress.finished:
            log.info("%s is done (%s): nothing is trained again.", run.path.name, session.progress.finished)
        else:
            session.train(watch, interrupts, stack, fresh=newest is None)
        if session.progress.finished:
            session.keep_best_weights()
        fabric.barrier()  # the first process may still be writing
    interrupts.deliver()
    return Result(run, session.progress, session.weights_update, session.validation)


class _Session:
    """One process's part in a run, from taking it up to stopping."""

    def __init__(
        self,
        policy: CodePolicy,
        reference: nn.Module,
        game: Game,
        run: Run,
        config: PPOConfig,
        compute: Compute,
        fabric: Fabric,
    ):
        self.policy, self.game, self.run, self.config = policy, game, run, config
        self.compute, self.fabric = compute, fabric
        self.validation: dict[str, float] = {}
        self.evaluated_at, self.weights_update = -1, 0
        if config.prompts % (fabric.world_size * config.minibatches):
            raise RunError(
                f"{config.prompts} prompts cannot be cut into {config.minibatches} minibatches of equally many for each"
                f" of {fabric.world_size} processes; change ppo.prompts or ppo.minibatches."
            )
        self.saver = Saver(run, config, fabric, unit="update")
        if compute.device.type == "cpu":
            keep_freed_memory()
        repro.seed_everything(config.seed + fabric.global_rank)
        optimizer = make_optimizer(policy, config, compute.device, compute.precision)
        # The wrapped pair takes the training steps; sampling, evaluation and checkpoints use the policy itself.
        self.train_policy, self.train_optimizer = fabric.setup(policy, optimizer)
        self.reference = reference.to(fabric.device)
        self.state = PPOState(
            policy, optimizer, fabric, config, game, Curriculum([one.level for one in game.train], seed=config.seed),
            ppo.KLController(config.kl_coefficient, config.kl_target),
        )  # fmt: skip

    @property
    def progress(self) -> Progress:
        return self.state.progress

    def seed(self, purpose: int) -> int:
        """A seed for one purpose of the update under way, in this process."""
        entropy = (self.config.seed, purpose, self.progress.update, self.fabric.global_rank)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    # Training

    def train(
        self,
        watch: Callable[[int], str] | None,
        interrupts: Interrupts,
        stack: contextlib.ExitStack,
        *,
        fresh: bool,
    ) -> None:
        """Update until the end or an interrupt. A fresh run is evaluated and saved as it is first."""
        config, progress, main = self.config, self.progress, self.fabric.is_global_zero
        keep_reference(self.reference, self.run, self.fabric, fresh=fresh)
        tracking = None
        if main:
            self.run.begin_session(
                progress.update, seed=config.seed, device=str(self.compute.device), precision=self.compute.precision,
                processes=self.fabric.world_size, sandbox=self.game.sandbox.levels,
            )  # fmt: skip
            tracking = stack.enter_context(Tracking(self.run, config.trackers))
            log.info("%s from update %d of %d on %s", self.run.path.name, progress.update, config.updates, self.compute)
        bar = stack.enter_context(
            contextlib.closing(progress_bar(config.updates, progress.update, unit="update", disable=not main))
        )
        if fresh:
            self._evaluate(tracking)
            if not config.updates:
                progress.finished = "complete after 0 updates"
            self._checkpoint(wanted=True, final=bool(progress.finished))
        self.train_policy.train()
        while not progress.finished:
            metrics = self._update()
            last = progress.update == config.updates
            if last:
                progress.finished = f"complete after {progress.update} updates"
            if main and (progress.update % config.log_every == 0 or last):
                tracking.log(progress.update, {f"train/{name}": value for name, value in metrics.items()})
                bar.set_postfix_str(self._postfix(metrics), refresh=False)
            bar.update()
            judged = progress.update % config.eval_every == 0 or last
            improved = judged and self._evaluate(tracking)
            if judged and main and watch:
                with repro.preserved_rng():
                    bar.write(f"update {progress.update}: {watch(progress.update)}")
            (told,) = self._sum(float(interrupts.received is not None))
            stop = told > 0  # any process was
            self._checkpoint(wanted=improved, final=stop or bool(progress.finished))
            if stop and main and not progress.finished:
                log.info("Interrupted; saved after update %d. Run the same again to go on.", progress.update)
            if stop:
                break

    def _update(self) -> dict[str, float]:
        """One rollout and the passes over it (algorithm 1). Returns what there is to log."""
        config, progress, state, fabric = self.config, self.progress, self.state, self.fabric
        begun = time.perf_counter()
        shares = state.curriculum.shares()
        drawn = state.curriculum.draw(config.prompts, step=progress.update)
        problems = [self.game.train[at] for at in drawn[fabric.global_rank :: fabric.world_size]]
        rollout = collect(
            self.policy, problems, config.samples, config.sample, read=self.game.read, sandbox=self.game.sandbox,
            reward=self.game.reward, fabric=fabric, seed=self.seed(DRAWS),
        )  # fmt: skip
        episodes = episodes_of(rollout, fabric)
        trajectories, told = trajectories_of(
            rollout, self.policy, self.reference, config, coefficient=state.controller.coefficient, fabric=fabric,
            seed=self.seed(SHUFFLE), exact=self.compute.precision == "fp32",
        )  # fmt: skip
        collected = time.perf_counter()
        rate = learning_rate(progress.update, config.updates, config)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        metrics = {**episodes.metrics(), **told, **self._passes(trajectories)}
        metrics |= {"lr": rate, "kl_coefficient": state.controller.coefficient}
        state.controller = state.controller.update(told["kl"], len(episodes.scored))
        state.curriculum.update(episodes.levels, episodes.passed.mean(1))
        progress.update += 1
        progress.episodes += len(episodes.scored)
        self.weights_update = progress.update
        speed, restarts = self._sum(len(rollout.programs) / rollout.judge_seconds, rollout.restarts)
        return {
            **metrics,
            "episodes": progress.episodes,
            **{f"level{name}/share": share for name, share in shares.items()},
            "programs_per_second": speed,
            "sandbox_restarts": restarts,
            "rollout_seconds": collected - begun,
            "passes_seconds": time.perf_counter() - collected,
        }

    def _passes(self, trajectories: Trajectories) -> dict[str, float]:
        update = self.progress.update + 1
        try:
            told = ppo.optimise(
                self.train_policy, self.train_optimizer, trajectories, self.config, fabric=self.fabric,
                generator=torch.Generator().manual_seed(self.seed(ORDER)),
            )  # fmt: skip
        except NonFiniteError as error:
            raise NonFiniteError(
                f"Update {update} of {self.run.path.name} stopped: {error}. The weights are as that minibatch found"
                " them; the same train_ppo again starts from the newest checkpoint. A lower ppo.lr or fp32 often helps."
            ) from None
        if not told["minibatches"]:
            log.warning(
                "Update %d learned nothing: its first minibatch is %.3f nats a token from the policy that drew it, more"
                " than ppo.stop_kl. Raise it, or take dropout or rounding (fp32) away.", update, told["approx_kl"],
            )  # fmt: skip
        return told

    def _sum(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        return self.fabric.all_reduce(torch.tensor(values, device=self.fabric.device), reduce_op="sum").tolist()

    def _postfix(self, metrics: dict[str, float]) -> str:
        best = f" | best val {self.progress.best:.1%}" if self.progress.best >= 0 else ""
        return f"pass@1 {metrics['pass@1']:.1%}{best} | KL {metrics['kl']:.2f}"

    # Evaluation

    def _evaluate(self, tracking: Tracking | None) -> bool:
        """Evaluate, log, count towards early stopping. Returns whether this is among the best kept."""
        config, progress = self.config, self.progress
        self.validation = pass_rates(
            self.policy, self.game.validation[: config.eval_tasks], config.eval_samples, config.sample, game=self.game,
            fabric=self.fabric, seed=config.seed,
        )  # fmt: skip
        self.evaluated_at = progress.update
        if tracking is not None:
            tracking.log(progress.update, {f"validation/{name}": value for name, value in self.validation.items()})
        rate = self.validation["pass@1"]
        progress.evaluations_since = 0 if rate > progress.best else progress.evaluations_since + 1
        if rate >= progress.best:
            progress.best, progress.best_update = rate, progress.update
        if config.patience and progress.evaluations_since >= config.patience and not progress.finished:
            progress.finished = f"stopped early after {progress.update} updates"
        return self.saver.among_best(-rate)

    # Checkpoints

    def _checkpoint(self, wanted: bool, final: bool) -> None:
        """Write one where it is wanted or due."""
        update = self.progress.update
        if self.saver.due(update, wanted=wanted or final):
            metric = -self.validation["pass@1"] if self.evaluated_at == update else None
            self.saver.save(update, self.state.capture(), metric, final=final)

    def keep_best_weights(self) -> None:
        """Leave the weights of the best evaluation in the policy, if the config says so."""
        best = self.saver.best() if self.config.restore_best else None
        if best is not None and best.step != self.weights_update:
            self.policy.load_state_dict(best.load()["policy"])
            self.weights_update = best.step
