"""The checkpoints of a run as a training loop writes them: when one is due, and what is done where the disk refuses it.

Every process takes part in what is decided; the first one reads and writes. For a run on a mounted Google Drive, or
where `local_checkpoints` is set, they are written locally and mirrored (`core.mirror`; of several processes all are
then on one machine). Leaves out what a checkpoint holds.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from utils.core.checkpoints import Checkpoint, Checkpoints
from utils.core.mirror import Mirror, local_folder
from utils.core.run import Run, RunError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
RETRY_SECONDS = 30.0


class Schedule(Protocol):
    """The settings of a loop that say when checkpoints are written and which are kept (`TrainConfig` says more; its
    `local_checkpoints` is one that a loop may lack)."""

    checkpoint_every: int | None
    checkpoint_minutes: float | None
    keep_last: int
    keep_best: int


class Saver:
    """Writes a run's checkpoints while training goes on. `step` is whatever the loop counts, its `unit`."""

    def __init__(self, run: Run, config: Schedule, fabric: Fabric, *, unit: str = "step"):
        """Raises `RunError` where the processes hold parts of the model."""
        if "FSDP" in type(fabric.strategy).__name__:
            raise RunError(
                "Checkpoints hold whole models, so training takes one device or DDP; FSDP shards them. Use"
                " strategy='ddp'."
            )
        kept = {"keep_last": config.keep_last, "keep_best": config.keep_best}
        self.checkpoints: Checkpoints | Mirror = Checkpoints(run.path / "checkpoints", **kept)
        local = local_folder(run.path, getattr(config, "local_checkpoints", None))
        if local is not None:
            self.checkpoints = Mirror(Checkpoints(local, **kept), self.checkpoints)
            if fabric.is_global_zero:
                log.info("Checkpoints are written to %s, then copied to %s.", local, run.path / "checkpoints")
        self.config, self.fabric, self.unit = config, fabric, unit
        self.saved_at = self.tried_at = time.monotonic()
        self.refused = False  # by the disk, the last time

    def newest(self) -> Checkpoint | None:
        """The newest sound checkpoint. A collective call, as are `best` and `due`."""
        return self.fabric.broadcast(self.checkpoints.last() if self.fabric.is_global_zero else None)

    def best(self) -> Checkpoint | None:
        """The sound checkpoint of the lowest metric."""
        return self.fabric.broadcast(self.checkpoints.best() if self.fabric.is_global_zero else None)

    def among_best(self, metric: float) -> bool:
        """Whether a checkpoint of this metric, newer than all, would be kept as one of the best; False elsewhere."""
        if not self.fabric.is_global_zero:
            return False
        try:
            judged = sorted(one.metric for one in self.checkpoints.all() if one.metric is not None)
        except OSError as error:
            log.warning("The checkpoints cannot be read: %s. Training goes on.", error)
            return True
        return len(judged) < self.config.keep_best or metric <= judged[self.config.keep_best - 1]

    def due(self, step: int, *, wanted: bool) -> bool:
        """Whether to write one now: where the first process wants it, at its time, and again after a refusal."""
        config, now, mirror = self.config, time.monotonic(), self._mirror()
        if mirror and mirror.failure and now - mirror.tried_at >= RETRY_SECONDS:
            mirror.copy_soon()
        return self.fabric.broadcast(
            wanted
            or (config.checkpoint_every is not None and step % config.checkpoint_every == 0)
            or (config.checkpoint_minutes is not None and now - self.saved_at >= 60 * config.checkpoint_minutes)
            or (self.refused and now - self.tried_at >= RETRY_SECONDS)
        )

    def save(self, step: int, state: dict[str, Any], metric: float | None, *, final: bool) -> Checkpoint | None:
        """Write one, in the first process, and return it there.

        A refusing disk is reported and tried again, which is None here; a final one then raises.

        A final one is waited for until it lies in both places, where there are two.
        """
        if not self.fabric.is_global_zero:
            return None
        for attempt in range(3 if final else 1):
            time.sleep(attempt)
            self.tried_at = time.monotonic()
            try:
                saved = self.checkpoints.save(step, state, metric)
            except OSError as error:
                self.refused = True
                log.warning("%s Training goes on, and tries again.", error)
            else:
                self.saved_at, self.refused = self.tried_at, False
                if final:
                    self.settle()
                return saved
        if final:
            raise OSError(
                f"The last checkpoint, of {self.unit} {step}, could not be written to {self.checkpoints.folder}. The"
                " model in memory holds its weights. Make room or bring the folder back, and run the same cell again:"
                " it goes on from the newest checkpoint there."
            )
        return None

    def settle(self, *, done: bool = False) -> None:
        """Have the run's own folder hold all that is worth keeping; then, where training is `done`, drop local copies.

        Raises OSError where it takes them not, and says where they are.
        """
        if mirror := self._mirror():
            mirror.settle()
            if done:
                mirror.forget_local()

    def copy_seconds(self) -> float:
        """How long copying what is under way and a last checkpoint may take, from what it took so far."""
        mirror = self._mirror()
        return 2 * mirror.seconds if mirror else 0.0

    def _mirror(self) -> Mirror | None:
        """The two places, where there are two and this process is the one that writes."""
        return self.checkpoints if isinstance(self.checkpoints, Mirror) and self.fabric.is_global_zero else None
