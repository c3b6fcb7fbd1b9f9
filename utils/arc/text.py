"""Grids as text and back, exactly, in three formats.

    digits    a line a row, a digit a cell
    compact   one line: rows parted by "/", a letter after a colour for a run of it (c is 3, z 26, A 27, D 30), and
              "*" with a number after a row for equal rows below one another: 0D*30 is 30 rows of 30 black cells
    objects   the size and the background, the digits, and a line for each of the largest objects, which are hints

A grid is never longer in compact than in digits. Text that is no grid in its format raises `TextError`.
Leaves out what is said around a grid (`arc.prompts`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby, zip_longest
from typing import Literal

import numpy as np

from utils.arc.grids import GridError, check_grid
from utils.arc.objects import background, find_objects

Format = Literal["digits", "compact", "objects"]
RUNS = " abcdefghijklmnopqrstuvwxyzABCD"  # the letter of a run of as many cells as its place
HINTS = 8  # objects that are described; the rest are counted


class TextError(ValueError):
    """Text that is no grid in its format: the message names the row and the fault."""


def to_text(grid: np.ndarray, format: Format = "digits") -> str:
    """A grid (h, w) as text, without a line break at its end. Raises `GridError` for what is not a grid."""
    write, _ = _of(format)
    return write(check_grid(grid))


def from_text(text: str, format: Format = "digits") -> np.ndarray:
    """The (h, w) uint8 grid of a text. Raises `TextError`; rows are counted from 0."""
    _, read = _of(format)
    try:
        return check_grid(read(text))
    except GridError as error:
        raise TextError(f"{error}.") from None


def _of(format: str) -> tuple[Callable[[np.ndarray], str], Callable[[str], np.ndarray]]:
    if format not in FORMATS:
        raise ValueError(f"No format {format!r} of grids; expected one of: {', '.join(FORMATS)}.")
    return FORMATS[format]


def _write_digits(grid: np.ndarray) -> str:
    lines = np.full((grid.shape[0], grid.shape[1] + 1), ord("\n"), np.uint8)
    lines[:, :-1] = grid + ord("0")
    return lines.tobytes()[:-1].decode("ascii")


def _read_digits(text: str) -> np.ndarray:
    rows = text.split("\n")
    for number, row in enumerate(rows):
        if fault := re.search("[^0-9]", row):
            raise TextError(f"row {number}: {fault.group()!r} at column {fault.start()}; expected a digit 0 to 9.")
        _same_width(number, len(row), len(rows[0]))
    cells = np.frombuffer("".join(rows).encode("ascii"), np.uint8) - ord("0")
    return cells.reshape(len(rows), -1)


def _same_width(number: int, width: int, first: int) -> None:
    if width == 0 or width != first:
        raise TextError(f"row {number} has {width} cells and row 0 has {first}; expected a rectangle.")


def _write_compact(grid: np.ndarray) -> str:
    parts = []
    for row, equal in groupby(map(_write_runs, grid.tolist())):
        count = len(list(equal))
        parts.append(row if count == 1 else f"{row}*{count}")
    return "/".join(parts)


def _write_runs(row: list[int]) -> str:
    runs = ((colour, len(list(cells))) for colour, cells in groupby(row))
    return "".join(f"{colour}{RUNS[count]}" if count > 2 else str(colour) * count for colour, count in runs)


def _read_compact(text: str) -> np.ndarray:
    rows: list[str] = []
    for part in text.split("/"):
        number = len(rows)
        body, star, count = part.partition("*")
        if star and not re.fullmatch("[2-9]|[12][0-9]|30", count):
            raise TextError(f"row {number}: '*{count:.20}'; expected '*' and how many equal rows, 2 to 30.")
        matched = re.match("(?:[0-9][a-zA-D]?)*", body).end()
        if matched < len(body):
            raise TextError(
                f"row {number}: {body[matched]!r} after {body[:matched]!r}; expected a digit, or one letter (a to z,"
                " A to D) after a digit."
            )
        runs = re.findall("([0-9])([a-zA-D]?)", body)
        row = "".join(colour * (RUNS.index(length) if length else 1) for colour, length in runs)
        _same_width(number, len(row), len(rows[0]) if rows else len(row))
        rows += [row] * (int(count) if star else 1)
    return _read_digits("\n".join(rows))


def _write_objects(grid: np.ndarray) -> str:
    height, width = grid.shape
    return "\n".join([f"size {height}x{width}, background {background(grid)}", _write_digits(grid), *_hints(grid)])


def _hints(grid: np.ndarray) -> list[str]:
    found = find_objects(grid)
    lines = [
        f"object: colour {one.colour}, cells {one.cells}, rows {one.top} to {one.bottom},"
        f" columns {one.left} to {one.right}"
        for one in found[:HINTS]
    ]
    return lines + [f"smaller objects: {len(found) - HINTS}"] * (len(found) > HINTS)


def _read_objects(text: str) -> np.ndarray:
    first, *lines = text.split("\n")
    head = re.fullmatch("size ([0-9]{1,2})x([0-9]{1,2}), background [0-9]", first)
    if head is None:
        raise TextError(f"the first line is {first!r:.60}; expected 'size 3x4, background 0', say.")
    height, width = int(head.group(1)), int(head.group(2))
    if len(lines) < height:
        raise TextError(f"row {len(lines)} is not there; expected {height} rows, as the size says.")
    grid = _read_digits("\n".join(lines[:height])) if height else np.zeros((0, 0), np.uint8)
    if grid.shape[1] != width:
        raise TextError(f"row 0 has {grid.shape[1]} cells; expected {width}, as the size says.")
    expected = _write_objects(check_grid(grid)).split("\n")
    for number, (given, true) in enumerate(zip_longest([first, *lines], expected)):
        if given != true:
            raise TextError(f"line {number} is {_told(given)}; for this grid it is {_told(true)}.")
    return grid


def _told(line: str | None) -> str:
    return "not there" if line is None else f"{line!r:.80}"


FORMATS = {
    "digits": (_write_digits, _read_digits),
    "compact": (_write_compact, _read_compact),
    "objects": (_write_objects, _read_objects),
}
