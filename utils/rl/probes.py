"""Each layer tried by attempting what it forbids, in a process that no later layer protects: ACTIVE or MISSING.

The zygote does so whenever it starts: what counts is what happened on this machine. Standard library only.
"""

from __future__ import annotations

import _socket  # `socket` would bring more modules into every fork
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from utils.rl import layers, libc, runner, wire
from utils.rl.attempt import PATIENCE, Tried, attempt, stopped_by
from utils.rl.bounds import Bounds, put

ACTIVE, MISSING, NOT_NEEDED = "ACTIVE", "MISSING", "NOT NEEDED"
ANOTHER = 23456  # the number of a user whom no namespace of ours knows


def process(trainer: int, modules: list[str]) -> Tried:
    here = sorted(set(modules) & set(sys.modules))
    if os.getpid() == trainer or here:
        return False, f"shares a process or modules ({', '.join(here)}) with the trainer"
    return True, f"process {os.getpid()}, not {trainer}; of the trainer's modules none is here: {', '.join(modules)}"


def environment(names: set[str]) -> Tried:
    with suppress(OSError), open("/proc/self/environ", "rb") as file:
        names = names | {
            line.partition(b"=")[0].decode("utf-8", "replace") for line in file.read().split(b"\0") if line
        }
    said = f"{len(names)} variables: {', '.join(sorted(names)[:3])}" if names else "no variable"
    return layers.CANARY not in names, said


def uid() -> Tried:
    stopped, said = stopped_by(lambda: os.setresuid(0, 0, 0))
    return stopped, f"becoming root: {said}"


def user() -> Tried:
    stopped, said = stopped_by(lambda: os.setresuid(ANOTHER, ANOTHER, ANOTHER), errno.EINVAL)
    return stopped, f"becoming user {ANOTHER}: {'no such user' if stopped else said}"


def network(port: int) -> Tried:
    stopped, said = stopped_by(lambda: _socket.socket().connect(("127.0.0.1", port)))
    return stopped, f"connecting to a port that the trainer listens on: {said}"


def pid(trainer: int, session: int) -> Tried:
    """The trainer's number may be in use inside as well, for a process of another session."""
    try:
        found = os.getsid(trainer) == session
    except OSError:
        found = False
    return not found, f"process {trainer} (the trainer) is {'' if found else 'not '}to be seen"


def ipc(queue: int) -> Tried:
    buffer = bytes(512)
    stopped, said = stopped_by(lambda: libc.call("msgctl", queue, 2, buffer))  # IPC_STAT
    return stopped, f"looking at a message queue of the trainer: {said}"


def mount() -> Tried:
    try:
        names = os.listdir("/")
    except OSError as error:
        return False, f"the root directory: {error.strerror}"
    return not names, f"the root directory holds {len(names)} names"


def landlock() -> Tried:
    stopped, said = stopped_by(lambda: os.open("/", os.O_RDONLY), errno.EACCES)
    return stopped, f"opening the root directory: {said}"


def session(group: int) -> Tried:
    stopped, said = stopped_by(lambda: os.setpgid(0, group))
    return stopped, f"joining the zygote's process group: {said}"


def descriptors() -> Tried:
    found = []
    for handle in range(layers.PIPE + 1, layers.DESCRIPTORS):
        with suppress(OSError):
            os.fstat(handle)
            found.append(handle)
    return not found, f"{len(found)} open descriptors besides the result pipe"


def rlimits(bounds: Bounds, spin: bool) -> Tried:
    """Five limits, in three forks; the processor time is spent only where `spin`, for it takes a second."""

    def small() -> Tried:
        handle = os.memfd_create("probe") if hasattr(os, "memfd_create") else os.open(".", os.O_TMPFILE)
        if "rlimits" in bounds.on:
            put(bounds.rlimits)
        passed = []
        try:
            bytearray(bounds.memory)
            passed.append("address space")
        except MemoryError:
            pass
        for name, action in (("file size", lambda: os.write(handle, b"x")), ("open files", lambda: os.dup(handle))):
            if not stopped_by(action)[0]:
                passed.append(name)
        return not passed, ", ".join(passed)

    def twice_the_limit() -> Tried:
        while time.process_time() < 2:
            pass
        return False, ""

    _, said, _ = attempt(small)
    passed = [said] if said else []
    _, _, status = attempt(lambda: os.abort(), bounds, "rlimits")
    passed += ["core dump"] if os.WCOREDUMP(status) else []
    if spin:
        *_, status = attempt(twice_the_limit, Bounds(bounds.on, bounds.memory, 1, None), "rlimits")
        cpu = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
    else:
        import resource

        def own_limit() -> Tried:
            return resource.getrlimit(resource.RLIMIT_CPU)[0] == bounds.cpu, ""

        cpu, *_ = attempt(own_limit, bounds, "rlimits")
    passed += [] if cpu else ["processor time"]
    how = "processor time spent" if spin else "limit of processor time read back"
    said = f"past the limit of: {', '.join(passed)}" if passed else "memory, file, descriptor and core refused"
    return not passed, f"{said}; {how}"


def processes(bounds: Bounds) -> Tried:
    def fork() -> int:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        return child

    stopped, said, _ = attempt(lambda: stopped_by(fork), bounds, "processes")
    return stopped, f"fork: {said}"


def seccomp(bounds: Bounds) -> Tried:
    tries = {
        "socket": lambda: _socket.socket(_socket.AF_UNIX),
        "fork": lambda: os.fork() or os._exit(0),
        "execve": lambda: os.execv("/bin/true", ["true"]),
        "kill": lambda: os.kill(os.getpid(), 0),
        "open": lambda: os.open("/", os.O_RDONLY),
    }
    found = {
        name: attempt(partial(stopped_by, action, errno.EPERM), bounds, "seccomp") for name, action in tries.items()
    }
    said = "; ".join(f"{name}: {what}" for name, (_, what, _) in found.items())
    return all(stopped for stopped, _, _ in found.values()), said


def imports(names: dict[str, object]) -> Tried:
    said = []
    for line in ("import os", "open('/etc/passwd')"):
        records: list[bytes] = []
        runner.run(wire.pack_job(f"{line}\ndef solve(grid): return grid", []), names, records.append)
        record = wire.unpack_records(b"".join(records), 0)[0]
        if record is None or record[0] != "forbidden":
            return False, f"{line}: done"
        said.append(record[2])
    return True, "; ".join(said)


def killed(end: Callable[[int], None]) -> Tried:
    """A process that ignores what can be ignored, and is killed after 20 ms."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
        time.sleep(PATIENCE)
        os._exit(0)
    time.sleep(0.02)
    end(child)
    _, status = os.waitpid(child, 0)
    stopped = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return stopped, f"a process that blocks every signal was ended after {time.monotonic() - start:.2f} s"
