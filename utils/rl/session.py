"""One session of the PPO loop: updates, evaluations, checkpoints, from where a run stands to where it stops.

Leaves out the update (`rl.update`), what a checkpoint holds (`rl.state`), and when a session begins (`rl.loop`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from utils.core import repro
from utils.core.device import Compute, keep_freed_memory
from utils.core.run import Run, RunError
from utils.core.tracking import Tracking
from utils.rl.config import PPOConfig
from utils.rl.curriculum import Curriculum
from utils.rl.evaluate import pass_rates
from utils.rl.game import Game
from utils.rl.policy import CodePolicy
from utils.rl.ppo import KLController
from utils.rl.recipe import keep_updates
from utils.rl.reference import Reference, keep_reference
from utils.rl.state import PPOState, Progress
from utils.rl.update import summed, update
from utils.training.callbacks import Interrupts, progress_bar
from utils.training.fit import NonFiniteError
from utils.training.optim import make_optimizer
from utils.training.saver import Saver

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
COMPLETE = "complete after"


class Session:
    """One process's part in a run, from taking it up to stopping."""

    def __init__(
        self,
        policy: CodePolicy,
        reference: Reference,
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
        self.learner = fabric.setup(policy, optimizer)
        self.reference = reference.to(fabric.device)
        self.state = PPOState(
            policy, optimizer, fabric, config, game, Curriculum([one.level for one in game.train], seed=config.seed),
            KLController(config.kl_coefficient, config.kl_target),
        )  # fmt: skip

    @property
    def progress(self) -> Progress:
        return self.state.progress

    def take_up(self, state: dict) -> None:
        """Go on from a checkpoint; from that of a run that was complete, where `config` asks for more updates."""
        self.state.restore(state)
        progress, asked = self.progress, self.config.updates
        if progress.update > asked:
            raise RunError(
                f"{self.run.path.name} was trained for {progress.update} updates, and ppo.updates is {asked}. Raise it"
                f" to at least {progress.update}, or start a new run (resume=never)."
            )
        if progress.finished.startswith(COMPLETE) and progress.update < asked:
            log.info("%s goes on: %s, and ppo.updates is %d.", self.run.path.name, progress.finished, asked)
            progress.finished = ""

    # Training

    def train(
        self,
        watch: Callable[[int], str] | None,
        interrupts: Interrupts,
        stack: contextlib.ExitStack,
        *,
        fresh: bool,
    ) -> None:
        """Update until the end or an interrupt. A fresh run is evaluated and saved as it is first, and so is one that
        stands where it is now to end."""
        config, progress, main = self.config, self.progress, self.fabric.is_global_zero
        keep_reference(self.reference, self.run, self.fabric, fresh=fresh)
        tracking = None
        if main:
            self.run.begin_session(
                progress.update, seed=config.seed, updates=config.updates, device=str(self.compute.device),
                precision=self.compute.precision, processes=self.fabric.world_size, sandbox=self.game.sandbox.levels,
                **keep_updates(self.run, config.updates),
            )  # fmt: skip
            tracking = stack.enter_context(Tracking(self.run, config.trackers))
            log.info("%s from update %d of %d on %s", self.run.path.name, progress.update, config.updates, self.compute)
        bar = stack.enter_context(
            contextlib.closing(progress_bar(config.updates, progress.update, unit="update", disable=not main))
        )
        ended = progress.update == config.updates
        if fresh or ended:
            self._evaluate(tracking)
            if ended:
                progress.finished = f"{COMPLETE} {progress.update} updates"
            self._checkpoint(wanted=True, final=bool(progress.finished))
        self.learner[0].train()
        while not progress.finished:
            metrics = self._update()
            last = progress.update == config.updates
            if last:
                progress.finished = f"{COMPLETE} {progress.update} updates"
            if main and (progress.update % config.log_every == 0 or last):
                tracking.log(progress.update, {f"train/{name}": value for name, value in metrics.items()})
                bar.set_postfix_str(self._postfix(metrics), refresh=False)
            bar.update()
            judged = progress.update % config.eval_every == 0 or last
            improved = judged and self._evaluate(tracking)
            if judged and main and watch:
                with repro.preserved_rng():
                    bar.write(f"update {progress.update}: {watch(progress.update)}")
            (told,) = summed(self.fabric, float(interrupts.received is not None))
            stop = told > 0  # any process was
            self._checkpoint(wanted=improved, final=stop or bool(progress.finished))
            if stop and main and not progress.finished:
                log.info("Interrupted; saved after update %d. Run the same again to go on.", progress.update)
            if stop:
                break
        if main:
            tracking.close(progress.finished or f"interrupted after {progress.update} updates")

    def _update(self) -> dict[str, float]:
        try:
            metrics = update(self.state, self.learner, self.reference, exact=self.compute.precision == "fp32")
        except NonFiniteError as error:
            raise NonFiniteError(f"{self.run.path.name}: {error}") from None
        self.weights_update = self.progress.update
        return metrics

    def _postfix(self, metrics: dict[str, float]) -> str:
        best = f" | best val {self.progress.best:.1%}" if self.progress.best >= 0 else ""
        return f"pass@1 {metrics['pass@1']:.1%}{best} | KL {metrics['kl']:.2f}"

    # Evaluation

    def _evaluate(self, tracking: Tracking | None) -> bool:
        """Evaluate, log, count towards early stopping. Returns whether this is among the best kept."""
        config, progress = self.config, self.progress
        self.validation = pass_rates(
            self.policy, self.game.validation[: config.eval_tasks], config.eval_samples, config.sample, game=self.game,
            fabric=self.fabric, seed=config.seed, at_once=config.sample_batch,
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
        number = self.progress.update
        if self.saver.due(number, wanted=wanted or final):
            metric = -self.validation["pass@1"] if self.evaluated_at == number else None
            self.saver.save(number, self.state.capture(), metric, final=final)

    def keep_best_weights(self) -> None:
        """Leave the weights of the best evaluation in the policy, if the config says so."""
        best = self.saver.best() if self.config.restore_best else None
        if best is not None and best.step != self.weights_update:
            self.policy.load_state_dict(best.load()["policy"])
            self.weights_update = best.step
