"""`Evaluations`: those of a session, and what follows from them: the best so far, and when to stop early."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

from torch import nn

from utils.training.config import TrainConfig
from utils.training.evaluate import Data, evaluate, evaluation_rows
from utils.training.objectives import Objective
from utils.training.state import Progress
from utils.training.task_metrics import task_metrics

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Evaluations:
    """`metrics` are those of the last evaluation, after step `at` (-1: none yet)."""

    def __init__(self, objective: Objective, data: Data, config: TrainConfig, fabric: Fabric):
        self.objective, self.data, self.config, self.fabric = objective, data, config, fabric
        self.rows = evaluation_rows()
        self.metrics: dict[str, float] = {}
        self.at = -1

    def run(self, model: nn.Module, step: int) -> dict[str, float]:
        """Evaluate on the validation split: the objective's means, and the metrics of the data's task."""
        data, config = self.data, self.config
        self.metrics = evaluate(model, self.objective, data.validation, config, fabric=self.fabric, limit=self.rows)
        if math.isfinite(self.metrics["loss"]):  # a model of NaN has no answers
            self.metrics |= task_metrics(model, data, config, fabric=self.fabric, limit=self.rows)
        self.at = step
        return self.metrics

    def loss_at(self, step: int) -> float | None:
        """The validation loss of this very step; None where it was not evaluated, or is no finite number."""
        found = self.metrics.get("loss") if self.at == step else None
        return found if found is not None and math.isfinite(found) else None

    def count(self, progress: Progress) -> None:
        """Note the best so far, and count towards early stopping, which finishes the run."""
        loss, config = self.metrics["loss"], self.config
        if loss < progress.best:
            progress.best, progress.best_step = loss, progress.step
        if loss < progress.improved_from - config.min_delta:
            progress.improved_from, progress.evaluations_since = loss, 0
            return
        progress.evaluations_since += 1
        if config.patience and progress.evaluations_since >= config.patience and not progress.finished:
            progress.finished = f"stopped early after {progress.step} steps"

    @cached_property
    def batches(self) -> int:
        """How many batches of an evaluation fall to each process."""
        config = self.config
        batches = self.data.validation.num_batches(config.eval_rows)
        return -(-min(batches, config.eval_batches or batches) // self.fabric.world_size)
