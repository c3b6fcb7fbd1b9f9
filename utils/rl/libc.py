"""The calls of Linux that Python's standard library has no name for, by ctypes. Each raises OSError where it fails.

Standard library only: it runs inside the sandbox's processes.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

NEW_MOUNT, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000  # sched.h
SET_DEATH_SIGNAL, SET_DUMPABLE, SET_SECCOMP, SET_NO_NEW_PRIVILEGES = 1, 4, 22, 38  # linux/prctl.h
READ_ONLY, NO_SUID, NO_DEVICES, NO_PROGRAMS, RECURSIVE, PRIVATE, REMOUNT = 1, 2, 4, 8, 0x4000, 1 << 18, 32  # mount.h
DETACH = 2
CAPABILITY_VERSION = 0x20080522  # linux/capability.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(name: str, *arguments: int | bytes | ctypes.Array | None) -> int:
    """A function of libc, of whole numbers and byte strings."""
    return _checked(name, getattr(_libc, name)(*map(_long, arguments)))


def syscall(number: int, *arguments: int | bytes | ctypes.Array | None) -> int:
    """A system call by its number."""
    return _checked(f"system call {number}", _libc.syscall(*map(_long, (number, *arguments))))


def ready(name: str, *arguments: int | bytes | ctypes.Array | None) -> Callable[[], None]:
    """`call`, to be made later and with as little as possible to do then."""
    function, prepared = getattr(_libc, name), tuple(map(_long, arguments))

    def made() -> None:
        if function(*prepared) < 0:
            _checked(name, -1)

    return made


def prctl(option: int, value: int | ctypes.Array, second: int | ctypes.Array = 0) -> None:
    call("prctl", option, value, second, 0, 0)


def drop_capabilities() -> None:
    """Give up every capability, for good: nothing that is executed gains one (no_new_privs)."""
    header, none = struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24)
    call("capset", header, none)


def _long(argument: int | bytes | ctypes.Array | None) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def _checked(name: str, result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
