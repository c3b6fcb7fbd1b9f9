"""Landlock: no file may be opened, no TCP port bound or connected to, no process outside signalled; for good.

A ruleset that handles every right which the kernel knows and grants none. Three system calls, so the package
`landlock` would be one more thing to install for them. Standard library only.
https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import os
import struct

from utils.rl import libc

CREATE, RESTRICT = 444, 446  # the same on every machine
VERSION = 1  # a flag of CREATE: tell the ABI
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # ABI -> how many rights over files it knows, from bit 0
NET_RIGHTS = {4: 2}  # bind and connect TCP
SCOPES = {6: 2}  # abstract unix sockets, signals


def abi() -> int:
    """The version that the kernel offers. Raises OSError where it offers none."""
    return libc.syscall(CREATE, None, 0, VERSION)


def ruleset(version: int) -> bytes:
    """A struct landlock_ruleset_attr that handles everything of that ABI: as many fields as it knows."""
    fields = [_bits(rights, version) for rights in (FILE_RIGHTS, NET_RIGHTS, SCOPES)]
    while not fields[-1]:
        fields.pop()
    return struct.pack(f"={len(fields)}Q", *fields)


def restrict() -> int:
    """Put this process and all it starts under the ruleset; its ABI."""
    version = abi()
    attributes = ruleset(version)
    libc.prctl(libc.SET_NO_NEW_PRIVILEGES, 1)
    handle = libc.syscall(CREATE, attributes, len(attributes), 0)
    try:
        libc.syscall(RESTRICT, handle, 0)
    finally:
        os.close(handle)
    return version


def _bits(rights: dict[int, int], version: int) -> int:
    known = [count for since, count in rights.items() if since <= version]
    return (1 << max(known)) - 1 if known else 0
