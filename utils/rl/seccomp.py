"""The seccomp filter of a program: the system calls that it may make, as classic BPF for x86_64 and aarch64.

A program computes and writes its result to one pipe, so memory, clocks and the end of the process are all it gets.
Calls that Python itself may try in passing (opening a file, asking for the terminal) fail with EPERM, which a person
sees as `forbidden` with a line; any other call ends the process at once (SIGSYS).

Our own forty instructions rather than the package `pyseccomp`: that one needs the system library libseccomp, which
Colab's Python does not come with, and the zygote runs without site-packages so that it starts in milliseconds.
Bubblewrap is a system program of its own, started anew for each program. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable

from utils.rl import libc

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h

# Numbers: (x86_64: asm/unistd_64.h, aarch64: asm-generic/unistd.h); None where the machine has no such call.
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "munmap": (11, 215),
    "mremap": (25, 216),
    "brk": (12, 214),
    "madvise": (28, 233),
    "futex": (202, 98),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "sched_yield": (24, 124),
    "restart_syscall": (219, 128),
    "rt_sigreturn": (15, 139),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
WRITE = ("write", (1, 64))  # to the result pipe alone
MEMORY = {"mmap": (9, 222), "mprotect": (10, 226)}  # without PROT_EXEC: no new machine code
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "close": (3, 57),
    "open": (2, None),
    "openat": (257, 56),
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "lseek": (8, 62),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "dup": (32, 23),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "prlimit64": (302, 261),
    "sched_getaffinity": (204, 123),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "sigaltstack": (131, 132),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_getres": (229, 114),
}
MACHINES = tuple(ARCHITECTURES)

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
KILL, REFUSE, ALLOW = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000  # linux/seccomp.h
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
PROT_EXEC = 4
FILTER_MODE = 2

Instruction = tuple[int, int, int, int]  # code, how many to skip if true, if false, the constant


def instructions(machine: str, pipe: int) -> list[Instruction]:
    """The filter for a machine: `pipe` is the only descriptor that may be written to.

    The low half of an argument lies first on both machines (little endian); the kernel takes a descriptor as 32 bits,
    and PROT_EXEC lies in the low half.
    """
    at = MACHINES.index(machine)
    start = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, ARCHITECTURES[machine]), (RETURN, 0, 0, KILL)]
    code = [*start, (LOAD, 0, 0, NUMBER)]
    code += [(EQUAL, 0, 4, WRITE[1][at]), (LOAD, 0, 0, ARGUMENTS), (EQUAL, 0, 1, pipe), (RETURN, 0, 0, ALLOW)]
    code += [(RETURN, 0, 0, REFUSE)]
    for numbers in MEMORY.values():
        code += [(EQUAL, 0, 4, numbers[at]), (LOAD, 0, 0, ARGUMENTS + 2 * 8), (ANY_BIT, 0, 1, PROT_EXEC)]
        code += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    for calls, verdict in ((ALLOWED, ALLOW), (REFUSED, REFUSE)):
        for numbers in calls.values():
            if numbers[at] is not None:
                code += [(EQUAL, 0, 1, numbers[at]), (RETURN, 0, 0, verdict)]
    return [*code, (RETURN, 0, 0, KILL)]


def prepare(pipe: int) -> Callable[[], None]:
    """What installs the filter of this machine in a process without new privileges, for good.

    Raises OSError where there is no table for the machine.
    """
    machine = os.uname().machine
    if machine not in ARCHITECTURES or sys.maxsize < 2**32:
        raise OSError(
            errno.ENOSYS, f"no seccomp filter for {machine}; there is one for 64-bit {' and '.join(MACHINES)}"
        )
    code = instructions(machine, pipe)
    body = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(body)))  # struct sock_fprog
    program.body = body  # kept alive with it
    return libc.ready("prctl", libc.SET_SECCOMP, FILTER_MODE, program, 0, 0)
