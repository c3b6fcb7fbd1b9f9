"""What a tracker is told, and TensorBoard. Every event but metrics is optional: a tracker takes those it can show."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from utils.core import jsonl

if TYPE_CHECKING:
    import numpy

    from utils.core.alerts import Alert
    from utils.core.checkpoints import Checkpoint
    from utils.core.run import Run

Histogram = tuple["numpy.ndarray", "numpy.ndarray"]  # counts (n) and edges (n + 1)


class Tracker(Protocol):
    """Where a run is shown. It is made for a session as `tracker(run)`, and then shows the run's history so far."""

    rebuilt = False
    """whether one that failed can be made anew from metrics.jsonl, losing nothing"""
    gradients_every: int | None = None
    """steps between histograms of the gradients that it wants; None: none"""

    def log(self, record: Mapping[str, Any]) -> None:
        """`record` holds `step`, `time` (seconds since the epoch) and numbers by name."""

    def sample(self, step: int, texts: Mapping[str, str]) -> None:
        """What the model writes at `step`: text by prompt."""

    def gradients(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Histograms of the gradients of a step, by parameter."""

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """A checkpoint was written."""

    def uses(self, fingerprint: str, facts: Mapping[str, Any], folder: Path | None) -> None:
        """The data that the run learns from, and where its prepared files lie."""

    def alert(self, alert: Alert) -> None:
        """Something to know about the run."""

    def close(self, outcome: str = "", failed: bool = False) -> None:
        """The session is over; `outcome` says how."""


class TensorBoard(Tracker):
    """Event files in `run.path/tb`: one file a session, which replaces the older ones and begins with the history.

    So every reader finds one curve with strictly increasing steps. The older files are emptied, not removed: a
    TensorBoard that has one open goes on to the newer file only while the older one exists, and `purge_step=0` then
    tells it to forget what it read.
    """

    rebuilt = True

    def __init__(self, run: Run):
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tb"
        for old in folder.glob("events.out.tfevents.*"):
            os.truncate(old, 0)
        self.writer = SummaryWriter(str(folder), purge_step=0, flush_secs=10)
        for record in jsonl.read(run.metrics_file):
            self.log(record)

    def log(self, record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if name not in ("step", "time") and value is not None:
                self.writer.add_scalar(name, value, record["step"], walltime=record["time"])

    def close(self, outcome: str = "", failed: bool = False) -> None:
        self.writer.close()
