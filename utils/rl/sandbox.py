"""The sandbox: generated programs run on grids, safely and fast; what comes back is checked and typed.

    with Sandbox(SandboxConfig(), workers=2) as sandbox:
        sandbox.report                                    # each layer ACTIVE or MISSING, as tried on this machine
        outcomes = sandbox.run([Job(program, inputs)])

A program gets its text and its inputs, and never an expected output: whoever has those compares. The wall is the
system's (a process without rights, files, network and most system calls), not Python's. Each worker is a zygote that
forks a process for each program; programs and answers travel as bytes with lengths.

Linux on x86_64 and aarch64 has every layer; containers such as Colab's usually forbid namespaces, which is shown and is
above the floor. macOS has no seccomp and keeps to no limit of address space: below the floor, so it is refused unless
`allow_unsafe`. Windows has no fork: it is refused always; WSL 2, a container or Colab will do.
"""

from __future__ import annotations

import os
import platform
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from utils.arc.grids import check_grid
from utils.core.check import Check, Report
from utils.core.config import Config
from utils.rl import batch, wire
from utils.rl.layers import FLOOR, LAYERS
from utils.rl.outcome import Fault, Outcome, failed, joined, outcome
from utils.rl.worker import Answer, Worker, WorkerError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Fault", "Job", "Outcome", "Sandbox", "SandboxConfig", "SandboxError", "probe"]

Layer = Literal[
    "process", "environment", "uid", "user", "network", "pid", "ipc", "mount", "landlock", "session", "descriptors",
    "rlimits", "processes", "seccomp", "imports", "kill",
]  # fmt: skip
STATUS = {"ACTIVE": "pass", "MISSING": "warn", "NOT NEEDED": "skip"}


class SandboxError(RuntimeError):
    """No program is run here: the message says which layers are missing, or what happened, and what to do."""


class SandboxConfig(Config):
    timeout: float = Field(default=1.0, gt=0, le=3600)
    """seconds that a program may take for all its inputs (for each, unless `one_process`), as the clock goes"""
    memory_mb: int = Field(default=256, ge=16)
    """MiB of address space that a program gets on top of the interpreter's"""
    slots: int = Field(default=8, ge=1, le=64)
    """programs that each worker runs at once: with more of them those that hang wait together"""
    one_process: bool = True
    """one process for all inputs of a program; off: a fresh one for each"""
    modules: tuple[str, ...] = ("math", "itertools", "functools", "collections", "copy")
    """modules of the standard library that a program may import"""
    primitives: str = "utils.arc.dsl"
    """the module whose PRIMITIVES are names in every program; empty: none"""
    uid: int = Field(default=65534, ge=1)
    """the user that programs run as where the trainer is root"""
    disabled: tuple[Layer, ...] = ()
    """layers to leave off, to see that it is noticed"""
    allow_unsafe: bool = False
    """run programs even where rlimits, seccomp or kill are missing"""


@dataclass(frozen=True, eq=False)
class Job:
    """A program, and the grids to call its `solve` on: lists of rows, or (h, w) arrays."""

    program: str
    inputs: tuple[Sequence[Sequence[int]] | np.ndarray, ...]


class Sandbox:
    """Workers that run programs, while it is open. Opening raises `SandboxError` below the floor."""

    def __init__(self, config: SandboxConfig | None = None, workers: int = 2) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; expected at least 1")
        self.config = config or SandboxConfig()
        self.restarts = 0
        """workers that ended, or were not heard of, and were started again"""
        self._workers: list[Worker] = []
        self._wanted = workers
        weakref.finalize(self, _end, self._workers)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> Self:
        """Start the workers that are not there."""
        while len(self._workers) < self._wanted:
            self._workers.append(_start(self.config))
        return self

    def close(self) -> None:
        """End the workers, and with them every program."""
        _end(self._workers)

    @property
    def report(self) -> Report:
        """Every layer as its workers found it; of two findings the worse."""
        return layer_report([worker.layers for worker in self.open()._workers], self.config)

    @property
    def levels(self) -> dict[str, str]:
        """ACTIVE, MISSING or NOT NEEDED of every layer: to be kept with results."""
        return {check.name: check.summary.partition(":")[0] for check in self.report.checks}

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """The outcomes, in the order of the jobs. Raises `GridError` for an input that is no grid."""
        inputs = [[_raw(grid) for grid in job.inputs] for job in jobs]
        split = [[grids] if self.config.one_process else [[grid] for grid in grids] or [[]] for grids in inputs]
        parts = [(job.program, part) for job, grids in zip(jobs, split) for part in grids]
        bodies = [(wire.pack_job(program, part), len(part)) for program, part in parts]
        workers = self.open()._workers
        try:
            answers = batch.run(bodies, workers, self.config.slots, self.config.timeout, self._restart)
        except BaseException:
            self.close()  # what is still under way would be taken for answers of the next batch
            raise
        outcomes = iter([_outcome(answer, len(part), program) for answer, (program, part) in zip(answers, parts)])
        return [joined([next(outcomes) for _ in grids]) for grids in split]

    def _restart(self) -> Worker:
        self.restarts += 1
        return _start(self.config)


