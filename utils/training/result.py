"""What `fit` leaves: the run, how far it came, and which weights the model holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from utils.core.run import Run
from utils.training.state import Progress


@dataclass
class Result:
    """What `fit` leaves. `weights_step` is the step whose weights the model holds."""

    run: Run
    progress: Progress
    weights_step: int
    validation: dict[str, float] = field(default_factory=dict)
    """metrics of the last evaluation of this session; empty where the run was complete already"""
    stopped: str = ""
    """why this session ended before the run did"""
    averaged: bool = False
    """whether those weights are the moving average"""

    def __str__(self) -> str:
        done = self.progress
        state = done.finished or f"{self.stopped or 'interrupted'} after {done.step} steps"
        weights = "averaged weights" if self.averaged else "weights"
        epochs = "1 epoch" if done.epoch == 0 else f"{done.epoch + 1} epochs"
        return (
            f"{state}, {epochs} begun, {done.targets:,} targets. Best validation loss {done.best:.4f}"
            f" at step {done.best_step}; the model holds the {weights} of step {self.weights_step}."
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>"
