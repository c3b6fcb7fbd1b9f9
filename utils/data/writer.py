"""From the examples of one split to its files: texts tokenised, special tokens put around them, all of it counted.

Which files there are stands in utils/data/written.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.data.characters import CharTokenizer
from utils.data.examples import Examples
from utils.data.hugging_face import HFTokenizer
from utils.data.ragged import Ragged
from utils.data.special import Special
from utils.data.text import CorpusError
from utils.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from utils.data.task import Task, TaskDataConfig

CHUNK = 1000  # texts that are tokenised in one call


class Writer:
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
                " tokenizer that made these ids: rows.tokenizer.name=..."
            )
        if self.spans and np.isin(ids, self.special.sentinels).any():
            raise CorpusError(
                f"{rows.place(at)}: the text holds a sentinel such as <extra_id_0>, which could not be told from a"
                " span's; remove it."
            )
        if self.task == "causal_lm" and not self.packed and len(ids) + self.special.room() < 2:
            raise CorpusError(
                f"{rows.place(at)}: {len(ids)} token and no special token leave nothing to predict; use"
                " rows.packed=true, or remove the row."
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
