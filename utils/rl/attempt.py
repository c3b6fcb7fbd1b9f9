"""An attempt at what is forbidden, made in a fork: whether it was stopped, and what happened.

Leaves out what is attempted (`rl.probes`). Standard library only.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

from utils.rl import layers
from utils.rl.bounds import Bounds

PATIENCE = 10.0  # seconds for one attempt

Tried = tuple[bool, str]  # whether it was stopped, and what happened


def attempt(action: Callable[[], Tried], bounds: Bounds | None = None, only: str = "") -> tuple[bool, str, int]:
    """Do it in a fork, with one layer of `bounds`; (stopped, what happened, wait status)."""
    out, inside = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if bounds is None:
                os.dup2(inside, layers.PIPE)
            else:
                bounds.put_on(inside, only)
            try:
                stopped, said = action()
            except Exception as error:
                stopped, said = False, f"could not be tried: {error!r}"
            os.write(layers.PIPE, bytes((stopped,)) + said.encode())
        finally:
            os._exit(0)
    os.close(inside)
    raw, end = b"", time.monotonic() + PATIENCE
    while select.select([out], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(out, 4096)
        raw += part
        if not part:
            break
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(out)
    _, status = os.waitpid(pid, 0)
    if raw:
        return bool(raw[0]), raw[1:].decode("utf-8", "replace"), status
    if os.WIFSIGNALED(status):
        return True, f"ended by {signal.Signals(os.WTERMSIG(status)).name}", status
    return False, "gave no answer", status


def stopped_by(action: Callable[[], object], *codes: int) -> Tried:
    """Whether it raises an OSError (of one of `codes`, where there are any)."""
    try:
        result = action()
    except OSError as error:
        return not codes or error.errno in codes, os.strerror(error.errno) if error.errno else str(error)
    return False, f"done ({result!r:.40})"
