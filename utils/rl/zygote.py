"""The zygote: a small fresh interpreter that forks a process for each program, and keeps the clock.

`rl.worker` starts it as a process of its own, never as a fork of the trainer. It imports the standard library alone and
runs no program itself. What outlives its time is killed, with its group. What a program's process writes goes to the
trainer as it came, cut to length. It ends when its input does.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import time
from contextlib import suppress

from utils.rl import boot, layers, runner, wire

IN, OUT = 0, 1
LOOK = 2.0  # seconds between looks at whether the trainer is still there
SLOW = 0.1  # seconds after which a program gives way to the others


class Process:
    """A program's process, and what it has written."""

    def __init__(self, number: int, pid: int, started: float, limit: int) -> None:
        self.number, self.pid, self.started, self.limit = number, pid, started, limit
        self.raw, self.gave_way = bytearray(), False


def main() -> None:
    """Serve until the input ends. The first frame holds the settings, as JSON; the first answer tells the layers."""
    settings = json.loads(read(IN, int.from_bytes(read(IN, 4), "little")))
    booted = boot.boot(settings, kill)
    answer = json.dumps(booted.report).encode()
    write(OUT, len(answer).to_bytes(4, "little") + answer)
    gc.collect()
    gc.freeze()  # a program's collections leave these pages alone, and so shared
    serve(booted, settings["timeout"] if "kill" in booted.bounds.on else float("inf"), settings["slots"])


def serve(booted: boot.Booted, timeout: float, slots: int) -> None:
    """Up to `slots` programs at once, so that one which hangs does not hold up the next.

    No frame from here to the fork may hold a process, for a program could read there what another has answered.
    """
    running: dict[int, Process] = {}  # by the descriptor of their pipe
    poll, listening, parent = select.poll(), False, os.getppid()
    while True:
        if (len(running) < slots) != listening:
            listening = not listening
            poll.register(IN, select.POLLIN) if listening else poll.unregister(IN)
        for handle, _ in poll.poll(1000 * due(running, timeout)):
            if handle != IN:
                receive(handle, running, poll)
            elif not start(running, poll, booted):
                end(running)
        look(running, poll, timeout)
        if os.getppid() != parent:
            end(running)


def due(running: dict[int, Process], timeout: float) -> float:
    """Seconds until something is to be done."""
    now, soonest = time.monotonic(), LOOK
    for process in running.values():
        soonest = min(soonest, process.started + (timeout if process.gave_way else min(SLOW, timeout)) - now)
    return max(0.0, soonest)


def receive(handle: int, running: dict[int, Process], poll: select.poll) -> None:
    """What a program has written; at its end, or where it is too much, the program's end too."""
    process, part = running[handle], os.read(handle, 1 << 16)
    process.raw += part
    if not part or len(process.raw) > process.limit:
        finish(handle, running.pop(handle), poll, wire.TOO_LONG if part else wire.ENDED)


def look(running: dict[int, Process], poll: select.poll, timeout: float) -> None:
    """End what is overdue; what is slow gives way to the others."""
    now = time.monotonic()
    for handle, process in list(running.items()):
        if now - process.started >= timeout:
            finish(handle, running.pop(handle), poll, wire.OVERDUE)
        elif now - process.started >= SLOW and not process.gave_way:
            process.gave_way = True
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, 19)


def start(running: dict[int, Process], poll: select.poll, booted: boot.Booted) -> bool:
    """Read a job and fork for it; False at the end of the input."""
    header = read(IN, wire.JOB.size)
    if not header:
        return False
    number, length, count = wire.JOB.unpack(header)
    body = read(IN, length)
    out, inside = os.pipe()
    started = time.monotonic()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(out)
        os.close(inside)
        message = str(error).encode()
        write(OUT, wire.ANSWER.pack(number, wire.NOT_STARTED, 0, 0, len(message)) + message)
        return True
    if pid == 0:
        try:
            running.clear()  # what other programs have written
            booted.bounds.put_on(inside)
            runner.run(body, booted.names, _to_pipe)
        finally:
            os._exit(0)
    os.close(inside)
    running[out] = Process(number, pid, started, wire.limit(count))
    poll.register(out, select.POLLIN)
    return True


def finish(handle: int, process: Process, poll: select.poll, how: int) -> None:
    """End the process and its group whatever it does, and tell the trainer."""
    poll.unregister(handle)
    gone, status = os.waitpid(process.pid, os.WNOHANG) if how == wire.ENDED else (0, 0)
    if not gone:
        kill(process.pid)
        _, status = os.waitpid(process.pid, 0)
    while how == wire.OVERDUE and len(process.raw) <= process.limit and (part := os.read(handle, 1 << 16)):
        process.raw += part
    os.close(handle)
    raw = bytes(process.raw[: process.limit])
    micros = int(1e6 * (time.monotonic() - process.started))
    write(OUT, wire.ANSWER.pack(process.number, how, status, micros, len(raw)) + raw)


def kill(pid: int) -> None:
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def end(running: dict[int, Process]) -> None:
    for process in running.values():
        kill(process.pid)
    os._exit(0)


def read(handle: int, length: int) -> bytes:
    """Exactly so many bytes; none at the end."""
    parts = []
    while length:
        part = os.read(handle, length)
        if not part:
            return b""
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _to_pipe(record: bytes) -> None:
    os.write(layers.PIPE, record)
