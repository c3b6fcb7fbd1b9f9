"""Folds and shares of a recipe's data, written as files that the recipe's own data settings read.

    data.corpus   a text       parts are contiguous; its test part stays what it is, and in no fold
    rows.source   rows         parts follow a hash of the seed and each row's words (or `rows.group`), so that rows of
                               the same words are in one part; a test split of the source stays in no fold

Each variation is a list of overrides, and all of a study have one tokenizer. A file is named by what is in it, so that
a study run again finds it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from utils.core.config import Config, ConfigError, digest
from utils.core.folders import written_whole
from utils.data.loaders import split_text
from utils.data.rows import RowsConfig, load_rows
from utils.data.splits import normalised, positions
from utils.data.table import Table, stacked
from utils.data.text import CorpusConfig, load_corpus
from utils.experiments.sweep import override
from utils.training.pooled import tokenizer_of_rows, tokenizer_of_text

HELD_OUT = 0.1  # of rows without a validation split, where a learning curve is judged


def folds(data: Config, number: int, folder: Path, seed: int = 0) -> list[list[str]]:
    """`number` variations; each part of the data is the validation split of one, and trained on in all the others.

    Raises `ConfigError` for fewer than two folds, and for more than there is data.
    """
    if number < 2:
        raise ConfigError(
            f"{number} {'fold' if number == 1 else 'folds'}: expected at least 2, one to train on and one to judge by."
        )
    if isinstance(data, RowsConfig):
        return _row_folds(data, number, folder, seed)
    pool, test = _text(data)
    ends = [round(len(pool) * part / number) for part in range(number + 1)]
    if len(pool) < number:
        raise ConfigError(f"{number} folds of {len(pool)} characters; expected no more folds than characters.")
    tokenizer = tokenizer_of_text(data, pool, pool + test, folder)
    return [
        _text_part(folder, pool[:start] + pool[end:], pool[start:end], test) + tokenizer
        for start, end in zip(ends, ends[1:])
    ]


def shares(data: Config, parts: Sequence[float], folder: Path, seed: int = 0) -> list[list[str]]:
    """A variation for each share of the training data; the validation split is the same, and each share holds the
    smaller ones. Of a text it is the end, next to the validation part."""
    if isinstance(data, RowsConfig):
        return _row_shares(data, parts, folder, seed)
    text = load_corpus(_corpus(data)).text
    split = split_text(text, data.splits)
    train = split["train"]
    sizes = [max(1, round(len(train) * part)) for part in parts]
    tokenizer = tokenizer_of_text(data, train, text, folder)
    return [
        _text_part(folder, train[len(train) - size :], split["validation"], split["test"]) + tokenizer for size in sizes
    ]


def _corpus(data: Config) -> CorpusConfig:
    if not isinstance(data, CorpusConfig):
        raise ConfigError(
            f"Data of the kind {type(data).__name__}; expected a text (data.corpus) or rows (rows.source)."
        )
    return data


def _text(data: Config) -> tuple[str, str]:
    """What is trained on and judged by, and the test part."""
    split = split_text(load_corpus(_corpus(data)).text, data.splits)
    return split["train"] + split["validation"], split["test"]


def _text_part(folder: Path, train: str, validation: str, test: str) -> list[str]:
    """A text whose first part is `train`, then `validation`, then `test`; the overrides that read it so."""
    text = train + validation + test
    whole = folder / digest([train, validation, test])
    if not whole.is_dir():
        with written_whole(whole) as writing:
            (writing / "text.txt").write_text(text, encoding="utf-8", newline="")
    sizes = [len(part) / len(text) for part in (train, validation, test)]
    return [override("data.corpus", str(whole / "text.txt")), override("data.splits", sizes)]


def _row_folds(data: RowsConfig, number: int, folder: Path, seed: int) -> list[list[str]]:
    pool, test = _rows(data)
    part = _part_of(data, pool, seed, number)
    empty = number - len(set(part.tolist()))
    if empty:
        raise ConfigError(f"{number} folds of {len(pool)} rows leave {empty} empty; ask for fewer.")
    tokenizer = tokenizer_of_rows(data, pool, [] if test is None else [test], folder)
    return [
        _row_part(data, folder, pool, numpy.flatnonzero(part != one), numpy.flatnonzero(part == one), test) + tokenizer
        for one in range(number)
    ]


def _row_shares(data: RowsConfig, parts: Sequence[float], folder: Path, seed: int) -> list[list[str]]:
    tables = load_rows(data)
    if "validation" in tables:
        pool = stacked([tables["train"], tables["validation"]], data.source)
        validation = numpy.arange(len(tables["train"]), len(pool))
    else:
        pool = tables["train"]
        validation = numpy.flatnonzero(_part_of(data, pool, seed, round(1 / HELD_OUT)) == 0)
    train = numpy.setdiff1d(numpy.arange(len(pool)), validation)
    place = positions([str(row) for row in train], seed)
    order = train[numpy.argsort(place, kind="stable")]
    sizes = [max(1, round(len(order) * one)) for one in parts]
    test = tables.get("test")
    tokenizer = tokenizer_of_rows(
        data, pool.take(train), [pool.take(validation), *([] if test is None else [test])], folder
    )
    return [_row_part(data, folder, pool, numpy.sort(order[:size]), validation, test) + tokenizer for size in sizes]


def _rows(data: RowsConfig) -> tuple[Table, Table | None]:
    """The rows that are trained on and judged by, and the test split where the source has one."""
    tables = load_rows(data)
    return stacked([tables[name] for name in ("train", "validation") if name in tables], data.source), tables.get(
        "test"
    )


def _part_of(data: RowsConfig, rows: Table, seed: int, number: int) -> numpy.ndarray:
    """(N,) the part of each row: rows of one key together, and the keys shared out evenly in the order of a hash."""
    settings = data.model_dump()
    column = settings.get("group") or settings.get("text", "text")
    values = [str(value) for value in rows.column(column, "rows.text")]
    keys = values if settings.get("group") else [normalised(value) for value in values]
    different = list(dict.fromkeys(keys))
    order = numpy.argsort(positions(different, seed), kind="stable")
    part = {different[one]: rank % number for rank, one in enumerate(order)}
    return numpy.array([part[key] for key in keys])


def _row_part(
    data: RowsConfig, folder: Path, pool: Table, train: numpy.ndarray, validation: numpy.ndarray, test: Table | None
) -> list[str]:
    """A folder of train.jsonl, validation.jsonl and perhaps test.jsonl; the overrides that read it."""
    lines = {"train": _lines(pool, train), "validation": _lines(pool, validation)}
    if test is not None:
        lines["test"] = _lines(test, numpy.arange(len(test)))
    whole = folder / digest(lines)
    if not whole.is_dir():
        with written_whole(whole) as writing:
            for name, rows in lines.items():
                (writing / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8", newline="")
    settings: dict[str, Any] = {"source": str(whole), "train_split": "train", "validation_split": None}
    settings |= {"test_split": None, "limit": None, "hf_config": None, "revision": None, "streaming": False}
    fields = type(data).model_fields
    if test is None and "splits" in fields:
        settings["splits"] = [0.9, 0.1, 0.0]  # no test split is made of what is trained on
    label = data.model_dump().get("label")
    if "classes" in fields and not data.model_dump()["classes"] and label in pool.classes:
        settings["classes"] = list(pool.classes[label])
    return [override(f"rows.{name}", value) for name, value in settings.items()]


def _lines(table: Table, rows: numpy.ndarray) -> list[str]:
    """Rows as JSON, classes by their names."""
    columns = {name: list(values) for name, values in table.columns.items()}
    for name, names in table.classes.items():
        known = dict(enumerate(names))
        columns[name] = [known.get(value, value) for value in columns[name]]
    try:
        return [json.dumps({name: values[row] for name, values in columns.items()}, ensure_ascii=False) for row in rows]
    except TypeError as error:
        raise ConfigError(
            f"{table.source} holds what JSON cannot ({error}); folds are made of texts and numbers."
        ) from None