def probe(config: SandboxConfig | None = None) -> Report:
    """Start one worker, try every layer (a second of spinning for the processor time among them), and show it."""
    config = config or SandboxConfig()
    if "process" in config.disabled or not hasattr(os, "fork"):
        return layer_report([{name: ("MISSING", _without_process()) for name in LAYERS}], config)
    worker = _worker(config, spin=True)
    try:
        return layer_report([worker.layers], config)
    finally:
        worker.kill()


def _end(workers: list[Worker]) -> None:
    while workers:
        workers.pop().kill()


def layer_report(found: Sequence[dict[str, tuple[str, str]]], config: SandboxConfig) -> Report:
    """A check for each layer: pass where ACTIVE; where MISSING, fail on the floor and warn above it."""
    checks = []
    for name, purpose in LAYERS.items():
        status, said = max(
            (one[name] for one in found), key=lambda pair: ("ACTIVE", "NOT NEEDED", "MISSING").index(pair[0])
        )
        level = "fail" if status == "MISSING" and name in FLOOR else STATUS[status]
        checks.append(Check(name, level, f"{status}: {purpose}. Tried: {said}", critical=name in FLOOR))
    facts = {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}",
        "programs": "run" if all(check.status != "fail" for check in checks) else "run all the same (allow_unsafe)"
        if config.allow_unsafe and "process" not in config.disabled else "refused",
        "for each": f"{config.timeout:g} s, {config.memory_mb} MiB",
        "switched off": ", ".join(config.disabled) or "nothing",
    }  # fmt: skip
    return Report("The sandbox of this machine", checks, facts, word="contained")


def _start(config: SandboxConfig) -> Worker:
    """A worker above the floor. Raises `SandboxError`."""
    if "process" in config.disabled or not hasattr(os, "fork"):
        raise SandboxError(f"The sandbox runs no program here: {_without_process()}.")
    worker = _worker(config)
    missing = [f"{name} ({worker.layers[name][1]})" for name in FLOOR if worker.layers[name][0] == "MISSING"]
    if missing and not config.allow_unsafe:
        worker.kill()
        raise SandboxError(
            f"The sandbox runs no program here, for it lacks: {'; '.join(missing)}. Use Linux on x86_64 or aarch64 (a"
            " container, WSL 2 or Colab will do), or accept the risk with allow_unsafe=True."
        )
    return worker


def _worker(config: SandboxConfig, *, spin: bool = False) -> Worker:
    try:
        return Worker(config, spin=spin)
    except WorkerError as error:
        raise SandboxError(str(error)) from None


def _without_process() -> str:
    if hasattr(os, "fork"):
        return "the layer process is switched off, and a program never runs inside the trainer"
    return "this system has no fork, which gives each program its own process; use WSL 2, a Linux container or Colab"


def _raw(grid: Sequence[Sequence[int]] | np.ndarray) -> wire.RawGrid:
    checked = check_grid(grid)
    return (*checked.shape, checked.tobytes())


def _outcome(answer: Answer | None, count: int, program: str) -> Outcome:
    if answer is None:
        return failed(
            Fault("runtime", None, f"the worker ended {batch.TRIES} times with this program under way"), count
        )
    if answer.how == wire.NOT_STARTED:
        raise SandboxError(f"No process could be started for a program: {answer.raw.decode('utf-8', 'replace')}.")
    return outcome(answer, count, 1 + program.count("\n"))
