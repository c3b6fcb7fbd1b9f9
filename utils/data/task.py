"""`TaskDataConfig` and `prepare_task`: rows from anywhere, tokenised once to disk, as the batches of a task.

    causal_lm    text                      packed in blocks, or a row a text
    masked_lm    text                      packed in blocks, or a row a text; masks drawn for each batch
    seq2seq      text, target              a row a pair; without a target: packed text with spans taken out (T5)
    classifier   text (, second), label    a row a text

How rows become what is on disk: utils/data/written.py. What the data look like: utils/data/report.py.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from utils.core.config import digest
from utils.data import collate
from utils.data.batches import TokenRows, TokenWindows
from utils.data.loaders import SPLITS, TokenBlocks, open_data
from utils.data.ragged import Ragged
from utils.data.rows import RowsConfig
from utils.data.special import Special, special_of
from utils.data.text import CorpusError
from utils.data.tokenizer import Tokenizer
from utils.data.tokenizers import TokenizerConfig, load_tokenizer

if TYPE_CHECKING:
    from utils.core.check import Report

Task = Literal["causal_lm", "masked_lm", "seq2seq", "classifier"]
Split = TokenBlocks | TokenWindows | TokenRows


class TaskDataConfig(RowsConfig):
    """Rows, the columns that a task reads, their tokenizer, their splits, and how they become batches."""

    text: str = "text"
    """column that the model reads; of rows tokenised already, input_ids. Parts of a column: translation.de"""
    second: str | None = None
    """classifier: column of a second text, such as the hypothesis"""
    target: str | None = "target"
    """seq2seq: column that the model says; null: learn to fill in spans of `text` (T5's pre-training)"""
    label: str = "label"
    """classifier: column of the class"""
    classes: tuple[str, ...] = ()
    """classifier: names of all classes in their order; empty: as the data states them, or what train holds, sorted"""
    prefix: str = ""
    """seq2seq: what stands before each source, such as "translate English to German: " """
    tokenizer: TokenizerConfig = TokenizerConfig(kind="wordpiece")
    """how text becomes token ids"""
    splits: tuple[float, float, float] = (0.9, 0.05, 0.05)
    """shares of train, validation and test, of those that the source lacks"""
    split_seed: int = 0
    """which rows go to which split, where splits are made"""
    group: str | None = None
    """column whose equal values stay in one split, where splits are made; null: texts of the same words do"""
    duplicates: Literal["report", "drop", "fail"] = "report"
    """rows of validation and test that train has too, exactly or nearly: told, left out, or an error"""
    packed: bool = True
    """causal_lm, masked_lm: blocks of `block_size` across rows; false: a row a text, padded"""
    block_size: int = Field(128, ge=2)
    """packed: ids a block"""
    max_length: int = Field(128, ge=8)
    """not packed: ids of a row at most, special tokens included; longer texts are cut at their end, and counted"""
    max_target_length: int | None = Field(None, ge=4)
    """seq2seq: ids of a target at most; null: as max_length"""
    mask_share: float = Field(0.15, gt=0, lt=1)
    """masked_lm and spans: share of the tokens that are to be filled in"""
    mean_span: float = Field(3.0, ge=1)
    """spans: tokens of a span on average"""
    decoder_start_id: int | None = Field(None, ge=0)
    """seq2seq: what the decoder reads first; null: the padding token as in T5, else the end (BART: 2)"""

    @model_validator(mode="after")
    def _shares(self):
        if abs(sum(self.splits) - 1) > 1e-6 or min(self.splits) < 0 or 0 in self.splits[:2]:
            raise ValueError(f"splits {self.splits} must add up to 1; only the test share may be 0")
        return self

    def columns(self, task: Task) -> dict[str, str]:
        """What the task reads -> the column's name."""
        named = {"text": self.text}
        if task == "classifier":
            named |= {"label": self.label} | ({"second": self.second} if self.second else {})
        if task == "seq2seq" and self.target:
            named["target"] = self.target
        return named | ({"group": self.group} if self.group else {})

    def packs(self, task: Task) -> bool:
        """Whether the task's batches are blocks of packed text."""
        return self.target is None if task == "seq2seq" else self.packed and task != "classifier"

    def longest(self, task: Task) -> int:
        """Ids of a row at most, of the source and of the target: what a model's context must hold."""
        return self.block_size if self.packs(task) else max(self.max_length, self.max_target_length or 0)


@dataclass(frozen=True)
class TaskData:
    """Prepared data of a task: three splits, the tokenizer, and what metadata.json says of them."""

    folder: Path
    config: TaskDataConfig
    task: Task
    metadata: dict[str, Any]
    tokenizer: Tokenizer
    train: Split
    validation: Split
    test: Split

    @property
    def fingerprint(self) -> str:
        """Equal for equal rows in equal splits, batched alike; a resumed run checks it."""
        return self.metadata["fingerprint"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of a classifier."""
        return tuple(self.metadata.get("classes", ()))

    @cached_property
    def special(self) -> Special:
        return special_of(self.tokenizer)

    def report(self, batch_size: int = 32) -> Report:
        """What the data look like, and what may be wrong with them."""
        from utils.data.report import data_report

        return data_report(self, batch_size)

    def _repr_html_(self) -> str:
        facts = self.metadata
        rows = "".join(
            f"<tr><td>{name}</td><td>{size.get('rows', 0):,}</td><td>{size['tokens']:,}</td>"
            f"<td>{getattr(self, name).targets:,}</td></tr>"
            for name, size in facts["splits"].items()
        )
        origin = f"{html.escape(facts['source'])}, for {self.task}, vocabulary {facts['vocab_size']:,}"
        named = f"; classes: {html.escape(', '.join(self.classes))}" if self.classes else ""
        head = "<tr><th>split</th><th>rows</th><th>tokens</th><th>targets an epoch</th></tr>"
        return f"<p>{origin}{named}</p><table>{head}{rows}</table>"

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size.get('rows', 0):,}" for name, size in self.metadata["splits"].items())
        return f"{self.metadata['source']} for {self.task}: rows {sizes}; vocabulary {self.metadata['vocab_size']:,}"


def prepare_task(config: TaskDataConfig, task: Task, root: Path) -> TaskData:
    """Tokenise a source into a folder under `root`, or open the one that equal rows and an equal config left there.

    A `source` that is a folder left by `prepare` (packed ids and their tokenizer) is used where it lies. Raises
    `CorpusError` or `TokenizerError` where rows, columns or tokenizer do not fit the task.
    """
    from utils.data.written import identity, read_all, write

    place = Path(config.source).expanduser()
    if (place / "train.tokens.bin").is_file():
        return _open_packed(place.resolve(), config, task)
    examples, facts = read_all(config, task)
    named = identity(config, task, examples, facts)
    name = "".join(letter if letter.isalnum() else "-" for letter in place.stem.removeprefix("hf:"))
    folder = root / f"{name}-{task}-{named}"
    if not folder.is_dir():
        write(folder, config, task, examples, facts | {"fingerprint": named})
    return open_task(folder, config, task)


def open_task(folder: Path, config: TaskDataConfig, task: Task) -> TaskData:
    """Memory-map what `prepare_task` left in a folder."""
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(folder)
    special = fitting(special_of(tokenizer), config, task)
    splits = {name: _split(folder, name, metadata, config, task, special) for name in SPLITS}
    return TaskData(folder, config, task, metadata, tokenizer, **splits)


def fitting(special: Special, config: TaskDataConfig, task: Task) -> Special:
    """The special tokens, if they are those that the task needs. Raises `CorpusError` naming what is missing."""
    kind = config.tokenizer.kind
    if task == "masked_lm" and special.mask is None:
        raise CorpusError(
            f"masked_lm needs a mask token, and the tokenizer (kind={kind}) has none; use"
            " rows.tokenizer.kind=wordpiece, or a Hugging Face tokenizer that has one."
        )
    if task == "seq2seq" and special.end is None:
        raise CorpusError(
            f"seq2seq needs an end token, and the tokenizer (kind={kind}) has none; use rows.tokenizer.kind=t5."
        )
    if task == "seq2seq" and config.target is None:
        spans = round(max(1, round(config.block_size * config.mask_share)) / config.mean_span) + 1
        if len(special.sentinels) < spans:
            raise CorpusError(
                f"Spans of blocks of {config.block_size} ids need {spans} sentinels, and the tokenizer (kind={kind})"
                f" has {len(special.sentinels)}; use rows.tokenizer.kind=t5, a smaller rows.block_size, or name"
                " a target column in rows.target."
            )
    return special


def _split(
    folder: Path, name: str, metadata: dict[str, Any], config: TaskDataConfig, task: Task, special: Special
) -> Split:
    size, vocab = metadata["splits"][name], metadata["vocab_size"]
    ids = Ragged.open(folder, name, vocab)
    if config.packs(task):
        return _packed(ids.values, size, config, task, special, vocab)
    if task == "causal_lm":
        return TokenRows(collate.NextTokens(ids, special), ids.lengths - 1, size["tokens"] - size["rows"])
    if task == "masked_lm":
        masked = collate.MaskedTokens(special, vocab, config.mask_share, ids)
        return TokenRows(masked, ids.lengths, round(config.mask_share * size["ordinary"]))
    if task == "classifier":
        labels = np.fromfile(folder / f"{name}.classes.bin", "<i8")
        return TokenRows(collate.Classes(ids, labels, special), ids.lengths, size["rows"])
    targets = Ragged.open(folder, f"{name}.target", vocab)
    pairs = collate.Pairs(ids, targets, special, start_of(config, special))
    return TokenRows(pairs, np.stack([ids.lengths, targets.lengths], 1), size["target_tokens"])


def start_of(config: TaskDataConfig, special: Special) -> int:
    """What a decoder reads first."""
    return special.padding if config.decoder_start_id is None else config.decoder_start_id


def _packed(
    tokens: np.ndarray, size: dict[str, int], config: TaskDataConfig, task: Task, special: Special, vocab: int
) -> Split:
    if task == "causal_lm":
        return TokenBlocks(tokens, config.block_size, size["characters"], size["bytes"])
    if task == "masked_lm":
        masked = collate.MaskedTokens(special, vocab, config.mask_share)
        share = config.mask_share * size.get("ordinary", len(tokens)) / max(1, len(tokens))
        return TokenWindows(masked, tokens, config.block_size, share)
    spans = collate.Spans(special, start_of(config, special), config.mask_share, config.mean_span)
    # Each span's tokens and its sentinel, and at the end a sentinel and the end.
    share = config.mask_share * (1 + 1 / config.mean_span) + 2 / config.block_size
    return TokenWindows(spans, tokens, config.block_size, share)


def _open_packed(folder: Path, config: TaskDataConfig, task: Task) -> TaskData:
    """A folder that `prepare` left, as the blocks of a language task."""
    if not config.packs(task):
        raise CorpusError(
            f"{folder} holds packed text without rows, which {task} cannot use here; give a source of rows, or"
            " rows.packed=true with causal_lm or masked_lm, or rows.target=null with seq2seq."
        )
    data = open_data(folder, config.block_size)
    special, vocab = fitting(special_of(data.tokenizer), config, task), data.metadata["vocab_size"]
    splits = {
        name: _packed(getattr(data, name).tokens, data.metadata["splits"][name], config, task, special, vocab)
        for name in SPLITS
    }
    settings = [config.block_size, config.mask_share, config.mean_span, config.decoder_start_id]
    named = f"{data.metadata['fingerprint']}/{digest([task, settings])}"
    return TaskData(folder, config, task, data.metadata | {"fingerprint": named}, data.tokenizer, **splits)
