"""`Table`: rows of one split with their columns, and the name of each row's place for messages. Leaves out tokens."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.data.text import CorpusError


@dataclass(frozen=True)
class Table:
    """Columns of equal length: lists, or columns of a `datasets.Dataset`, which stay on disk until they are read."""

    columns: Mapping[str, Sequence[Any]]
    source: str
    """where the rows come from"""
    where: Callable[[int], str]
    """row number -> its place, such as `reviews.csv, line 17`"""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """column -> names of its classes, where the data states them"""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str, setting: str) -> Sequence[Any]:
        """The values of a column; `translation.de` is the part `de` of each value of `translation`.

        Raises `CorpusError` with the columns there are; `setting` is what names one, such as `rows.label`.
        """
        outer, _, inner = name.partition(".")
        if inner and name not in self.columns and outer in self.columns:
            return [value.get(inner) if isinstance(value, dict) else None for value in self.columns[outer]]
        if name not in self.columns:
            raise CorpusError(
                f"{self.source} has no column {name!r}; its columns: {', '.join(map(str, self.columns))}. Name one of"
                f" them: {self._naming(name, setting)}."
            )
        return self.columns[name]

    def _naming(self, name: str, setting: str) -> str:
        """How a column is named in place of one that there is not: the nearest, else the last of labels and targets."""
        columns = list(map(str, self.columns))
        last = setting.rpartition(".")[2] in ("label", "target")
        near = difflib.get_close_matches(name, columns, n=1) or (columns[-1:] if last else columns[:1])
        given = f"{setting}={near[0] if near else 'NAME'}"
        return f'{given} (in the notebook: overrides = "{given}")'

    def spread(self, rows: int | None) -> Table:
        """`rows` rows at equal distances (so that a table sorted by class keeps them all); all where None."""
        if rows is None or rows >= len(self):
            return self
        return self.take([row * len(self) // rows for row in range(rows)])

    def take(self, index: Sequence[int]) -> Table:
        """Some of the rows, in the order of `index`."""
        index = [int(row) for row in index]
        columns = {
            name: [values[row] for row in index] if isinstance(values, (list, tuple)) else list(values[index])
            for name, values in self.columns.items()
        }
        return Table(columns, self.source, lambda row: self.where(index[row]), self.classes)


def stacked(tables: Iterable[Table], source: str) -> Table:
    """Tables one below the other. Raises `CorpusError` where their columns differ."""
    tables = list(tables)
    first, ends, total = tables[0], [], 0
    for table in tables:
        if set(table.columns) != set(first.columns):
            raise CorpusError(
                f"{table.source} has the columns {', '.join(table.columns)}, and {first.source} has"
                f" {', '.join(first.columns)}; files of one split must have the same ones."
            )
        total += len(table)
        ends.append(total)
    if len(tables) == 1:
        return first

    def where(row: int) -> str:
        import bisect

        index = bisect.bisect_right(ends, row)
        return tables[index].where(row - (ends[index - 1] if index else 0))

    columns = {name: [value for table in tables for value in table.columns[name]] for name in first.columns}
    return Table(columns, source, where, first.classes)
