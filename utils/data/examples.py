"""Rows as the examples of a task: their texts, targets and classes, checked, with the place of any that does not fit.

Rows without a text (missing, empty, or spaces alone) are left out and counted. Everything else that does not fit raises
`CorpusError` with the file and the row: a text that is no text, a label that is not one of the classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from utils.data.table import Table
from utils.data.text import CorpusError

UNLABELLED = -1  # what the hub's datasets put where a test set's labels are kept secret
Values = list  # of str, or of id arrays where the rows are tokenised already


@dataclass(frozen=True)
class Examples:
    """One split. Lists are of equal length; None where the task has no such column."""

    texts: Values
    seconds: Values | None = None
    targets: Values | None = None
    labels: np.ndarray | None = None
    groups: list[str] | None = None
    rows: Sequence[int] = ()
    """their numbers in the table"""
    where: Callable[[int], str] = str
    """row number -> its place"""
    empty: int = 0
    """rows left out, for want of a text"""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def tokenised(self) -> bool:
        return bool(self.texts) and not isinstance(self.texts[0], str)

    def place(self, index: int) -> str:
        return self.where(self.rows[index])

    def take(self, index: np.ndarray) -> Examples:
        """Some of the examples, in the order of `index`."""
        lists = {
            name: None if values is None else [values[at] for at in index]
            for name, values in vars(self).items()
            if name in ("texts", "seconds", "targets", "groups", "rows")
        }
        return replace(self, **lists, labels=None if self.labels is None else self.labels[index])

    def compared(self) -> list:
        """What makes two examples the same: everything that a model reads."""
        if self.seconds is None:
            return self.texts
        if self.tokenised:
            return [np.concatenate(pair) for pair in zip(self.texts, self.seconds)]
        return [f"{first}\n{second}" for first, second in zip(self.texts, self.seconds)]

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for values in (self.texts, self.seconds, self.targets, self.labels, self.groups):
            digest.update(f"[{-1 if values is None else len(values)}]".encode())
            for value in () if values is None else values:
                data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else np.asarray(value).tobytes()
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


def read_examples(
    table: Table,
    *,
    text: str,
    second: str | None = None,
    target: str | None = None,
    label: str | None = None,
    group: str | None = None,
    classes: Sequence[str] = (),
) -> Examples:
    """The examples of a table, from the columns of these names."""
    names = {"text": text, "second": second, "target": target}
    read = {kind: _read(table, kind, name) for kind, name in names.items() if name is not None}
    kept = [row for row, values in enumerate(zip(*read.values())) if all(map(_some, values))]
    empty = len(table) - len(kept)
    for kind, values in read.items():
        if not any(map(_some, values)):
            raise CorpusError(
                f"{table.source}: the column {names[kind]!r} is empty in all {len(table)} rows. Name the one that holds"
                f" the text: rows.{kind}=...; columns: {', '.join(table.columns)}."
            )
    if not kept:
        raise CorpusError(f"{table.source}: no row has all of {', '.join(filter(None, names.values()))}.")
    labels = None if label is None else _numbers(table, label, kept, classes)
    groups = None if group is None else [str(value) for value in table.column(group, "rows.group")]
    first, *others = ([values[row] for row in kept] for values in read.values())
    held = dict(zip([kind for kind in read if kind != "text"], others))
    return Examples(
        first, held.get("second"), held.get("target"), labels,
        None if groups is None else [groups[row] for row in kept], kept, table.where, empty,
    )  # fmt: skip


def class_names(table: Table, column: str, given: Sequence[str] | None) -> tuple[str, ...]:
    """The classes: as given, as the data states them, or what the column holds, sorted (numbers by their size)."""
    if given:
        return tuple(given)
    if column in table.classes:
        return table.classes[column]
    found = {_plain(value, table, row, column) for row, value in enumerate(table.column(column, "rows.label"))}
    found -= {UNLABELLED, str(UNLABELLED)}
    if len(found) < 2:
        shown = ", ".join(map(repr, found)) or "nothing"
        raise CorpusError(
            f"{table.source}: the column {column!r} holds {shown}; a classifier needs two classes at least."
        )
    try:
        return tuple(str(value) for value in sorted(found, key=int))
    except ValueError:
        return tuple(sorted(map(str, found)))


def unlabelled(table: Table, column: str) -> bool:
    """Whether no row of a table says its class: as in the test sets of GLUE, whose labels are all -1."""
    return all(value in (None, UNLABELLED, "") for value in table.column(column, "rows.label"))


def _read(table: Table, kind: str, name: str) -> Values:
    """A column's texts, None where there is none; or arrays of ids, without what an attention_mask leaves out."""
    values = list(table.column(name, f"rows.{kind}"))
    for row, value in enumerate(values):
        if value is None or isinstance(value, str):
            continue
        if isinstance(value, (list, np.ndarray)) and all(_whole(index) and index >= 0 for index in value):
            values[row] = np.array(value, np.int64)
            continue
        raise CorpusError(
            f"{table.where(row)}: {name} is {_shown(value)}, a {type(value).__name__}; expected text (or a list of"
            f" token ids). Turn it into text, or name another column: rows.{kind}=..."
        )
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1:
        row = next(row for row, value in enumerate(values) if isinstance(value, np.ndarray))
        raise CorpusError(
            f"{table.where(row)}: {name} is a list of ids, and other rows hold text; expected one of both."
        )
    if kinds == {np.ndarray} and kind == "text" and "attention_mask" in table.columns:
        masks = table.columns["attention_mask"]
        values = [None if ids is None else ids[np.asarray(mask, bool)] for ids, mask in zip(values, masks)]
    return values


def _numbers(table: Table, column: str, kept: Sequence[int], classes: Sequence[str]) -> np.ndarray:
    """(N,) int64: the number of each kept row's class."""
    known = {name: number for number, name in enumerate(classes)}
    numbered = column in table.classes
    values = list(table.column(column, "rows.label"))
    found = np.empty(len(kept), np.int64)
    for at, row in enumerate(kept):
        value = _plain(values[row], table, row, column)
        number = value if numbered and isinstance(value, int) else known.get(str(value), -1)
        if not 0 <= number < len(classes):
            shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise CorpusError(
                f"{table.where(row)}: the {column} {_shown(values[row])} is not one of the {len(classes)} classes:"
                f" {shown}. Mend the row, or give all classes in rows.classes=[...]."
            )
        found[at] = number
    return found


def _plain(value: Any, table: Table, row: int, column: str) -> str | int:
    """A label as a whole number or a text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if _whole(value):
        return int(value)
    raise CorpusError(
        f"{table.where(row)}: {column} is {_shown(value)}; expected a class, as a text or a whole number. Give the row"
        " its class, or remove it."
    )


def _some(value: Any) -> bool:
    return value is not None and (bool(value.strip()) if isinstance(value, str) else len(value) > 0)


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
