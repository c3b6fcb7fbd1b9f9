"""Sources of rows: one name in, a table for each split out.

    python-docs  tiny-shakespeare        paragraphs, column `text`                                (utils/data/text.py)
    python-topics  python-names  python-words    small tasks over what Python ships      (utils/data/python_tasks.py)
    path/to/file.csv                     .txt, .csv, .tsv, .jsonl, .parquet                      (utils/data/files.py)
    path/to/folder                       of such files, or as `datasets.save_to_disk` left it
    hf:NAME                              a Hugging Face dataset: hub id or local folder, streamed where asked

The splits that a source has are used as they are; those that it lacks are made later (utils/data/splits.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from utils.core.config import Config
from utils.data import python_tasks
from utils.data.files import READERS, from_dataset, read_file, read_folder, split_of
from utils.data.retries import with_retries
from utils.data.table import Table
from utils.data.text import BUILT_IN, CorpusConfig, CorpusError, load_corpus

log = logging.getLogger(__name__)


class RowsConfig(Config):
    """Where the rows come from, and which."""

    source: str = "python-docs"
    """python-docs, tiny-shakespeare, python-topics, python-names, python-words, a file, a folder, or hf:NAME"""
    hf_config: str | None = None
    """configuration of a Hugging Face dataset, such as sst2"""
    revision: str | None = None
    """branch, tag or commit of a Hugging Face dataset"""
    streaming: bool = False
    """read a Hugging Face dataset row by row, without downloading the rest; needs `limit`"""
    limit: int | None = Field(None, ge=1)
    """rows of each split at most: at equal distances, or the first ones where streaming"""
    train_split: str = "train"
    """the source's split to train on; slices such as train[:10%] are the datasets library's"""
    validation_split: str | None = None
    """the source's split to validate on; None: the one named validation, valid, val or dev, else one is made"""
    test_split: str | None = None
    """the source's split to test on; None: the one named test, else one is made (`splits`)"""

    @model_validator(mode="after")
    def _readable(self):
        hub = [name for name in ("hf_config", "revision", "streaming") if getattr(self, name)]
        if hub and not self.source.startswith("hf:"):
            raise ValueError(f"{', '.join(hub)} goes with a source hf:NAME, not {self.source!r}; leave it out")
        if self.streaming and self.limit is None:
            raise ValueError("streaming=true needs limit: how many rows of each split to read")
        return self


def load_rows(config: RowsConfig) -> dict[str, Table]:
    """`train`, and `validation` and `test` as far as the source has them. Raises `CorpusError` where it has no rows."""
    name = config.source
    if name in BUILT_IN:
        found = {"train": _paragraphs(name)}
    elif name in python_tasks.TASKS:
        found = {"train": python_tasks.TASKS[name]()}
    elif name.startswith("hf:"):
        found = _hub(config)
    else:
        found = _local(Path(name).expanduser().resolve(), name)
    return {split: table if config.streaming else table.spread(config.limit) for split, table in _chosen(found, config)}


def _chosen(found: Mapping[str, Table], config: RowsConfig) -> list[tuple[str, Table]]:
    chosen = {"train": config.train_split}
    for split in ("validation", "test"):
        usual = next((name for name in found if split_of(name) == split), None)
        chosen[split] = getattr(config, f"{split}_split") or usual
    splits = []
    for split, name in chosen.items():
        if name is not None and name not in found:
            raise CorpusError(
                f"{config.source} has no split {name!r}; it has: {', '.join(found)}. Name one: rows.{split}_split=..."
            )
        if name is not None:
            splits.append((split, found[name]))
    unused = [name for name in found if name not in chosen.values()]
    if unused:
        log.info("%s: the splits %s are not used.", config.source, ", ".join(unused))
    return splits


def _paragraphs(name: str) -> Table:
    corpus = load_corpus(CorpusConfig(corpus=name))
    rows = [paragraph for paragraph in corpus.text.split("\n\n") if paragraph.strip()]
    return Table({"text": rows}, corpus.source, lambda row: f"{name}, paragraph {row + 1}")


def _local(path: Path, name: str) -> dict[str, Table]:
    if path.is_file():
        return {"train": read_file(path)}
    if not path.is_dir():
        names = ", ".join((*BUILT_IN, *python_tasks.TASKS))
        raise CorpusError(f"No data {name!r}: expected {names}, hf:NAME, a folder, or a file of {', '.join(READERS)}.")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        from datasets import load_from_disk

        content = load_from_disk(str(path))
        splits = content if isinstance(content, dict) else {"train": content}
        return {split: from_dataset(rows, f"{path} [{split}]") for split, rows in splits.items()}
    return read_folder(path)


def _hub(config: RowsConfig) -> dict[str, Table]:
    """Each split of a Hugging Face dataset; where one is named as a slice, the named ones alone."""
    name = config.source.removeprefix("hf:")
    asked = {split for split in (config.train_split, config.validation_split, config.test_split) if split}
    slices = sorted(asked) if any("[" in split for split in asked) else [None]
    if config.streaming and slices != [None]:
        raise CorpusError(f"streaming reads no slices such as {slices[0]!r}; name whole splits and set limit=.")

    def read() -> dict[str, Table]:
        found: dict[str, Any] = {}
        for split in slices:
            rows = _loaded(name, config, split)
            found |= rows if split is None else {split: rows}
        wanted = [split for split in found if split in asked or split_of(split) in ("validation", "test")]
        kept = wanted if config.streaming else list(found)
        return {split: _table(found[split], f"{config.source} [{split}]", config) for split in kept}

    try:
        return with_retries(read, f"Reading {config.source}")
    except CorpusError:
        raise
    except (OSError, ValueError, RuntimeError, _failures()) as error:
        raise CorpusError(
            f"Hugging Face dataset {name!r} could not be read: {type(error).__name__}: {error}. Check its name,"
            " hf_config and revision, whether it asks for a login, and the network; or give a local file or folder."
        ) from error


def _failures() -> type[Exception]:
    from datasets.exceptions import DatasetsError

    return DatasetsError


def _loaded(name: str, config: RowsConfig, split: str | None) -> Any:
    from datasets import load_dataset

    return load_dataset(name, config.hf_config, split=split, revision=config.revision, streaming=config.streaming)


def _table(rows: Any, source: str, config: RowsConfig) -> Table:
    """Rows as a table; of a stream, the first `limit`."""
    if not config.streaming:
        return from_dataset(rows, source)
    first = list(rows.take(config.limit))
    if not first:
        raise CorpusError(f"{source} is empty; expected rows.")
    kinds = rows.features or {}
    classes = {name: tuple(kind.names) for name, kind in kinds.items() if getattr(kind, "names", None)}
    columns = {name: [row.get(name) for row in first] for name in dict.fromkeys(key for row in first for key in row)}
    return Table(columns, source, lambda row: f"{source}, row {row + 1}", classes)
