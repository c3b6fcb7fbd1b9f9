"""What came of a program: its grids, checked again on this side, and its faults, typed.

Leaves out expected outputs: whoever has them compares.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from utils.arc.grids import check_grid
from utils.rl import wire

if TYPE_CHECKING:
    from utils.rl.worker import Answer

Kind = Literal["syntax", "runtime", "timeout", "memory", "forbidden", "bad_output"]


@dataclass(frozen=True)
class Fault:
    """Why there is no output: what kind of fault, on which line of the program where known, and in words."""

    kind: Kind
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.kind}{f', line {self.line}' if self.line else ''}: {self.message}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a job, input by input: (h, w) uint8 outputs, None where there is a fault."""

    outputs: tuple[np.ndarray | None, ...]
    error: Fault | None
    """the first fault, of loading the program or of an input"""
    seconds: float
    """of the program's process, as the clock goes"""
    faults: tuple[Fault | None, ...] = ()
    """of each input; a program that cannot be loaded has the same fault for all"""


def outcome(answer: Answer, count: int, lines: int) -> Outcome:
    """Of a program of so many lines called on `count` inputs. What it wrote before it was ended counts."""
    try:
        records = wire.unpack_records(answer.raw, count)
    except wire.WireError as error:
        return failed(Fault("bad_output", None, f"no result, but {error}"), count, answer.seconds)
    loaded = [_read(record, lines) for record in records]
    if records and records[0] is not None:
        return failed(loaded[0], count, answer.seconds)
    loaded = loaded[1:]
    if len(records) < 1 + count:
        rest = _ending(answer)
        loaded += [rest] * (count - len(loaded))
        if not count:
            return failed(rest, count, answer.seconds)
    faults = tuple(one if isinstance(one, Fault) else None for one in loaded)
    outputs = tuple(None if isinstance(one, Fault) else one for one in loaded)
    return Outcome(outputs, next(filter(None, faults), None), answer.seconds, faults)


def failed(fault: Fault, count: int, seconds: float = 0.0) -> Outcome:
    """One fault for the whole program."""
    return Outcome((None,) * count, fault, seconds, (fault,) * count)


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcome of a job whose inputs had a process each."""
    if len(parts) == 1:
        return parts[0]
    outputs = tuple(output for part in parts for output in part.outputs)
    faults = tuple(fault for part in parts for fault in part.faults)
    return Outcome(outputs, next(filter(None, faults), None), sum(part.seconds for part in parts), faults)


def _read(record: wire.RawGrid | wire.RawFault | None, lines: int) -> np.ndarray | Fault | None:
    if record is None:
        return None
    if record[0] in wire.KINDS:
        kind, line, message = record
        readable = "".join(letter if letter.isprintable() else " " for letter in message)
        return Fault(kind, None if line is None else min(line, lines), readable)
    height, width, cells = record
    return check_grid(np.frombuffer(cells, np.uint8).reshape(height, width))


def _ending(answer: Answer) -> Fault:
    """Why a program's process wrote no more."""
    if answer.how == wire.OVERDUE:
        return Fault("timeout", None, f"killed after {answer.seconds:.2f} s")
    if answer.how == wire.TOO_LONG:
        return Fault("bad_output", None, f"more than {len(answer.raw)} bytes of output")
    if not os.WIFSIGNALED(answer.status):
        return Fault("forbidden", None, "the program ended its own process without a result")
    number = os.WTERMSIG(answer.status)
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number == signal.SIGSYS:
        return Fault("forbidden", None, "a system call that computing does not need (seccomp)")
    if number == signal.SIGXCPU:
        return Fault("timeout", None, f"out of processor time after {answer.seconds:.2f} s")
    if number == signal.SIGKILL:
        return Fault("memory", None, "killed by the system, as it is where memory runs out")
    return Fault("runtime", None, f"the interpreter crashed ({name}), as it does where recursion is too deep for it")
