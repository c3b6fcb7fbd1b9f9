"""A run's checkpoints: written whole or not at all, checksummed, pruned only afterwards.

    checkpoints/step-00000200/state.pt        what `torch.save` made of the state
    checkpoints/step-00000200/manifest.json   step, metric, size and sha256 of state.pt

A checkpoint is written under a temporary name, flushed to the disk, checksummed from the disk, and renamed. A damaged
one is reported and set aside, and the one before it is used. Leaves out what is in a state: any nest of dicts, lists,
tensors, numbers and strings that `torch.load(weights_only=True)` accepts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core.checksum import sha256_of

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """No usable checkpoint where one is needed."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk. `metric` is the validation metric it was judged by (lower is better), if it was."""

    path: Path
    step: int
    metric: float | None

    @property
    def sha256(self) -> str:
        """Of state.pt, as the manifest says; `verify` compares."""
        return json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))["sha256"]

    def verify(self) -> None:
        """Raise `CheckpointError` unless state.pt is what its manifest says."""
        told, found = self.sha256, sha256_of(self.path / "state.pt")
        if found != told:
            raise CheckpointError(f"{self.path}: sha256 is {found[:12]}, the manifest says {told[:12]}")

    def load(self, map_location: torch.device | str = "cpu") -> dict[str, Any]:
        """The verified state, on CPU unless told otherwise, wherever it was saved."""
        import torch

        self.verify()
        return torch.load(self.path / "state.pt", map_location=map_location, weights_only=True)


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, *, keep_last: int = 2, keep_best: int = 1):
        self.folder = folder
        self.keep_last = keep_last
        self.keep_best = keep_best

    def save(self, step: int, state: dict[str, Any], metric: float | None = None) -> Checkpoint:
        """Write a checkpoint, then prune. Raises OSError when the disk refuses; older ones are then untouched."""
        import torch

        def fill(folder: Path) -> None:
            with (folder / "state.pt").open("wb") as file:
                torch.save(state, file)
                _flush(file)
            manifest = {"step": step, "metric": metric, "bytes": (folder / "state.pt").stat().st_size}
            manifest["sha256"] = sha256_of(folder / "state.pt")
            with (folder / "manifest.json").open("w", encoding="utf-8") as file:
                json.dump(manifest, file)
                _flush(file)

        return self._write(step, metric, fill)

    def take(self, source: Checkpoint) -> Checkpoint:
        """Copy a checkpoint from another folder: whole, verified from this disk, then renamed; then prune.

        Raises OSError as `save` does, also where the copy is not what the manifest says.
        """

        def fill(folder: Path) -> None:
            for name in ("state.pt", "manifest.json"):
                copy_file(source.path / name, folder / name)
            Checkpoint(folder, source.step, source.metric).verify()

        return self._write(source.step, source.metric, fill)

    def _write(self, step: int, metric: float | None, fill: Callable[[Path], None]) -> Checkpoint:
        final = self._path(step)
        temporary = self.folder / f".writing-{final.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()  # a run folder that has gone is not made anew, elsewhere
            fill(temporary)
            if final.exists():  # the same step, reached again after a resume; `all` puts it back if we die here
                shutil.rmtree(final.with_suffix(".replaced"), ignore_errors=True)
                final.rename(final.with_suffix(".replaced"))
            temporary.rename(final)
            _flush_folder(self.folder)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            shutil.rmtree(temporary, ignore_errors=True)
            raise OSError(f"Checkpoint of step {step} was not written to {self.folder}: {error}") from error
        self._prune()
        return Checkpoint(final, step, metric)

    def all(self) -> list[Checkpoint]:
        """Complete checkpoints by step, unverified. One whose manifest cannot be read is reported and set aside."""
        for replaced in self.folder.glob("step-*.replaced"):
            if not replaced.with_suffix("").exists():
                replaced.rename(replaced.with_suffix(""))
        found = []
        for manifest in self.folder.glob("step-*/manifest.json"):
            path = manifest.parent
            if path.suffix:  # .damaged or .replaced
                continue
            step = int(path.name.removeprefix("step-"))
            try:
                found.append(Checkpoint(path, step, json.loads(manifest.read_text(encoding="utf-8"))["metric"]))
            except (ValueError, KeyError, TypeError) as error:
                _set_aside(path, step, error)
        return sorted(found, key=lambda one: one.step)

    def last(self) -> Checkpoint | None:
        """The newest checkpoint that verifies. Damaged ones above it are reported and renamed `*.damaged`."""
        for checkpoint in reversed(self.all()):
            if self.sound(checkpoint):
                return checkpoint
        return None

    def best(self) -> Checkpoint | None:
        """The verified checkpoint of the lowest metric; the later one of two equals."""
        return next(filter(self.sound, judged(self.all())), None)

    def kept(self, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
        """Those of `checkpoints`, which are in order, that pruning leaves: the newest and the best."""
        return checkpoints[-self.keep_last :] + judged(checkpoints)[: self.keep_best]

    def sound(self, checkpoint: Checkpoint) -> bool:
        """Whether it verifies. A damaged one is reported and set aside."""
        try:
            checkpoint.verify()
        except (CheckpointError, FileNotFoundError, ValueError, KeyError) as error:
            _set_aside(checkpoint.path, checkpoint.step, error)
            return False
        return True

    def _prune(self) -> None:
        kept = {one.path for one in self.kept(self.all())}
        for path in (*self.folder.glob("step-*"), *self.folder.glob(".writing-*")):  # surplus, set aside, cut short
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


def judged(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Those with a metric, best first; the later one of two equals first. A metric of NaN judges nothing."""
    found = [one for one in checkpoints if one.metric is not None and not math.isnan(one.metric)]
    return sorted(found, key=lambda one: (one.metric, -one.step))


def union(near: list[Checkpoint], far: list[Checkpoint]) -> list[Checkpoint]:
    """By step; of two of one step the near one."""
    found = {one.step: one for one in (*far, *near)}
    return [found[step] for step in sorted(found)]


def _set_aside(path: Path, step: int, error: Exception) -> None:
    aside = path.with_suffix(".damaged")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    log.warning("Checkpoint of step %d is damaged (%s). It is set aside as %s.", step, error, aside.name)


def copy_file(source: Path, target: Path) -> None:
    """Copy the bytes of a file, and have them on the disk."""
    with source.open("rb") as old, target.open("wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        _flush(new)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some file systems cannot; the checkpoint is in its place already
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
