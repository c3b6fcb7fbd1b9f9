"""The training loop: step-based, on Lightning Fabric, resumed exactly.

`fit` trains until the last step, through any number of interruptions: called again on the same run it takes up the
newest sound checkpoint, in mid-epoch, and the steps that follow are those of a run that never stopped. Fabric gives the
device, precision and data parallelism; the loop is our own because resuming has to replay no batch and skip none.

The gradient of a step is that of the mean loss over all targets of its batch, however the batch is cut into
micro-batches or spread over processes. Leaves out what is learned (`objectives`) and from what (`data`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from utils.core import repro
from utils.core.checkpoints import Checkpoint
from utils.core.device import Compute, choose, keep_freed_memory, make_fabric
from utils.core.run import Run, RunError
from utils.core.tracking import Tracking
from utils.training.callbacks import Interrupts, Sampler, progress_bar
from utils.training.config import TrainConfig
from utils.training.evaluate import Data, evaluate
from utils.training.objectives import IGNORED, Batch, Objective, count_targets, micro_batches, shard
from utils.training.optim import learning_rate, make_optimizer
from utils.training.result import Result
from utils.training.saver import Saver
from utils.training.speed import Speed
from utils.training.state import Progress, TrainState

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)


class NonFiniteError(RunError):
    """The loss or the gradient is NaN or infinite; the weights are as before the step."""


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
) -> Result:
    """Train `model` in place until `config` says it is done, or take up where `run` stopped.

    `sample(model, step)` gives a text to print every `config.sample_every` steps. A branch starts from the state in
    `parent`. Raises `NonFiniteError` before a step that would spoil the weights, and `RunError` where the run was
    trained with other settings or other data.
    """
    compute = choose(config.device, config.precision)
    fabric = fabric or make_fabric(compute)
    with contextlib.ExitStack() as stack:
        if fabric.is_global_zero:
            stack.enter_context(run.locked())
        session = _Session(model, objective, data, run, config, compute, fabric)
        interrupts = stack.enter_context(Interrupts())
        newest = session.saver.newest()
        if newest is not None:
            session.state.restore(newest.load())
        elif parent is not None:
            session.state.branch_from(parent.load(), session.total)
        session.weights_step = session.progress.step
        if session.progress.finished:
            log.info("%s is done (%s): nothing is trained again.", run.path.name, session.progress.finished)
        else:
            session.train(sample, interrupts, stack, fresh=newest is None)
        if session.progress.finished:
            session.keep_best_weights()
        fabric.barrier()  # the first process may still be writing
    interrupts.deliver()
    return Result(run, session.progress, session.weights_step, session.validation)


class _Session:
    """One process's part in a run, from taking it up to stopping."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        data: Data,
        run: Run,
        config: TrainConfig,
        compute: Compute,
        fabric: Fabric,
    ):
        self.model, self.objective, self.data, self.run, self.config = model, objective, data, run, config
        self.compute, self.fabric = compute, fabric
        self.validation: dict[str, float] = {}
        self.evaluated_at = -1
        self.weights_step = 0
        self.saver = Saver(run, config, fabric)
        self.total = config.max_steps or sum(
            data.train.num_batches(config.batch_size, seed=config.seed, epoch=epoch)
            for epoch in range(config.max_epochs)
        )
        if compute.device.type == "cpu":
            keep_freed_memory()
        repro.seed_everything(config.seed + fabric.global_rank, deterministic=config.deterministic)
        self.optimizer = make_optimizer(model, config, compute.device, compute.precision)
        compiled = torch.compile(model) if config.compile else model
        # The wrapped pair takes the training steps; evaluation, sampling and checkpoints use the model itself.
        self.train_model, self.train_optimizer = fabric.setup(compiled, self.optimizer)
        self.state = TrainState(model, self.optimizer, fabric, config, data.fingerprint)

    @property
    def progress(self) -> Progress:
        return self.state.progress

    # Training

    def train(
        self, sample: Sampler | None, interrupts: Interrupts, stack: contextlib.ExitStack, *, fresh: bool
    ) -> None:
        """Step until the end or an interrupt. A fresh run is saved as it is first, so that it always has a way back."""
        config, progress, main = self.config, self.progress, self.fabric.is_global_zero
        tracking = None
        if main:
            self.run.begin_session(
                progress.step, seed=config.seed, device=str(self.compute.device), precision=self.compute.precision,
                processes=self.fabric.world_size,
            )  # fmt: skip
            tracking = Tracking(self.run, config.trackers)
            stack.callback(tracking.close)
            log.info("%s from step %d of %d on %s", self.run.path.name, progress.step, self.total, self.compute)
        bar = stack.enter_context(contextlib.closing(progress_bar(self.total, progress.step, disable=not main)))
        speed = Speed(self.model, self.objective, self.data.train, config, self.fabric) if main else None
        if fresh:
            self._checkpoint(wanted=True, final=False)
        self.train_model.train()
        for batch in self._batches():
            rate = learning_rate(progress.step, self.total, config)
            start = time.perf_counter()
            metrics, stop = self._step(batch, rate, interrupts)
            seconds = time.perf_counter() - start
            last = progress.step == self.total
            if last:
                progress.finished = f"complete after {progress.step} steps"
            if main:
                speed.add(batch, seconds)
            if main and (progress.step % config.log_every == 0 or progress.step == 1 or last):
                metrics |= {"lr": rate, "epoch": progress.epoch, **speed.take()}
                tracking.log(progress.step, {f"train/{name}": value for name, value in metrics.items()})
                bar.set_postfix_str(self._postfix(metrics), refresh=False)
            bar.update()
            improved = False
            if progress.step % config.eval_every == 0 or last:
                improved = self._evaluate(tracking)
            if main and sample and config.sample_every and (progress.step % config.sample_every == 0 or last):
                with repro.preserved_rng():
                    bar.write(f"step {progress.step}:\n{sample(self.model, progress.step)}\n")
            self._checkpoint(wanted=improved, final=stop or bool(progress.finished))
            if stop and main and not progress.finished:
                log.info("Interrupted; saved after step %d. Run the same again to go on from there.", progress.step)
            if progress.finished or stop:
                break

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """Global batches from where training stands, epoch after epoch; each counts as done once it is handed out."""
        config, progress = self.config, self.progress
        while True:
            for batch in self.data.train.batches(
                config.batch_size, seed=config.seed, epoch=progress.epoch, start=progress.batch
            ):
                progress.batch += 1
                yield batch
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def _step(self, batch: Batch, rate: float, interrupts: Interrupts) -> tuple[dict[str, float], bool]:
        """One update from one global batch. Returns its mean metrics, and whether any process was told to stop."""
        total = count_targets(batch)
        if total == 0:
            raise ValueError(f"{self._where()} has no targets: every label is {IGNORED}.")
        own = shard(batch, self.fabric.global_rank, self.fabric.world_size)
        parts = micro_batches(own, self.config.micro_batch_size)
        sums: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            weight = count_targets(part) / total
            part = self.fabric.to_device(part)
            waiting = index < len(parts) - 1
            with self.fabric.no_backward_sync(self.train_model, enabled=waiting):
                means = self.objective(self.train_model, part, self.progress.step)
                # Processes average their gradients, so each weights its share by their number.
                self.fabric.backward(means["loss"] * (weight * self.fabric.world_size))
            for name, value in means.items():
                sums[name] = sums.get(name, 0.0) + value.detach() * weight
        told = torch.tensor(float(interrupts.received is not None), device=self.fabric.device)
        values = torch.stack([*map(torch.as_tensor, sums.values()), told])
        values = self.fabric.all_reduce(values, reduce_op="sum")
        norm = self._clip()
        *means, stops, norm = torch.cat((values, norm.reshape(1))).tolist()  # the step's one wait for the device
        metrics = {**dict(zip(sums, means)), "grad_norm": norm}
        scaled = self.compute.precision == "fp16"  # an infinite norm is then the scaler's to answer: it skips the step
        if not math.isfinite(metrics["loss"]) or not (scaled or math.isfinite(norm)):
            self.optimizer.zero_grad()
            raise NonFiniteError(
                f"Loss {metrics['loss']} and gradient norm {norm} before step {self.progress.step + 1}, in"
                f" {self._where()}. The weights are those of step {self.progress.step}. See the batch with"
                f" next(data.train.batches({self.config.batch_size}, seed={self.config.seed},"
                f" epoch={self.progress.epoch}, start={self.progress.batch - 1}));"
                " a lower train.lr or fp32 often helps."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.train_optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        self.progress.targets += total
        self.weights_step = self.progress.step
        return metrics, stops > 0

    def _clip(self) -> Tensor:
        """Clip the gradients; their norm before it."""
        limit = self.config.max_grad_norm or math.inf
        return self.fabric.clip_gradients(
            self.train_model, self.train_optimizer, max_norm=limit, error_if_nonfinite=False
        )

    def _where(self) -> str:
        return f"batch {self.progress.batch - 1} of epoch {self.progress.epoch}"

    def _postfix(self, metrics: dict[str, float]) -> str:
        best = f" | best val {self.progress.best:.3f}" if self.progress.best < math.inf else ""
        unit = "tokens" if "tokens_per_second" in metrics else "rows"
        speed = f"{metrics[f'{unit}_per_second']:,.0f} {unit}/s | MFU {metrics['mfu']:.0%}"
        return f"loss {metrics['loss']:.3f}{best} | {speed}"

    # Evaluation

    def _evaluate(self, tracking: Tracking | None) -> bool:
        """Evaluate, log, count towards early stopping. Returns whether this is among the best kept."""
        progress, config = self.progress, self.config
        self.validation = evaluate(self.model, self.objective, self.data.validation, config, fabric=self.fabric)
        self.evaluated_at = progress.step
        loss = self.validation["loss"]
        if tracking is not None:
            tracking.log(progress.step, {f"validation/{name}": value for name, value in self.validation.items()})
        if loss < progress.best:
            progress.best, progress.best_step = loss, progress.step
        if loss < progress.improved_from - config.min_delta:
            progress.improved_from, progress.evaluations_since = loss, 0
        else:
            progress.evaluations_since += 1
            if config.patience and progress.evaluations_since >= config.patience and not progress.finished:
                progress.finished = f"stopped early after {progress.step} steps"
        return self.saver.among_best(loss)

    # Checkpoints

    def _checkpoint(self, wanted: bool, final: bool) -> None:
        """Write one where it is wanted or due."""
        step = self.progress.step
        if self.saver.due(step, wanted=wanted or final):
            judged = self.evaluated_at == step and math.isfinite(self.validation["loss"])
            self.saver.save(step, self.state.capture(), self.validation["loss"] if judged else None, final=final)

    def keep_best_weights(self) -> None:
        """Leave the weights of the best evaluation in the model, if the config says so."""
        best = self.saver.best() if self.config.restore_best else None
        if best is not None and best.step != self.weights_step:
            self.model.load_state_dict(best.load()["model"])
            self.weights_step = best.step
