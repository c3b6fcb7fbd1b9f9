"""`Mirror`: checkpoints written to this machine's own disk, then copied to a slower or less certain one.

A Google Drive that is mounted may be slow, full or gone for a while. So a checkpoint is written locally, which training
waits for, and copied in the background: whole, under a temporary name, verified by its sha256, renamed. A copy that
fails is reported and tried again, with longer and longer pauses, then at the next checkpoint; until it succeeds the
local one is kept by the same rule as everywhere, so the best and the last are never without a copy. Both places count
on start-up. Leaves out what a checkpoint is (`core.checkpoints`) and when one is due.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from utils.core.checkpoints import Checkpoint, Checkpoints, judged, union

log = logging.getLogger(__name__)
DRIVE = Path("/content/drive")
ATTEMPTS = 5  # in a row, with pauses in between that double
PAUSE = 1.0  # seconds, the first of them


def local_folder(run: Path, asked: Path | None = None) -> Path | None:
    """Where a run's checkpoints are written first: under the folder `asked` for, else a temporary one for Drive's runs.

    None, where they are written to the run's own folder at once.
    """
    if asked is None and DRIVE not in run.parents:
        return None
    root = Path(tempfile.gettempdir()) / "run_all" if asked is None else Path(asked).expanduser()
    return root / run.name / "checkpoints"


class Mirror:
    """The checkpoints of one run in two places, used as `Checkpoints` is. `seconds` is the longest that a copy took."""

    def __init__(self, local: Checkpoints, far: Checkpoints, *, sleep: Callable[[float], None] = time.sleep):
        self.local, self.far, self.sleep = local, far, sleep
        self.seconds = 0.0
        self.failure: OSError | None = None
        """why the last copying was given up; None once everything lies in both places, or before it was tried"""
        self.tried_at = time.monotonic()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._job: Future | None = None
        self._queued = threading.Event()
        self._far_known: list[Checkpoint] | None = None

    @property
    def folder(self) -> Path:
        return self.local.folder

    def save(self, step: int, state: dict[str, Any], metric: float | None = None) -> Checkpoint:
        """Write one locally, and have it copied. Raises OSError when the local disk refuses."""
        self.local.folder.mkdir(parents=True, exist_ok=True)
        saved = self.local.save(step, state, metric)
        self.copy_soon()
        return saved

    # Reading

    def all(self) -> list[Checkpoint]:
        """Those of both places by step, unverified; of two of one step the local one. The far place is remembered."""
        far = self._read_far() if self._far_known is None else self._far_known
        return union(self.local.all(), far)

    def last(self) -> Checkpoint | None:
        """The newest of both places that verifies."""
        return self._first_sound(lambda found: found[::-1])

    def best(self) -> Checkpoint | None:
        """The one of the lowest metric in both places that verifies."""
        return self._first_sound(judged)

    def _first_sound(self, ordered: Callable[[list[Checkpoint]], list[Checkpoint]]) -> Checkpoint | None:
        self.wait()  # nothing is moved while we look
        while found := ordered(union(self.local.all(), self._read_far())):
            place = self.local if found[0].path.parent == self.local.folder else self.far
            if place.sound(found[0]):
                return found[0]
        return None

    def _read_far(self) -> list[Checkpoint]:
        self._far_known = self.far.all()
        return self._far_known

    # Copying

    def copy_soon(self) -> None:
        """Have the background copy what is missing; it is asked once, however often."""
        if not self._queued.is_set():
            self._queued.set()
            self._job = self._worker.submit(self._copy_all)

    def wait(self) -> None:
        """Until the background has done what it was asked, or given up."""
        if self._job is not None:
            self._job.result()

    def settle(self) -> None:
        """Copy what is missing, and wait for it. Raises OSError, saying where the checkpoints are, where that fails."""
        self.copy_soon()
        self.wait()
        if self.failure is not None:
            raise OSError(
                f"The checkpoints are whole in {self.local.folder}, but not all of them could be copied to"
                f" {self.far.folder}: {self.failure}. Make room there (also in its trash) or bring the folder back, and"
                " run the same cell again before this machine is taken away: it copies them."
            ) from self.failure

    def forget_local(self) -> None:
        """Remove the local folder, once everything worth keeping has been copied."""
        if not self.missing():
            shutil.rmtree(self.local.folder.parent, ignore_errors=True)

    def missing(self) -> list[Checkpoint]:
        """Local ones that pruning would leave among those of both places, and that the far place lacks."""
        near, far = self.local.all(), self._read_far()
        there = {one.step: one.sha256 for one in far}
        kept = {one.path for one in self.local.kept(union(near, far))}
        return [one for one in near if one.path in kept and there.get(one.step) != one.sha256]

    def _copy_all(self) -> None:
        """One job of the background: never raises an OSError, which is kept in `failure`."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

        self._queued.clear()
        retrying = Retrying(
            retry=retry_if_exception_type(OSError), stop=stop_after_attempt(ATTEMPTS), wait=wait_exponential(PAUSE),
            sleep=self.sleep, before_sleep=self._report, reraise=True,
        )  # fmt: skip
        try:
            retrying(self._copy_missing)
        except OSError as error:
            log.warning(
                "%s. Given up for now: the checkpoints are safe in %s, training goes on, and they are copied later.",
                error, self.local.folder,
            )  # fmt: skip
            self.failure = error
        except Exception:  # what is raised here would be seen only by whoever waits
            log.exception("Copying checkpoints to %s failed.", self.far.folder)
            raise
        else:
            if self.failure is not None:
                log.warning("%s takes checkpoints again; nothing is missing there.", self.far.folder)
            self.failure = None
        finally:
            self.tried_at = time.monotonic()

    def _copy_missing(self) -> None:
        for one in self.missing():
            begun = time.monotonic()
            try:
                self.far.take(one)
            except OSError:
                gone = not (one.path / "manifest.json").exists()  # a newer one has taken its place meanwhile
                if gone or not self.local.sound(one):
                    continue
                raise
            self.seconds = max(self.seconds, time.monotonic() - begun)
        self._read_far()

    def _report(self, attempt: Any) -> None:
        if attempt.attempt_number == 1 and self.failure is None:
            log.warning(
                "%s. It is safe in %s; training goes on, and copying is tried again.",
                attempt.outcome.exception(), self.local.folder,
            )  # fmt: skip
