"""The layers that each program's process puts on itself, right after the fork and for good.

Standard library only: it runs inside the sandbox's processes. All is made ready beforehand, for whatever is touched in
a fork is a page to be copied, and those copies are most of what a program costs.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable

from utils.rl import libc
from utils.rl.layers import DESCRIPTORS, PIPE

LINUX = sys.platform == "linux"
Limit = tuple[int, tuple[int, int]]  # which, (soft, hard)


class Bounds:
    """What a program's process gets: `memory` bytes of address space, `cpu` seconds until SIGXCPU, and a filter."""

    def __init__(self, on: frozenset[str], memory: int, cpu: int, install: Callable[[], None] | None) -> None:
        """`on` names the layers. The interpreter takes some 30 MB of `memory`. SIGKILL comes a second after SIGXCPU."""
        self.on, self.memory, self.cpu, self.install = on, memory, cpu, install
        self.rlimits = [
            limit("RLIMIT_AS", memory),
            limit("RLIMIT_CPU", cpu, cpu + 1),
            limit("RLIMIT_FSIZE", 0),
            limit("RLIMIT_NOFILE", PIPE + 1),
            limit("RLIMIT_CORE", 0),
        ]
        self.processes = [limit("RLIMIT_NPROC", 0)]
        self.die_with_parent = libc.ready("prctl", libc.SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0) if LINUX else None

    def put_on(self, pipe: int, only: str = "") -> None:
        """Every layer of a program's process, or `only` one. `pipe` becomes PIPE."""
        on = self.on & {only} if only else self.on
        if "kill" in on and self.die_with_parent is not None:
            self.die_with_parent()
        if "session" in on:
            os.setsid()
        if pipe != PIPE:
            os.dup2(pipe, PIPE)
        if "descriptors" in on:
            os.closerange(PIPE + 1, DESCRIPTORS)
        if "rlimits" in on:
            put(self.rlimits)
        if "processes" in on:
            put(self.processes)
        if "seccomp" in on and self.install is not None:
            self.install()


def limit(name: str, soft: int, hard: int | None = None) -> Limit:
    """A limit, never above what holds already."""
    which = getattr(resource, name)
    _, most = resource.getrlimit(which)
    wanted = (soft, soft if hard is None else hard)
    return which, wanted if most == resource.RLIM_INFINITY else (min(wanted[0], most), min(wanted[1], most))


def put(limits: list[Limit]) -> None:
    for which, pair in limits:
        try:
            resource.setrlimit(which, pair)
        except (OSError, ValueError):
            if LINUX:
                raise
            # macOS refuses some; the probe of this layer finds that out


def own_size() -> int:
    """Bytes of address space that this process takes; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
