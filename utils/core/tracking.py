"""Trackers: where metrics go while a run is under way.

`metrics.jsonl` is always written, and is the truth; the others are views of it, and are told its history when a run
is taken up again. A tracker that fails is reported and never stops training.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from utils.core import jsonl

if TYPE_CHECKING:
    from utils.core.run import Run

log = logging.getLogger(__name__)
TrackerName = Literal["tensorboard"]


class Tracker(Protocol):
    """What a tracker does. It is made as `tracker(run)`, and shows the run's history so far."""

    def log(self, record: Mapping[str, Any]) -> None:
        """`record` holds `step`, `time` (seconds since the epoch) and numbers by name."""

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `run.path/tb`: one file a session, which replaces the older ones and begins with the history.

    So every reader finds one curve with strictly increasing steps. The older files are emptied, not removed: a
    TensorBoard that has one open goes on to the newer file only while the older one exists, and `purge_step=0` then
    tells it to forget what it read.
    """

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

    def close(self) -> None:
        self.writer.close()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard}


class Tracking:
    """A run's `metrics.jsonl` and the trackers beside it.

    Records that the disk refuses are kept in memory, and written with the next one that it takes.
    """

    def __init__(self, run: Run, names: Iterable[TrackerName] = ()):
        self.run = run
        self.pending: list[dict[str, Any]] = []
        self.trackers: dict[str, Tracker] = {}
        for name in names:
            self._open(name)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        record = {"step": step, "time": round(time.time(), 3), **metrics}
        self.pending.append(record)
        written = []
        try:
            while self.pending:
                jsonl.append(self.run.metrics_file, self.pending[0])
                written.append(self.pending.pop(0))
        except OSError as error:
            log.warning(
                "Metrics of step %d are held in memory: %s. They are written when the disk allows.", step, error
            )
        for name, tracker in list(self.trackers.items()):
            try:
                for record in written:
                    tracker.log(record)
            except OSError as error:
                log.warning(
                    "%s could not be written at step %d: %s. It is rebuilt from the metrics.", name, step, error
                )
                with contextlib.suppress(OSError):  # what it still holds is in the metrics
                    tracker.close()
                self._open(name)

    def _open(self, name: str) -> None:
        try:
            self.trackers[name] = TRACKERS[name](self.run)
        except OSError as error:
            self.trackers.pop(name, None)
            log.warning("%s could not be opened: %s. Training goes on without it; metrics.jsonl is kept.", name, error)

    def close(self) -> None:
        for name, tracker in self.trackers.items():
            try:
                tracker.close()
            except OSError as error:
                log.warning("%s could not be closed: %s. It is rebuilt from the metrics on resume.", name, error)
        if self.pending:
            log.error("%d records could not be written to %s.", len(self.pending), self.run.metrics_file)
