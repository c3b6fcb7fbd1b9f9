"""Namespaces: an empty file system, a network without interfaces, own processes, own users, own shared memory.

Root makes them directly; another user makes a user namespace first, which gives the right to the others. Where a
machine forbids that (Colab, most containers) they are missing, and the probes say so. Standard library only.
"""

from __future__ import annotations

import os

from utils.rl import libc

KINDS = {"network": libc.NEW_NET, "ipc": libc.NEW_IPC, "mount": libc.NEW_MOUNT, "pid": libc.NEW_PID}
EMPTY = b"/proc"  # any directory that is there: the empty file system is mounted over it, in our mounts alone


def enter(wanted: frozenset[str], uid: int) -> dict[str, str]:
    """Enter the wanted ones of KINDS and "user", and become `uid` if root and "uid" is wanted.

    Returns why, for each that could not be had. Processes started from here on are in the pid namespace; this one is
    not.
    """
    wanted_kinds = [name for name in KINDS if name in wanted]
    own = _directory("/proc/self")
    root, why = os.geteuid() == 0, {}
    if root:
        why = {name: fault for name in wanted_kinds if (fault := _tried(_one, name))}
        if "uid" in wanted and (fault := _tried(become, uid)):
            why["uid"] = fault
    if "user" in wanted:
        fault = _tried(_user, own)
        if fault:
            why["user"] = fault
        else:
            missing = [name for name in wanted_kinds if name in why or not root]
            why = {name: why[name] for name in why if name not in missing}
            why |= {name: fault for name in missing if (fault := _tried(_one, name))}
    elif not root:
        why |= dict.fromkeys(wanted_kinds, "only root can make it without a user namespace")
    if own is not None:
        os.close(own)
    return why


def become(uid: int) -> None:
    """Another user, of no groups, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    libc.prctl(libc.SET_DUMPABLE, 1)  # else /proc/self, and so uid_map, stays root's


def _one(name: str) -> None:
    libc.call("unshare", KINDS[name])
    if name == "mount":
        _empty_root()


def _user(own: int | None) -> None:
    """A user namespace that knows this user alone, so no other can be become."""
    uid, gid = os.getuid(), os.getgid()
    libc.call("unshare", libc.NEW_USER)
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        handle = os.open(name, os.O_WRONLY, dir_fd=own)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


def _empty_root() -> None:
    """Make an empty, read-only file system the root, and let go of the old one (pivot_root(2), "." and ".")."""
    libc.call("mount", None, b"/", None, libc.RECURSIVE | libc.PRIVATE, None)
    flags = libc.NO_SUID | libc.NO_DEVICES | libc.NO_PROGRAMS
    libc.call("mount", b"none", EMPTY, b"tmpfs", flags, b"size=4k,nr_inodes=2,mode=555")
    os.chdir(EMPTY)
    libc.syscall(155 if os.uname().machine == "x86_64" else 41, b".", b".")  # pivot_root
    libc.call("umount2", b".", libc.DETACH)
    os.chdir("/")
    libc.call("mount", None, b"/", None, libc.REMOUNT | libc.READ_ONLY | flags, None)


def _directory(path: str) -> int | None:
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY)
    except OSError:  # no /proc: then there is no uid_map to write, and the user namespace says so
        return None


def _tried(action: object, argument: object) -> str:
    try:
        action(argument)
    except (OSError, TypeError) as error:
        return str(error)
    return ""
