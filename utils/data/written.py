"""From the rows of a source to a dataset folder: splits made, duplicates found, texts tokenised, all of it counted.

    <folder>/metadata.json, tokenizer.json
    <folder>/train.ids.bin  train.ends.bin  train.lengths.bin      (and validation, test)   utils/data/ragged.py
    <folder>/train.target.*, train.classes.bin                     of seq2seq and of a classifier

`lengths` are those of the texts before any was cut.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.core.config import digest
from utils.core.folders import written_whole
from utils.data import duplicates
from utils.data.examples import Examples, class_names, read_examples, unlabelled
from utils.data.ragged import Ragged
from utils.data.rows import RowsConfig, load_rows
from utils.data.special import Special, special_of
from utils.data.splits import assign, normalised
from utils.data.text import CorpusError
from utils.data.tokenizers import CharTokenizer, HFTokenizer, Tokenizer, build_tokenizer

if TYPE_CHECKING:
    from utils.data.task import Task, TaskDataConfig

log = logging.getLogger(__name__)
CHUNK = 1000  # texts that are tokenised in one call


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
    if config.tokenizer.kind == "hf":  # the name does not say which version it stands for
        settings["tokenizer"]["name"] = HFTokenizer.load(config.tokenizer.name).fingerprint()
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
            split: _Writer(writing, split, config, task, tokenizer, special).write(rows)
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
    if examples["train"].tokenised and config.tokenizer.kind != "hf":
        raise CorpusError(
            f"The rows of {config.source} are tokenised already, and tokenizer.kind={config.tokenizer.kind} would learn"
            " another tokenizer. Name the one that made them: tokenizer.kind=hf tokenizer.name=..."
        )
    if config.tokenizer.kind == "hf":
        return HFTokenizer.load(config.tokenizer.name)

    def joined(splits: Iterable[Examples]) -> str:
        parts = ((rows.texts, rows.seconds, rows.targets) for rows in splits)
        texts = [text for lists in parts for values in lists if values is not None for text in values]
        return "\n".join([config.prefix, *texts]) + "\n"

    text = joined(examples.values()) if config.tokenizer.kind == "char" else ""
    return build_tokenizer(config.tokenizer, text, joined([examples["train"]]))


class _Writer:
    """Writes the rows of one split and counts what is in them."""

    def __init__(
        self, folder: Path, split: str, config: TaskDataConfig, task: Task, tokenizer: Tokenizer, special: Special
    ):
        self.folder, self.split, self.config, self.task = folder, split, config, task
        self.tokenizer, self.special = tokenizer, special
        self.packed = config.packs(task)
        self.spans = self.packed and task == "seq2seq"
        self.unknown = 0

    def write(self, rows: Examples) -> dict[str, int]:
        sources = rows.texts
        if not rows.tokenised and self.task == "seq2seq":
            # Blocks of spans have no marks between texts, so a line break stands for the end of each.
            sources = [f"{text}\n" if self.spans else self.config.prefix + text for text in sources]
        longest = None if self.packed else self.config.max_length
        counted = self._column(self.split, rows, sources, rows.seconds, longest)
        if rows.labels is not None or self.task == "classifier":
            labels = np.empty(0) if rows.labels is None else rows.labels
            labels.astype("<i8").tofile(self.folder / f"{self.split}.classes.bin")
            counted["classes"] = np.bincount(labels.astype(np.int64)).tolist()
        if rows.targets is not None:
            target = self._column(
                f"{self.split}.target", rows, rows.targets, None, self.config.max_target_length or longest
            )
            counted |= {f"target_{name}": target[name] for name in ("tokens", "truncated", "longest")}
        texts = [] if rows.tokenised else sources
        counted["characters"] = sum(map(len, texts))
        counted["bytes"] = sum(len(text.encode("utf-8", "replace")) for text in texts)
        return counted | {"rows": len(rows), "empty": rows.empty, "unknown": self.unknown}

    def _column(
        self, name: str, rows: Examples, first: Sequence, second: Sequence | None, longest: int | None
    ) -> dict[str, int]:
        lengths: list[int] = []
        ordinary, specials = [0], np.array(sorted(self.special.ids), np.int64)

        def assembled() -> Iterator[np.ndarray]:
            pairs = zip(
                self._ids(first, name), self._ids(second, name) if second is not None else iter(lambda: None, 0)
            )
            for at, (ids, other) in enumerate(pairs):
                self._check(ids, rows, at)
                if rows.tokenised or self.spans:
                    whole = ids if longest is None else ids[:longest]
                    lengths.append(len(ids))
                else:
                    lengths.append(
                        len(ids) + self.special.room(other is not None) + (0 if other is None else len(other))
                    )
                    whole = self.special.around(ids, other, longest)
                if self.special.unknown is not None:
                    self.unknown += int((whole == self.special.unknown).sum())
                ordinary[0] += int((~np.isin(whole, specials)).sum())
                yield whole

        kept = Ragged.write(self.folder, name, assembled(), self.tokenizer.vocab_size)
        full = np.array(lengths, "<i8")
        full.tofile(self.folder / f"{name}.lengths.bin")
        cut = {"truncated": int((full > kept).sum()), "truncated_tokens": int((full - kept).sum())}
        return {"tokens": int(kept.sum()), "ordinary": ordinary[0], "longest": int(full.max(initial=0)), **cut}

    def _ids(self, values: Sequence, name: str) -> Iterator[np.ndarray]:
        if len(values) and not isinstance(values[0], str):
            return iter(values)
        return encode_all(self.tokenizer, values, f"tokenising {name}")

    def _check(self, ids: np.ndarray, rows: Examples, at: int) -> None:
        """Raise `CorpusError` where a row has ids that it cannot have."""
        vocab = self.tokenizer.vocab_size
        if ids.max(initial=0) >= vocab:
            raise CorpusError(
                f"{rows.place(at)}: id {ids.max()} is outside the tokenizer's vocabulary of {vocab:,}; name the"
                " tokenizer that made these ids: tokenizer.name=..."
            )
        if self.spans and np.isin(ids, self.special.sentinels).any():
            raise CorpusError(
                f"{rows.place(at)}: the text holds a sentinel such as <extra_id_0>, which could not be told from a"
                " span's; remove it."
            )
        if self.task == "causal_lm" and not self.packed and len(ids) + self.special.room() < 2:
            raise CorpusError(
                f"{rows.place(at)}: {len(ids)} token and no special token leave nothing to predict; use packed=true,"
                " or remove the row."
            )


def encode_all(tokenizer: Tokenizer, texts: Sequence[str], what: str) -> Iterator[np.ndarray]:
    """The ids of each text, without special tokens; a bar shows how far it is where that takes more than a second."""
    from tqdm import tqdm

    with tqdm(total=len(texts), desc=what, unit="text", file=sys.stdout, delay=1, mininterval=0.5) as bar:
        for first in range(0, len(texts), CHUNK):
            part = list(texts[first : first + CHUNK])
            if isinstance(tokenizer, CharTokenizer):
                rows: Iterable = map(tokenizer.encode, part)
            elif isinstance(tokenizer, HFTokenizer):
                rows = tokenizer.inner(part, add_special_tokens=False, verbose=False)["input_ids"]
            else:
                rows = (one.ids for one in tokenizer.inner.encode_batch(part, add_special_tokens=False))
            for ids in rows:
                yield np.asarray(ids, np.int64)
            bar.update(len(part))
