"""The layers between a program and everything else, by name, and which of them are the floor.

    the zygote, once, inherited by every program    process environment uid user network pid ipc mount landlock
    each program's own process                      session descriptors rlimits processes seccomp imports
    the zygote's clock                              kill

Standard library only: it is read on both sides. Leaves out how each is put on (`rl.namespaces`, `rl.bounds`).
"""

from __future__ import annotations

LAYERS = {
    "process": "programs run in processes of a fresh interpreter, never in the trainer's",
    "environment": "the environment holds nothing of the trainer's",
    "uid": "root is given up for a user without rights",
    "user": "own user namespace: no other user can be become",
    "network": "own network namespace, without interfaces",
    "pid": "own process namespace: processes outside have no number",
    "ipc": "own System V shared memory and queues",
    "mount": "own file system, empty and read-only",
    "landlock": "no file is opened, no port connected to",
    "session": "own session and process group",
    "descriptors": "no descriptor is open but the result pipe",
    "rlimits": "limits of address space, processor time, file size, open files, core dumps",
    "processes": "no process or thread is started",
    "seccomp": "only the system calls that computing needs",
    "imports": "only listed modules, and no builtin that leaves the program (for its errors; no wall)",
    "kill": "what outlives its time is killed",
}
FLOOR = ("process", "rlimits", "seccomp", "kill")
"""Without all of these no program is run, unless `allow_unsafe`."""

PIPE = 0  # the number of the result pipe in a program's process
CANARY = "RUN_ALL_CANARY"  # a name in the environment that the zygote would have from the trainer
DESCRIPTORS = 512  # the zygote has no more, so closing all of them is quick
