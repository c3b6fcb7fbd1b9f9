"""A tokenized corpus on disk, memory-mapped, and the batches drawn from it.

    <folder>/train.tokens.bin  validation.tokens.bin  test.tokens.bin      uint16 or uint32, little-endian
    <folder>/metadata.json     source, sha256, vocabulary size, tokenizer, split sizes
    <folder>/tokenizer.json

The order of batches is a function of (seed, epoch), so any position in it can be taken up again.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from utils.core.folders import written_whole
from utils.data.text import Corpus, CorpusConfig, CorpusError, load_corpus
from utils.data.tokenizer import Tokenizer
from utils.data.tokenizers import TokenizerConfig, build_tokenizer, load_tokenizer, version_of

if TYPE_CHECKING:
    import pandas
    import torch

SPLITS = ("train", "validation", "test")


class DataConfig(CorpusConfig):
    """A corpus, its tokenizer and its splits."""

    tokenizer: TokenizerConfig = TokenizerConfig()
    """how text becomes token ids"""
    splits: tuple[float, float, float] = (0.9, 0.05, 0.05)
    """shares of train, validation and test: contiguous, in this order"""
    block_size: int = Field(64, ge=1)
    """targets a row"""

    @model_validator(mode="after")
    def _shares(self):
        if abs(sum(self.splits) - 1) > 1e-6 or min(self.splits) < 0 or 0 in self.splits[:2]:
            raise ValueError(f"splits {self.splits} must add up to 1; only the test share may be 0")
        return self


@dataclass(frozen=True)
class TokenBlocks:
    """One split as rows of `block_size` targets.

    An epoch's targets are every token but the first, each once. The cuts between rows move with the epoch, so that a
    token is not met in the same place of its row each time; the rows that the ends make shorter are padded, with
    labels of -100.

    Batches hold `input_ids` and `labels`, both (B, T) int64; `labels[:, t]` is the token after `input_ids[:, t]`.
    """

    tokens: np.ndarray
    block_size: int
    characters: int
    """characters of the split's text; 0 where it is not known"""
    bytes: int
    """UTF-8 bytes of the split's text; 0 where it is not known"""

    @property
    def targets(self) -> int:
        return max(len(self.tokens) - 1, 0)

    @property
    def units(self) -> dict[str, float]:
        """Characters and bytes a token, for bits per character and per byte; rows that came as ids have neither."""
        counts = {"character": self.characters, "byte": self.bytes}
        return {name: count / len(self.tokens) for name, count in counts.items() if count and len(self.tokens)}

    def num_batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0) -> int:
        return -(-len(self._starts(seed, epoch)) // batch_size)

    def batches(
        self, batch_size: int, *, seed: int | None = None, epoch: int = 0, start: int = 0
    ) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of an epoch from number `start` on; in the order of the text where `seed` is None."""
        starts = self._starts(seed, epoch)
        for first in range(start * batch_size, len(starts), batch_size):
            yield self._rows(starts[first : first + batch_size])

    def _starts(self, seed: int | None, epoch: int) -> np.ndarray:
        """Where each row begins; the first may lie before the text (its row is then cut short at the front)."""
        if seed is None:
            return np.arange(0, self.targets, self.block_size)
        generator = np.random.default_rng((seed, epoch))
        starts = np.arange(-int(generator.integers(self.block_size)), self.targets, self.block_size)
        return generator.permutation(starts)

    def _rows(self, starts: np.ndarray) -> dict[str, torch.Tensor]:
        import torch

        begin = np.maximum(starts, 0)
        end = np.minimum(starts + self.block_size, self.targets)
        index = begin[:, None] + np.arange(self.block_size + 1)  # (B, T + 1)
        rows = torch.from_numpy(self.tokens[np.minimum(index, self.targets)].astype(np.int64))
        labels = rows[:, 1:].clone()
        labels[torch.from_numpy(index[:, :-1] >= end[:, None])] = -100
        return {"input_ids": rows[:, :-1].contiguous(), "labels": labels}


@dataclass(frozen=True)
class TextData:
    """A prepared corpus: its three splits, its tokenizer, and what metadata.json says of it."""

    folder: Path
    metadata: dict[str, Any]
    tokenizer: Tokenizer
    train: TokenBlocks
    validation: TokenBlocks
    test: TokenBlocks

    @property
    def fingerprint(self) -> str:
        """Equal for equal tokens in equal splits and rows; a resumed run checks it."""
        return f"{self.metadata['fingerprint']}/{self.train.block_size}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{size['characters']:,}</td><td>{size['tokens']:,}</td></tr>"
            for name, size in self.metadata["splits"].items()
        )
        facts = self.metadata
        origin = f"{html.escape(facts['source'])}, sha256 {facts['sha256'][:12]}, vocabulary {facts['vocab_size']:,}"
        return f"<p>{origin}</p><table><tr><th>split</th><th>characters</th><th>tokens</th></tr>{rows}</table>"

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size['tokens']:,}" for name, size in self.metadata["splits"].items())
        return f"{self.metadata['source']}: tokens {sizes}; vocabulary {self.metadata['vocab_size']:,}; {self.folder}"


def prepare(config: DataConfig, root: Path) -> TextData:
    """Tokenize a corpus into a folder under `root`, or open the one an equal corpus and config left there."""
    corpus = load_corpus(config)
    settings = config.model_copy(update={"block_size": 1, "corpus": corpus.sha256})
    version = version_of(config.tokenizer)
    if version is not None:
        settings = settings.replace(tokenizer={"name": version})
    identity = settings.fingerprint()
    name = "".join(letter if letter.isalnum() else "-" for letter in Path(config.corpus).stem)
    folder = root / f"{name}-{config.tokenizer.kind}-{identity}"
    if not folder.is_dir():
        _write(folder, config, corpus, identity)
    return open_data(folder, config.block_size)


def open_data(folder: Path, block_size: int) -> TextData:
    """Memory-map a dataset folder. Raises `CorpusError` for a split shorter than one block (no test split is fine)."""
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    splits = {}
    for name in SPLITS:
        size = metadata["splits"][name]
        if size["tokens"] <= block_size and (size["tokens"] or name != "test"):
            raise CorpusError(
                f"The {name} split of {metadata['source']} has {size['tokens']} tokens, fewer than one block of"
                f" {block_size} and its next token. Use a longer text, a smaller data.block_size, or other data.splits."
            )
        path = folder / f"{name}.tokens.bin"
        tokens = np.memmap(path, metadata["dtype"], mode="r") if size["tokens"] else np.empty(0, metadata["dtype"])
        if len(tokens) != size["tokens"]:
            raise CorpusError(
                f"{path} holds {len(tokens)} tokens, and metadata.json says {size['tokens']}: delete {folder}."
            )
        splits[name] = TokenBlocks(tokens, block_size, size["characters"], size["bytes"])
    return TextData(folder, metadata, load_tokenizer(folder), **splits)


def preview(batch: dict[str, torch.Tensor], tokenizer: Tokenizer, rows: int = 4) -> pandas.DataFrame:
    """The first rows of a batch as text: the end of what the model reads, and what it must say after it."""
    import pandas

    shown = []
    for ids, labels in zip(batch["input_ids"][:rows], batch["labels"][:rows]):
        real = labels != -100
        text, following = tokenizer.decode(ids[real].tolist()), tokenizer.decode(labels[real][-1:].tolist())
        shown.append({"input": repr(text)[1:-1][-48:], "then": repr(following)[1:-1], "targets": int(real.sum())})
    return pandas.DataFrame(shown)


def split_text(text: str, shares: tuple[float, float, float]) -> dict[str, str]:
    """Contiguous, non-overlapping parts that together are the whole text."""
    first = round(len(text) * shares[0])
    second = len(text) if shares[2] == 0 else round(len(text) * (shares[0] + shares[1]))
    return dict(zip(SPLITS, (text[:first], text[first:second], text[second:])))


def _write(folder: Path, config: DataConfig, corpus: Corpus, identity: str) -> None:
    parts = split_text(corpus.text, config.splits)
    tokenizer = build_tokenizer(config.tokenizer, corpus.text, parts["train"])
    dtype = "<u2" if tokenizer.vocab_size <= 2**16 else "<u4"
    with written_whole(folder) as writing:
        tokenizer.save(writing)
        sizes = {}
        for name, part in parts.items():
            ids = tokenizer.encode(part) if part else np.empty(0, np.int64)
            ids.astype(dtype).tofile(writing / f"{name}.tokens.bin")
            sizes[name] = {"tokens": len(ids), "characters": len(part), "bytes": len(part.encode("utf-8"))}
        metadata = {
            "source": corpus.source,
            "sha256": corpus.sha256,
            "fingerprint": identity,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer": config.tokenizer.model_dump(),
            "dtype": dtype,
            "splits": sizes,
        }
        (writing / "metadata.json").write_text(json.dumps(metadata, indent=2, ensure_ascii=False), encoding="utf-8")
