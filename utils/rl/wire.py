"""What the trainer, the zygote and a program's process write to one another: lengths and bytes, never pickle.

    trainer -> zygote    number, length, count | program length, program, count, then each input as height, width, cells
    program -> zygote    a record for loading the program and one for each input: a grid, or a fault
    zygote -> trainer    number, how it ended, wait status, microseconds, length | the program's records, as they came

A program's process is hostile, and has a pipe to itself: its records are parsed by the trainer alone, which believes
none of them. Standard library only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

KINDS = ("syntax", "runtime", "timeout", "memory", "forbidden", "bad_output")
SIDE, COLOURS = 30, 10
LOADED, GRID, FAULT = 0, 1, 2  # a record's first byte; FAULT + the place of its kind in KINDS
ENDED, OVERDUE, TOO_LONG, NOT_STARTED = range(4)  # how a program's process ended
MESSAGE = 300  # bytes of a fault's message
RECORD = max(3 + SIDE * SIDE, 7 + MESSAGE)  # bytes of the longest record

JOB = struct.Struct("<III")
ANSWER = struct.Struct("<IBiII")
_LENGTH, _COUNT, _FAULT = struct.Struct("<I"), struct.Struct("<H"), struct.Struct("<BIH")

RawGrid = tuple[int, int, bytes]  # height, width, cells in reading order
RawFault = tuple[str, int | None, str]  # kind, line, message


class WireError(ValueError):
    """Bytes that are no records of a program."""


def pack_job(program: str, inputs: Iterable[RawGrid]) -> bytes:
    text, grids = program.encode("utf-8", "surrogatepass"), list(inputs)
    body = [_LENGTH.pack(len(text)), text, _COUNT.pack(len(grids))]
    return b"".join([*body, *(bytes((height, width)) + cells for height, width, cells in grids)])


def unpack_job(body: bytes) -> tuple[str, list[list[list[int]]]]:
    """The program, and each input as a list of rows."""
    (length,) = _LENGTH.unpack_from(body)
    at = _LENGTH.size + length
    program = body[_LENGTH.size : at].decode("utf-8", "surrogatepass")
    (count,) = _COUNT.unpack_from(body, at)
    at, inputs = at + _COUNT.size, []
    for _ in range(count):
        height, width = body[at], body[at + 1]
        at += 2
        inputs.append([list(body[at + row * width : at + (row + 1) * width]) for row in range(height)])
        at += height * width
    return program, inputs


def pack_fault(kind: str, line: int | None, message: str) -> bytes:
    text = message.encode("utf-8", "replace")[:MESSAGE]
    return _FAULT.pack(FAULT + KINDS.index(kind), max(0, min(line or 0, 2**32 - 1)), len(text)) + text


def pack_grid(grid: object) -> bytes:
    """A program's answer. Raises ValueError where it is not rows of whole numbers 0 to 9, with sides of 1 to 30."""
    if type(grid) not in (list, tuple):
        raise ValueError(f"a {type(grid).__name__}; expected a grid: a list of rows")
    if not 1 <= len(grid) <= SIDE:
        raise ValueError(f"{len(grid)} rows; expected 1 to {SIDE}")
    rows = list(grid)
    for number, row in enumerate(rows):
        if type(row) not in (list, tuple):
            raise ValueError(f"row {number} is a {type(row).__name__}; expected a list of colours")
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} cells and row 0 has {len(rows[0])}; expected a rectangle")
        if not 1 <= len(row) <= SIDE:
            raise ValueError(f"row {number} has {len(row)} cells; expected 1 to {SIDE}")
        if set(map(type, row)) != {int}:
            other = next(kind for kind in map(type, row) if kind is not int)
            raise ValueError(f"row {number} holds a {other.__name__}; expected whole numbers 0 to {COLOURS - 1}")
        if min(row) < 0 or max(row) >= COLOURS:
            raise ValueError(f"row {number} holds a number outside 0 to {COLOURS - 1}")
    return bytes((GRID, len(rows), len(rows[0]))) + b"".join(map(bytes, rows))


def unpack_records(raw: bytes, count: int) -> list[RawGrid | RawFault | None]:
    """The records of a program of `count` inputs, as many as are whole; None is LOADED. Raises `WireError`."""
    records: list[RawGrid | RawFault | None] = []
    at = 0
    while at < len(raw):
        if len(records) > count:
            raise WireError(f"more than {1 + count} records")
        record, at = _record(raw, at)
        if at > len(raw):
            break
        first, fault = not records, record is not None and record[0] in KINDS
        if (record is None) != first and not (first and fault) or records and records[0] is not None:
            raise WireError("records out of order")
        records.append(record)
    return records


def _record(raw: bytes, at: int) -> tuple[RawGrid | RawFault | None, int]:
    """The record at `at`, and where the next begins: behind the end where the record is cut off."""
    tag, cut = raw[at], (None, len(raw) + 1)
    if tag == LOADED:
        return None, at + 1
    if tag == GRID:
        if at + 3 > len(raw):
            return cut
        height, width = raw[at + 1], raw[at + 2]
        cells = raw[at + 3 : at + 3 + height * width]
        if not (1 <= height <= SIDE and 1 <= width <= SIDE) or (cells and max(cells) >= COLOURS):
            raise WireError("a grid outside the bounds")
        return (height, width, cells), at + 3 + height * width
    if tag >= FAULT + len(KINDS):
        raise WireError(f"a record of kind {tag}")
    if at + _FAULT.size > len(raw):
        return cut
    _, line, length = _FAULT.unpack_from(raw, at)
    start = at + _FAULT.size
    if length > MESSAGE:
        raise WireError(f"a message of {length} bytes")
    message = raw[start : start + length].decode("utf-8", "replace")
    return (KINDS[tag - FAULT], line or None, message), start + length


def limit(count: int) -> int:
    """Bytes that a program of `count` inputs may write."""
    return (1 + count) * RECORD
