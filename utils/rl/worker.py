"""One zygote, as the trainer sees it: started with an empty environment, sent jobs, heard, killed.

Leaves out which job goes to which worker, and what an answer means (`rl.sandbox`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.rl import layers, wire
from utils.rl.layers import CANARY

if TYPE_CHECKING:
    from utils.rl.sandbox import SandboxConfig

ROOT = Path(__file__).parents[2]
START = "import sys; sys.path[:] = [*filter(None, sys.path), {root!r}]; from utils.rl.zygote import main; main()"
BOOT = 60.0  # seconds that a zygote may take to start
WITNESSES = ("numpy", "pydantic", "torch")  # modules of the trainer that no zygote has


class WorkerError(RuntimeError):
    """A zygote that did not start or has ended; the message holds what it said last."""


class Answer(NamedTuple):
    """How a program's process ended, and what it wrote."""

    how: int
    """one of wire.ENDED, OVERDUE, TOO_LONG, NOT_STARTED"""
    status: int
    """as of waitpid"""
    seconds: float
    raw: bytes


class Worker:
    """A zygote and the jobs that it has been sent and has not answered."""

    def __init__(self, config: SandboxConfig, *, spin: bool = False) -> None:
        """Start it and wait until it has tried its layers. Raises `WorkerError`."""
        self.jobs: dict[int, int] = {}  # number of a job on the wire -> the caller's place
        self.heard = time.monotonic()
        self.layers: dict[str, tuple[str, str]] = {}
        self._unsent, self._unread, self._number = bytearray(), bytearray(), 0
        on = [name for name in layers.LAYERS if name not in config.disabled]
        outside = {**os.environ, CANARY: "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-B", "-c", START.format(root=str(ROOT))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0", **({} if "environment" in on else outside)},
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        try:
            with bait() as traps:
                settings = {**config.model_dump(mode="json"), "on": on, "bait": traps, "spin": spin}
                settings |= {"memory": config.memory_mb << 20, "cpu": math.ceil(config.timeout) + 1}
                frame = json.dumps(settings).encode()
                with contextlib.suppress(
                    BrokenPipeError
                ):  # it has ended: its first answer does not come, and it says why
                    self._process.stdin.write(len(frame).to_bytes(4, "little") + frame)
                self.layers = {name: tuple(found) for name, found in json.loads(self._first_answer()).items()}
        except BaseException:
            self.kill()
            raise
        for pipe in self.pipes:
            os.set_blocking(pipe, False)

    @property
    def pipes(self) -> tuple[int, int]:
        """The descriptors to hear it from and to write to."""
        return self._process.stdout.fileno(), self._process.stdin.fileno()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    def send(self, place: int, body: bytes, count: int) -> None:
        """Put a job with `count` inputs in line; `write` sends it."""
        if not self.jobs:
            self.heard = time.monotonic()
        self._number = (self._number + 1) % 2**32
        self.jobs[self._number] = place
        self._unsent += wire.JOB.pack(self._number, len(body), count) + body

    def write(self) -> None:
        """As much as the pipe takes. Raises `WorkerError` where nobody reads it."""
        with contextlib.suppress(BlockingIOError):
            try:
                sent = os.write(self.pipes[1], self._unsent)
            except BrokenPipeError:
                raise WorkerError(self._last_words()) from None
            del self._unsent[:sent]

    def read(self) -> Iterator[tuple[int, Answer]]:
        """The (place, answer)s that have come. Raises `WorkerError` at its end."""
        try:
            part = os.read(self.pipes[0], 1 << 20)
        except BlockingIOError:
            return
        if not part:
            raise WorkerError(self._last_words())
        self._unread += part
        self.heard = time.monotonic()
        while len(self._unread) >= wire.ANSWER.size:
            number, how, status, micros, length = wire.ANSWER.unpack_from(self._unread)
            stop = wire.ANSWER.size + length
            if number not in self.jobs:
                raise WorkerError(f"an answer to job {number}, which it was not sent")
            if len(self._unread) < stop:
                return
            raw = bytes(self._unread[wire.ANSWER.size : stop])
            del self._unread[:stop]
            yield self.jobs.pop(number), Answer(how, status, micros / 1e6, raw)

    def kill(self) -> None:
        """It and, with it, every program that it has started: they die when it does."""
        self._stop()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()

    def _stop(self) -> None:
        if self._process.poll() is None:  # else the number may be another's by now
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _first_answer(self) -> bytes:
        """The zygote's first frame, waited for."""
        data, end = b"", time.monotonic() + BOOT
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
            ready = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))[0]
            part = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                late = f" within {BOOT:.0f} s" if not ready else ""
                raise WorkerError(f"the sandbox's zygote did not start{late}: {self._last_words()}")
            data += part
        return data[4:]

    def _last_words(self) -> str:
        """The end of what it wrote to stderr, or how it ended."""
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._stop()
        os.set_blocking(self._process.stderr.fileno(), False)
        try:
            said = os.read(self._process.stderr.fileno(), 1 << 16)
        except BlockingIOError:
            said = b""
        status = self._process.returncode
        return (
            " ".join(said.decode("utf-8", "replace").split())[-500:]
            or f"it ended with status {status} and said nothing"
        )


@contextlib.contextmanager
def bait() -> Iterator[dict[str, Any]]:
    """Things of the trainer that a zygote tries to reach, to show that it cannot; gone when it has started."""
    queue = _message_queue()
    with socket.create_server(("127.0.0.1", 0)) as server:
        try:
            yield {
                "trainer": os.getpid(),
                "session": os.getsid(0),
                "modules": [name for name in WITNESSES if name in sys.modules],
                "port": server.getsockname()[1],
                "queue": queue,
            }
        finally:
            if queue is not None:
                _libc().msgctl(queue, 0, None)  # IPC_RMID


def _message_queue() -> int | None:
    """A System V queue that anyone may look at; None where the system has none."""
    if sys.platform != "linux":
        return None
    made = _libc().msgget(0, 0o1666)  # IPC_PRIVATE, IPC_CREAT
    return made if made >= 0 else None


def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None)
