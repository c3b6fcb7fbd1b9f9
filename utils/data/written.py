"""From the rows of a source to a dataset folder: splits made, duplicates found, texts tokenised, all of it counted.

    <folder>/metadata.json, tokenizer.json
    <folder>/train.ids.bin  train.ends.bin  train.lengths.bin      (and validation, test)   utils/data/ragged.py
    <folder>/train.target.*, train.classes.bin                     of seq2seq and of a classifier

`lengths` are those of the texts before any was cut.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.core.config import digest
from utils.core.folders import written_whole
from utils.data import duplicates
from utils.data.examples import Examples, class_names, read_examples, unlabelled
from utils.data.ragged import Ragged
from utils.data.rows import RowsConfig, load_rows
from utils.data.special import special_of
from utils.data.splits import assign, normalised
from utils.data.text import CorpusError
from utils.data.tokenizer import Tokenizer
from utils.data.tokenizers import build_tokenizer, version_of
from utils.data.writer import Writer

if TYPE_CHECKING:
    from utils.data.task import Task, TaskDataConfig

log = logging.getLogger(__name__)


def read_all(config: TaskDataConfig, task: Task) -> tuple[dict[str, Examples], dict[str, Any]]:
    """The examples of each split that the source has, and facts about them: source, classes, notes."""
    tables, notes = load_rows(config), []
    named = config.columns(task)
    if named["text"] not in tables["train"].columns and "input_ids" in tables["train"].columns:
        named["text"] = "input_ids"
        notes.append(f"no column {config.text!r}: the rows are tokenised already (input_ids)")
    classes: tuple[str, ...] = ()
    if task == "classifier":
        if "test" in tables and unlabelled(tables["test"], config.label):
            notes.append(f"the source's test split of {len(tables.pop('test')):,} rows has no labels and is not used")
        classes = class_names(tables["train"], config.label, config.classes)
    for note in notes:
        log.info("%s: %s.", config.source, note)
    examples = {split: read_examples(table, **named, classes=classes) for split, table in tables.items()}
    facts: dict[str, Any] = {"task": task, "source": tables["train"].source, "notes": notes}
    return examples, facts | ({"classes": list(classes)} if classes else {})


def identity(config: TaskDataConfig, task: Task, examples: dict[str, Examples], facts: dict[str, Any]) -> str:
    """12 hex digits of everything that decides the batches; where the rows came from is not part of it."""
    settings = config.model_dump(mode="json", exclude=set(RowsConfig.model_fields))
    version = version_of(config.tokenizer)
    if version is not None:
        settings["tokenizer"]["name"] = version
    content = {split: rows.sha256() for split, rows in examples.items()}
    return digest([task, settings, content, facts.get("classes", [])])


def write(folder: Path, config: TaskDataConfig, task: Task, examples: dict[str, Examples], facts: dict) -> None:
    """Make the dataset folder, whole or not at all."""
    from utils.data.task import fitting

    examples, made = completed(examples, config)
    examples, found = without_duplicates(examples, config)
    tokenizer = _tokenizer(config, examples)
    special = fitting(special_of(tokenizer), config, task)
    with written_whole(folder) as writing:
        tokenizer.save(writing)
        sizes = {
            split: Writer(writing, split, config, task, tokenizer, special).write(rows)
            for split, rows in examples.items()
        }
        if not sizes["train"]["tokens"] or not sizes["validation"]["tokens"]:
            raise CorpusError(f"{facts['source']}: no tokens are left to train on or to validate with; give more rows.")
        metadata = facts | {
            "sha256": digest({split: rows.sha256() for split, rows in examples.items()}),
            "vocab_size": tokenizer.vocab_size,
            "vocabulary_used": _used(writing, tokenizer.vocab_size),
            "tokenizer": config.tokenizer.model_dump(),
            "columns": config.columns(task),
            "splits_made": made,
            "duplicates": found,
            "splits": sizes,
        }
        (writing / "metadata.json").write_text(json.dumps(metadata, indent=2, ensure_ascii=False), encoding="utf-8")


def _used(folder: Path, vocab_size: int) -> int:
    """Entries of the vocabulary that the training rows use."""
    columns = [path.name.removesuffix(".ends.bin") for path in folder.glob("train*.ends.bin")]
    used = [np.unique(Ragged.open(folder, name, vocab_size).values) for name in columns]
    return len(np.unique(np.concatenate(used)))


def completed(examples: dict[str, Examples], config: TaskDataConfig) -> tuple[dict[str, Examples], list[str]]:
    """Train, validation and test, those that the source lacks taken out of train; and the names of these."""
    examples = dict(examples)
    lacking = [name for name, share in zip(("validation", "test"), config.splits[1:]) if name not in examples and share]
    if lacking:
        train = examples["train"]
        keys = train.groups or [_key(value) for value in train.compared()]
        made = assign(
            keys, config.splits, config.split_seed, test="test" in lacking, validation="validation" in lacking
        )
        examples |= {name: train.take(rows) for name, rows in made.items()}
    examples.setdefault("test", Examples([], *[[] if part is not None else None for part in _parts(examples["train"])]))
    return {name: examples[name] for name in ("train", "validation", "test")}, lacking


def _parts(examples: Examples) -> tuple:
    return examples.seconds, examples.targets


def _key(value: str | np.ndarray) -> str:
    return normalised(value) if isinstance(value, str) else value.tobytes().hex()


def without_duplicates(
    examples: dict[str, Examples], config: TaskDataConfig
) -> tuple[dict[str, Examples], dict[str, Any]]:
    """The splits, without what an earlier one has too where `config.duplicates` is drop; and the counts."""
    examples = dict(examples)
    prints = {
        name: (duplicates.prints_of_ids if rows.tokenised else duplicates.prints)(rows.compared())
        for name, rows in examples.items()
    }
    found: dict[str, Any] = {"repeated in train": duplicates.repeated(prints["train"]), "between": []}
    earlier = ["train"]
    for name in ("validation", "test"):
        shared = duplicates.overlap(prints[name], [prints[other] for other in earlier])
        if shared.any.any():
            first = int(np.flatnonzero(shared.any)[0])
            example = f"{examples[name].place(first)}: {str(examples[name].texts[first])[:60]!r}"
        else:
            example = ""
        count = {"split": name, "also in": " or ".join(earlier), "rows": len(examples[name])}
        count |= {"exact": int(shared.exact.sum()), "near": int(shared.near.sum()), "first": example}
        found["between"].append(count)
        if example and config.duplicates == "fail":
            raise CorpusError(
                f"Of {count['rows']} rows of {name}, {count['exact']} are in {count['also in']} exactly and"
                f" {count['near']} nearly; the first: {example}. Remove them, or set duplicates=drop."
            )
        if example and config.duplicates == "drop":
            kept = np.flatnonzero(~shared.any)
            if not len(kept):
                raise CorpusError(
                    f"All {count['rows']} rows of {name} are in {count['also in']} too, exactly or nearly: dropping"
                    " them leaves none. Give other rows, or set duplicates=report."
                )
            examples[name] = examples[name].take(kept)
            log.info("%d of %d rows of %s are dropped: they are in %s too.", count["rows"] - len(kept), count["rows"],
                     name, count["also in"])  # fmt: skip
        earlier.append(name)
    return examples, found | {"dropped": config.duplicates == "drop"}


def _tokenizer(config: TaskDataConfig, examples: dict[str, Examples]) -> Tokenizer:
    if examples["train"].tokenised and config.tokenizer.kind not in ("hf", "saved"):
        raise CorpusError(
            f"The rows of {config.source} are tokenised already, and rows.tokenizer.kind={config.tokenizer.kind} would"
            " learn another tokenizer. Name the one that made them: rows.tokenizer.kind=hf rows.tokenizer.name=..."
        )
    if config.tokenizer.kind in ("hf", "saved"):
        return build_tokenizer(config.tokenizer, "", "")

    def joined(splits: Iterable[Examples]) -> str:
        parts = ((rows.texts, rows.seconds, rows.targets) for rows in splits)
        texts = [text for lists in parts for values in lists if values is not None for text in values]
        return "\n".join([config.prefix, *texts]) + "\n"

    text = joined(examples.values()) if config.tokenizer.kind == "char" else ""
    return build_tokenizer(config.tokenizer, text, joined([examples["train"]]))
