"""How the zygote starts: what programs may use is imported, the layers are put on, and each is tried.

Standard library only.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import NamedTuple

from utils.rl import landlock, layers, libc, namespaces, probes, runner, seccomp
from utils.rl.attempt import attempt
from utils.rl.bounds import Bounds, limit, own_size, put
from utils.rl.probes import ACTIVE, MISSING, NOT_NEEDED


class Booted(NamedTuple):
    """What each program's process starts from, and how each layer was found: {name: (ACTIVE or MISSING, reason)}."""

    bounds: Bounds
    names: dict[str, object]
    report: dict[str, tuple[str, str]]


def boot(settings: dict, kill: Callable[[int], None]) -> Booted:
    """`settings` are what `rl.worker` sends. Layers are tried in the order in which they are put on."""
    on, bait, linux = frozenset(settings["on"]), settings["bait"], sys.platform == "linux"
    why: dict[str, str] = {name: "switched off" for name in layers.LAYERS if name not in on}
    report: dict[str, tuple[str, str]] = {}

    def tell(name: str, tried: tuple) -> None:
        stopped, said = tried[:2]
        reason = f"; {why[name]}" if name in why else ""
        report[name] = (ACTIVE if stopped and name in on else MISSING, said + reason)

    tell("process", probes.process(bait["trainer"], bait["modules"]))
    tell("environment", probes.environment(set(os.environ)))
    if "environment" in on:
        os.environ.clear()
    put([limit("RLIMIT_NOFILE", layers.DESCRIPTORS)])
    names = _names(settings)
    was_root, memory = os.geteuid() == 0, own_size() + settings["memory"]
    if linux:
        why |= _enter(on, settings["uid"])
    else:
        why |= dict.fromkeys(("user", *namespaces.KINDS, "landlock", "seccomp"), "only Linux has it")

    if was_root:
        tell("uid", attempt(probes.uid))
    else:
        report["uid"] = (NOT_NEEDED, "the trainer is not root; programs run as its user")
    tell("user", attempt(probes.user))
    tell("network", attempt(lambda: probes.network(bait["port"])))
    tell("pid", attempt(lambda: probes.pid(bait["trainer"], bait["session"])))
    if bait["queue"] is None:
        report["ipc"] = (NOT_NEEDED, "the system has no System V message queues")
    else:
        tell("ipc", attempt(lambda: probes.ipc(bait["queue"])))
    tell("mount", attempt(probes.mount))

    if "landlock" in on and linux:
        _note(why, "landlock", landlock.restrict)
    tell("landlock", attempt(probes.landlock))

    install = _note(why, "seccomp", lambda: seccomp.prepare(layers.PIPE)) if linux and "seccomp" in on else None
    bounds = Bounds(on, memory, settings["cpu"], install)
    tell("session", attempt(lambda group=os.getpgrp(): probes.session(group), bounds, "session"))
    tell("descriptors", attempt(probes.descriptors, bounds, "descriptors"))
    tell("rlimits", probes.rlimits(bounds, settings["spin"]))
    tell("processes", probes.processes(bounds))
    tell("seccomp", probes.seccomp(bounds))
    tell("imports", attempt(lambda: probes.imports(names)))
    tell("kill", probes.killed(kill) if "kill" in on else (False, "nothing is timed"))
    return Booted(bounds, names, report)


def _enter(on: frozenset[str], uid: int) -> dict[str, str]:
    """Namespaces and another user; then no privilege, no looking into this process, and the first process inside."""
    why = namespaces.enter(on, uid)
    if "uid" in on or "user" in on:
        libc.drop_capabilities()
    libc.prctl(libc.SET_NO_NEW_PRIVILEGES, 1)
    libc.prctl(libc.SET_DUMPABLE, 0)
    if "pid" in on and "pid" not in why:
        _first_process()
    return why


def _first_process() -> None:
    """Go on as the first process of the namespace; this one waits for it, and ends it if the trainer is gone."""
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    inside = os.fork()
    if inside == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        libc.prctl(libc.SET_DEATH_SIGNAL, signal.SIGKILL)
        return
    os.closerange(0, layers.DESCRIPTORS)
    while os.waitpid(inside, os.WNOHANG) == (0, 0):
        signal.sigtimedwait({signal.SIGCHLD}, 1.0)
        if os.getppid() != parent:
            os.kill(inside, signal.SIGKILL)
    os._exit(0)


def _names(settings: dict) -> dict[str, object]:
    """A program's names; every module that it may import is there already, for later nothing can be read."""
    warnings.simplefilter("ignore")
    for name in settings["modules"]:
        importlib.import_module(name)
    names = dict(importlib.import_module(settings["primitives"]).PRIMITIVES) if settings["primitives"] else {}
    sys.path.clear()
    allowed = runner.builtins_for(tuple(settings["modules"])) if "imports" in settings["on"] else __builtins__
    return {**names, "__name__": "program", "__builtins__": allowed}


def _note(why: dict[str, str], name: str, action: Callable[[], object]) -> object:
    """What the action gives; where it fails, None and the reason in `why`."""
    try:
        return action()
    except OSError as error:
        why[name] = str(error)
        return None
