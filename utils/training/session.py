"""`Session`: one process's part in a run of training, from taking it up to stopping: the order of things.

Leaves out what a step is (`training.step`), an evaluation (`training.evaluations`), and what is told of both
(`training.journal`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from utils.core import repro
from utils.core.device import Compute, keep_freed_memory
from utils.core.run import Run
from utils.training.budget import Budget
from utils.training.callbacks import Interrupts, Sampler
from utils.training.config import TrainConfig
from utils.training.ema import Average
from utils.training.evaluate import Data
from utils.training.evaluations import Evaluations
from utils.training.failing import Place
from utils.training.journal import Journal
from utils.training.memory import Rows, device_name
from utils.training.objectives import Batch, Objective, count_targets
from utils.training.optim import learning_rate, make_optimizer
from utils.training.saver import Saver
from utils.training.speed import Speed
from utils.training.state import Progress, TrainState
from utils.training.step import NonFiniteError, Stepper

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)


class Session:
    """What `fit` drives."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        data: Data,
        run: Run,
        config: TrainConfig,
        compute: Compute,
        fabric: Fabric,
        budget: Budget,
    ):
        self.model, self.objective, self.data, self.run, self.config = model, objective, data, run, config
        self.compute, self.fabric, self.budget = compute, fabric, budget
        self.stopped = ""
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
        self.average = None if config.ema_decay is None else Average(model, config.ema_decay, fabric.device)
        # The wrapped pair takes the training steps; evaluation, sampling and checkpoints use the model itself, or its
        # average where there is one.
        wrapped = fabric.setup(compiled, self.optimizer)
        self.train_model = wrapped[0]
        self.rows = Rows(config.micro_batch_size, "a training step", processes=fabric.world_size)
        self.evaluations = Evaluations(objective, data, config, fabric)
        self.stepper = Stepper(
            model, self.optimizer, wrapped, objective, config, self.rows, fabric, scaled=compute.precision == "fp16"
        )
        self.state = TrainState(model, self.optimizer, fabric, config, data.fingerprint, average=self.average)
        self.journal = Journal(run, config, self.state, self.total, main=fabric.is_global_zero)

    @property
    def progress(self) -> Progress:
        return self.state.progress

    @property
    def judged(self) -> nn.Module:
        """What is evaluated and sampled from: the model, or the average of its weights."""
        return self.model if self.average is None else self.average.model

    def remember_rows(self) -> None:
        """Begin with the rows a pass that an earlier session came to on such a device."""
        if self.progress.rows_device == device_name(self.fabric.device):
            self.rows.lower(self.progress.rows)
            self.evaluations.rows.lower(self.progress.eval_rows)

    # Training

    def train(
        self,
        sample: Sampler | None,
        on_evaluation: Callable[[int, dict[str, float]], None] | None,
        interrupts: Interrupts,
        stack: contextlib.ExitStack,
        *,
        fresh: bool,
    ) -> None:
        """Step until the end or an interrupt. A fresh run is saved as it is first, so that it always has a way back."""
        config, progress, main, journal = self.config, self.progress, self.fabric.is_global_zero, self.journal
        journal.begin(
            stack, seed=config.seed, device=str(self.compute.device), precision=self.compute.precision,
            processes=self.fabric.world_size, micro_batch_size=self.rows.most,
        )  # fmt: skip
        journal.watch(self.model, self.optimizer)
        journal.uses(self.data)
        if main:
            log.info("%s from step %d of %d on %s", self.run.path.name, progress.step, self.total, self.compute)
        speed = Speed(self.model, self.objective, self.data.train, config, self.fabric) if main else None
        if fresh:
            with self.budget.timing("checkpoint"):
                self._save(final=False)
        self.train_model.train()
        for batch in self._batches():
            rate = learning_rate(progress.step, self.total, config)
            start = time.perf_counter()
            with self.budget.timing("step"):
                metrics, stop = self._step(batch, rate, interrupts)
            seconds = time.perf_counter() - start
            last = progress.step == self.total
            if last:
                progress.finished = f"complete after {progress.step} steps"
            if main:
                speed.add(batch, seconds)
            logged = main and (progress.step % config.log_every == 0 or progress.step == 1 or last)
            if logged:
                if self.rows.halved:
                    metrics["micro_batch_size"] = self.rows.most
                metrics |= {"lr": rate, "epoch": progress.epoch, **speed.take()}
            journal.step(metrics if logged else None)
            improved, evaluated = False, progress.step % config.eval_every == 0 or last
            if evaluated:
                with self.budget.timing("evaluation"):
                    improved = self._evaluate()
                if main and on_evaluation:
                    on_evaluation(progress.step, dict(self.evaluations.metrics))
            if main and sample and self._sampled(evaluated):
                with self.budget.timing("sample"):
                    journal.sample(sample, self.judged)
            due = self.saver.due(progress.step, wanted=improved or stop or bool(progress.finished))
            if stop:
                self.stopped = "interrupted"
            elif self._out_of_time(due):
                stop, self.stopped = True, f"stopped for train.max_hours {self.budget.asked:g}"
            if due or stop:
                with self.budget.timing("checkpoint"):
                    self._save(final=stop or bool(progress.finished))
            if stop and main and not progress.finished:
                log.info(
                    "%s; saved after step %d. Run the same again to go on from there.",
                    self.stopped.capitalize(), progress.step,
                )  # fmt: skip
            if progress.finished or stop:
                journal.close(progress.finished or self.stopped)
                break

    def _sampled(self, evaluated: bool) -> bool:
        """Whether a sample is printed after this step: with each evaluation, or at steps of their own."""
        every, step = self.config.sample_every, self.progress.step
        return evaluated if every is None else every > 0 and (step % every == 0 or step == self.total)

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
        progress, config = self.progress, self.config
        number = progress.batch - 1
        call = (
            f"next(data.train.batches({config.batch_size}, seed={config.seed}, epoch={progress.epoch}, start={number}))"
        )
        place = Place(number, progress.epoch, call)
        try:
            told = self.stepper.step(batch, progress.step, rate, place, lambda: interrupts.received is not None)
        except NonFiniteError as error:
            self.journal.not_finite(error)
            raise
        if self.average is not None:
            self.average.update(self.model)
        progress.step += 1
        progress.targets += count_targets(batch)
        self.weights_step = progress.step
        return told

    def _out_of_time(self, due: bool) -> bool:
        """Whether another step, evaluation and checkpoint would go beyond `max_hours`: the first process's clock says.

        `due`: a checkpoint is about to be written, too. Until an evaluation has been measured, a row in it is taken to
        cost what it does in training.
        """
        if not self.budget.limited or self.progress.finished:
            return False
        seconds = self.budget.longest["step"] * self.fabric.world_size / self.config.batch_size  # a row
        rows = self.evaluations.batches * self.config.eval_rows
        self.budget.guess("evaluation", rows * seconds)
        more = self.saver.copy_seconds() + (self.budget.longest.get("checkpoint", 0.0) if due else 0.0)
        return self.fabric.broadcast(self.budget.spent(more))

    def _evaluate(self) -> bool:
        """Evaluate, log, count towards early stopping. Returns whether this is among the best kept."""
        metrics = self.evaluations.run(self.judged, self.progress.step)
        self.journal.evaluation(metrics)
        self.evaluations.count(self.progress)
        self.journal.judged()
        return self.saver.among_best(metrics["loss"])

    # Checkpoints

    def _save(self, *, final: bool) -> None:
        self._note_rows()
        step = self.progress.step
        saved = self.saver.save(step, self.state.capture(), self.evaluations.loss_at(step), final=final)
        self.journal.checkpoint(saved)

    def _note_rows(self) -> None:
        progress, evaluated = self.progress, self.evaluations.rows
        if self.rows.halved or evaluated.halved:
            progress.rows = self.rows.most if self.rows.halved else 0
            progress.eval_rows = evaluated.most if evaluated.halved else 0
            progress.rows_device = device_name(self.fabric.device)

    def leave_weights(self) -> None:
        """Leave in the model the weights of the best evaluation, if the config says so, else the last (or averaged)."""
        best = self.saver.best() if self.progress.finished and self.config.restore_best else None
        if best is not None and best.step != self.weights_step:
            self.model.load_state_dict(best.load()["model"])
            self.weights_step = best.step
        elif self.average is not None:
            self.model.load_state_dict(self.average.model.state_dict())
