"""Local files as tables: .txt, .csv, .tsv, .jsonl, .parquet, and folders of them. Errors name the file and the line.

    reviews.csv         a header, then a row a line (quotes may hold line breaks); .tsv the same with tabs
    reviews.jsonl       an object a line
    notes.txt           a row a paragraph (between blank lines), in the column `text`
    part.parquet        as it is
    folder/             train.csv, validation.csv, test.csv (or train-0.csv, ...); any other names: all one train split

Nothing is filled in or left out: a row that does not fit stops the reading.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.data.table import Table, stacked
from utils.data.text import CorpusError, read_text

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


def read_file(path: Path) -> Table:
    """One file as a table. Raises `CorpusError` for another kind of file, for an empty one, and for a broken row."""
    if path.suffix not in READERS:
        raise CorpusError(f"{path} is a {path.suffix or 'nameless'} file; expected one of {', '.join(READERS)}.")
    table = READERS[path.suffix](path)
    if not len(table):
        raise CorpusError(f"{path} holds no rows; expected at least one.")
    return table


def read_folder(folder: Path) -> dict[str, Table]:
    """Split -> table, from the files of a folder (not of the folders inside), in the order of their names."""
    files = sorted(path for path in folder.iterdir() if path.suffix in READERS and not path.name.startswith("."))
    if not files:
        raise CorpusError(f"{folder} holds no data; expected files of {', '.join(READERS)}.")
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(split_of(path.stem) or "", []).append(path)
    if "train" not in splits:
        splits = {"train": files}
    elif "" in splits:
        names = ", ".join(path.name for path in splits[""])
        raise CorpusError(
            f"{folder} holds train files and others that name no split: {names}. Name them train, validation or test"
            " (train-0.csv, ...), or move them away."
        )
    return {split: stacked(map(read_file, paths), str(folder)) for split, paths in splits.items()}


def split_of(name: str) -> str | None:
    """The split that a file's or a dataset's name begins with: `dev-00001` -> validation; None for any other."""
    first = re.split(r"[-_. ]", name.lower())[0]
    return next((split for split, names in SPLIT_NAMES.items() if first in names), None)


def _csv(path: Path) -> Table:
    read_text(path)  # UTF-8, and not empty
    csv.field_size_limit(2**31 - 1)
    lines, rows = [], []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        try:
            header = next(reader)
            for row in reader:
                if row and len(row) != len(header):
                    raise CorpusError(
                        f"{path}, line {reader.line_num}: {len(row)} columns; expected the {len(header)} of the header"
                        f" ({', '.join(header)}). Quote a text that holds the separator, or mend the row:"
                        f" {_shown(row)}"
                    )
                if row:
                    lines.append(reader.line_num)
                    rows.append(row)
        except csv.Error as error:
            raise CorpusError(f"{path}, line {reader.line_num}: {error}. Mend the quotes of this row.") from None
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise CorpusError(f"{path}: the header names {', '.join(twice)} twice; give each column a name of its own.")
    columns = dict(zip(header, map(list, zip(*rows)))) if rows else {name: [] for name in header}
    return Table(columns, str(path), lambda row: f"{path}, line {lines[row]}")


def _jsonl(path: Path) -> Table:
    lines, rows = [], []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise CorpusError(
                f"{path}, line {number} is not JSON ({error}): {line[:60]!r}. Expected one object a line, such as"
                ' {"text": "...", "label": "..."}.'
            ) from None
        if not isinstance(row, dict):
            raise CorpusError(
                f"{path}, line {number} holds a {type(row).__name__}; expected an object such as"
                ' {"text": "..."}. A .jsonl file is no JSON list: write each element on a line of its own.'
            )
        lines.append(number)
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Table(columns, str(path), lambda row: f"{path}, line {lines[row]}")


def _txt(path: Path) -> Table:
    lines, rows = [], []
    text = read_text(path)
    for found in re.finditer(r"[^\n]*\S[^\n]*(\n[^\n]*\S[^\n]*)*", text):
        rows.append(found[0])
        lines.append(found.start())
    return Table({"text": rows}, str(path), lambda row: f"{path}, line {text.count(chr(10), 0, lines[row]) + 1}")


def _parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset

    try:
        content = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise CorpusError(f"{path} is no parquet file that can be read: {error}") from None
    return from_dataset(Dataset(content), str(path))


def from_dataset(rows: Any, source: str) -> Table:
    """A `datasets.Dataset` as a table, with the names of its class labels."""
    classes = {name: tuple(kind.names) for name, kind in rows.features.items() if getattr(kind, "names", None)}
    columns = {name: rows[name] for name in rows.column_names}
    return Table(columns, source, lambda row: f"{source}, row {row + 1}", classes)


def _shown(row: Iterable[str]) -> str:
    text = ", ".join(map(repr, row))
    return text if len(text) <= 100 else text[:97] + "..."


READERS = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".txt": _txt, ".parquet": _parquet}
