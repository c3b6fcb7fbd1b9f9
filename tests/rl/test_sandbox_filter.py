"""The seccomp filter and Landlock ruleset of every machine: against an interpreter of BPF, and the kernel headers."""

import errno
import re
import struct
from pathlib import Path

import pytest

from utils.rl import landlock, seccomp

ALLOW, REFUSE, KILL = "allow", "refuse", "kill"
VERDICTS = {0x7FFF0000: ALLOW, 0x00050000 + errno.EPERM: REFUSE, 0x80000000: KILL}  # SECCOMP_RET_*
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}  # AUDIT_ARCH_*
HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}
PIPE = 0
REACHING = """
    clone clone3 execve execveat kill tkill tgkill ptrace process_vm_readv process_vm_writev pidfd_open socket
    socketpair connect bind sendto recvmsg unshare setns mount pivot_root chroot bpf io_uring_setup prctl
    seccomp setuid setresuid capset keyctl perf_event_open userfaultfd memfd_create init_module reboot shmget
    msgget setsid setpriority sched_setscheduler timer_create unlinkat mkdirat symlinkat renameat2 fchmodat
    truncate pipe2 dup3 close_range
"""


def verdict(machine, number, arguments=(), architecture=""):
    """What the kernel's classic BPF machine would say (Documentation/networking/filter.rst)."""
    data = struct.pack(
        "<iIQ6Q", number, ARCHITECTURES[architecture or machine], 0, *arguments, *[0] * (6 - len(arguments))
    )
    code, at, loaded = seccomp.instructions(machine, PIPE), 0, 0
    while True:
        operation, true, false, constant = code[at]
        at += 1
        if operation == 0x20:  # load a word
            (loaded,) = struct.unpack_from("<I", data, constant)
        elif operation == 0x15:  # jump if equal
            at += true if loaded == constant else false
        elif operation == 0x45:  # jump if any bit is set
            at += true if loaded & constant else false
        elif operation == 0x06:
            return VERDICTS[constant]
        else:
            raise AssertionError(f"no instruction {operation:#x}")


def table(machine):
    """{name: number} of the system calls, from the kernel's header; 64-bit where the generic one has a choice."""
    path = Path(HEADERS[machine])
    if not path.exists():
        pytest.skip(f"{path} is not here")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())
    names = {name: int(number) for name, number in found}
    return {**names, "newfstatat": names.get("newfstatat", names.get("fstatat", 0))}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_those_of_the_kernels_header(machine):
    header, at = table(machine), list(seccomp.ARCHITECTURES).index(machine)
    ours = {**seccomp.ALLOWED, **seccomp.REFUSED, **seccomp.MEMORY, seccomp.WRITE[0]: seccomp.WRITE[1]}
    for name, numbers in ours.items():
        if numbers[at] is None:
            assert name not in header
        else:
            assert header[name] == numbers[at], name


@pytest.mark.parametrize("machine", HEADERS)
def test_every_call_of_the_machine_is_judged_by_its_table(machine):
    """All numbers up to 1000, without arguments: allowed, refused, and all the others killed."""
    at = list(seccomp.ARCHITECTURES).index(machine)
    allowed = {numbers[at] for numbers in (*seccomp.ALLOWED.values(), *seccomp.MEMORY.values(), seccomp.WRITE[1])}
    refused = {numbers[at] for numbers in seccomp.REFUSED.values()} - {None}
    assert not allowed & refused
    for number in range(1000):
        expected = ALLOW if number in allowed else REFUSE if number in refused else KILL
        assert verdict(machine, number) == expected, number


@pytest.mark.parametrize("machine", HEADERS)
def test_what_reaches_out_of_a_process_ends_it(machine):
    """By the header's names: processes, signals, sockets, tracing, namespaces, mounts, loading code."""
    header = table(machine)
    for name in REACHING.split():
        assert verdict(machine, header[name]) == KILL, name


@pytest.mark.parametrize("machine", HEADERS)
def test_writing_is_for_the_result_pipe_and_memory_never_becomes_code(machine):
    header = table(machine)
    for handle in (1, 2, 3, 100, 0xFFFFFFFF):
        assert verdict(machine, header["write"], (handle,)) == REFUSE
    assert verdict(machine, header["write"], (PIPE, 0x7F00, 10)) == ALLOW
    for name in ("mmap", "mprotect"):
        for protection in range(16):
            expected = REFUSE if protection & 4 else ALLOW  # PROT_EXEC
            assert verdict(machine, header[name], (0x7F00, 4096, protection, 0x22, 0xFFFFFFFF)) == expected


@pytest.mark.parametrize("machine", HEADERS)
def test_the_calls_of_another_architecture_end_the_process(machine):
    """Such as 32-bit calls by int 0x80, or x32 numbers: the same numbers mean other things there."""
    for other in set(ARCHITECTURES) - {machine}:
        assert {verdict(machine, number, architecture=other) for number in range(500)} == {KILL}
    assert {verdict(machine, 0x40000000 + number) for number in range(600)} == {KILL}
    assert verdict(machine, -1) == KILL


def test_a_machine_without_a_table_is_refused(monkeypatch):
    import os
    from types import SimpleNamespace

    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="riscv64"))
    with pytest.raises(OSError, match="no seccomp filter for riscv64; there is one for 64-bit x86_64 and aarch64"):
        seccomp.prepare(PIPE)


@pytest.mark.parametrize(
    ("abi", "size", "files", "ports", "scopes"),
    [
        (1, 8, 13, 0, 0),
        (2, 8, 14, 0, 0),
        (3, 8, 15, 0, 0),
        (4, 16, 15, 2, 0),
        (5, 16, 16, 2, 0),
        (6, 24, 16, 2, 2),
        (7, 24, 16, 2, 2),
    ],
)
def test_the_ruleset_handles_every_right_that_an_abi_knows(abi, size, files, ports, scopes):
    """The number of rights and the size of the struct: linux/landlock.h, by version."""
    packed = landlock.ruleset(abi)
    assert len(packed) == size
    fields = struct.unpack(f"={size // 8}Q", packed)
    assert fields == tuple((1 << count) - 1 for count in (files, ports, scopes))[: size // 8]
