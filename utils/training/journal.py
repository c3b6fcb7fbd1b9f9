"""`Journal`: what is told of a session while it trains: trackers, progress bar, samples. In the first process alone.

Leaves out what is measured (`training.step`, `training.evaluations`, `training.speed`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from utils.core import repro
from utils.core.checkpoints import Checkpoint
from utils.core.run import Run
from utils.core.tracking import Tracking
from utils.training.callbacks import Sampler, lines_above_bars, progress_bar
from utils.training.config import TrainConfig
from utils.training.evaluate import Data
from utils.training.state import Progress, TrainState


class Journal:
    """Every call does nothing where it is not `main`, the first of several processes."""

    def __init__(self, run: Run, config: TrainConfig, state: TrainState, total: int, *, main: bool):
        self.run, self.config, self.state, self.total, self.main = run, config, state, total, main
        self.tracking: Tracking | None = None
        self._bar: Any = None
        self._metrics: Mapping[str, float] | None = None  # those that the bar shows

    @property
    def progress(self) -> Progress:
        return self.state.progress

    def begin(self, stack: contextlib.ExitStack, **facts: Any) -> None:
        """Note that a process takes the run up, with `facts` of it; what is opened is closed with `stack`."""
        if self.main:
            self.run.begin_session(self.progress.step, **facts)
            self.tracking = stack.enter_context(Tracking(self.run, self.config.trackers))
        bar = progress_bar(self.total, self.progress.step, disable=not self.main)
        self._bar = stack.enter_context(contextlib.closing(bar))
        stack.enter_context(lines_above_bars())

    def uses(self, data: Data) -> None:
        """What is learned from: its fingerprint, what its metadata say (source, sizes), and where its files lie."""
        if self.tracking is None:
            return
        facts = dict(getattr(data, "metadata", {}))
        facts["targets"] = {
            name: split.targets
            for name in ("train", "validation", "test")
            if hasattr(split := getattr(data, name, None), "targets")
        }
        self.tracking.uses(data.fingerprint, facts, folder=getattr(data, "folder", None))

    def watch(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Histograms of gradients, under the names that the model itself gives its parameters."""
        if self.tracking is not None:
            self.tracking.watch(model, optimizer, lambda: self.progress.step + 1)

    def step(self, metrics: Mapping[str, float] | None) -> None:
        """A step is done; its metrics, where they are to be logged."""
        if self.tracking is not None:
            self.tracking.step = self.progress.step  # where a session ends, whether or not its last step was logged
        if self.tracking is not None and metrics is not None:
            self.tracking.log(self.progress.step, {f"train/{name}": value for name, value in metrics.items()})
            self._metrics = metrics
            self._bar.set_postfix_str(self._postfix(metrics), refresh=False)
        self._bar.update()

    def evaluation(self, metrics: Mapping[str, float]) -> None:
        if self.tracking is not None:
            self.tracking.log(self.progress.step, {f"validation/{name}": value for name, value in metrics.items()})

    def judged(self) -> None:
        """The best evaluation so far may be another: the bar shows it."""
        if self._metrics is not None:
            self._bar.set_postfix_str(self._postfix(self._metrics))

    def sample(self, sample: Sampler, model: nn.Module) -> None:
        """Have a text made, print it, and pass it on."""
        if self.tracking is None:
            return
        with repro.preserved_rng():
            text = sample(model, self.progress.step)
        self._bar.write(f"step {self.progress.step}:\n{text}\n")
        self.tracking.sample(self.progress.step, text)

    def checkpoint(self, saved: Checkpoint | None) -> None:
        """One that was written; None where the disk refused. Untrained weights are told nobody."""
        if self.tracking is not None and saved is not None and saved.step:
            self.tracking.checkpoint(saved)

    def not_finite(self, error: Exception) -> None:
        """A loss or gradient that is NaN or infinite, before it is raised: the step is not logged any more."""
        if self.tracking is not None:
            self.tracking.alert("nan", str(error), level="ERROR", step=self.progress.step + 1)

    def close(self, outcome: str) -> None:
        if self._bar is not None:
            self._bar.close()  # what is told from here on stands below it
        if self.tracking is not None:
            self.tracking.close(outcome)

    def _postfix(self, metrics: Mapping[str, float]) -> str:
        best = f" | best val {self.progress.best:.3f}" if self.progress.best < math.inf else ""
        unit = "tokens" if "tokens_per_second" in metrics else "rows"
        used = f" | MFU {metrics['mfu']:.0%}" if "mfu" in metrics else ""
        return f"loss {metrics['loss']:.3f}{best} | {metrics[f'{unit}_per_second']:,.0f} {unit}/s{used}"
