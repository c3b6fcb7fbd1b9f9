"""Tokenizers behind one small protocol: characters, byte-level BPE, and any Hugging Face tokenizer.

A tokenizer is made from a config (and a corpus, where it learns from one), saved in a folder, and loaded from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from utils.core.config import Config, ConfigError


class TokenizerError(ConfigError):
    """Text that a tokenizer cannot take, or a tokenizer that cannot be loaded."""


class TokenizerConfig(Config):
    """How text becomes token ids."""

    kind: Literal["char", "bpe", "hf"] = "char"
    """char: one id a character; bpe: byte-level BPE trained on the training split; hf: a Hugging Face tokenizer"""
    byte_fallback: bool = False
    """char only: spell a character outside the vocabulary as its UTF-8 bytes, instead of raising"""
    vocab_size: int = Field(2048, ge=257)
    """bpe only: entries to learn, the 256 bytes and the end-of-text token included"""
    name: str | None = None
    """hf only: hub id or local folder, such as gpt2"""

    @model_validator(mode="after")
    def _named(self):
        if self.kind == "hf" and self.name is None:
            raise ValueError("kind=hf needs tokenizer.name: a hub id such as gpt2, or a local folder")
        return self


class Tokenizer(Protocol):
    """Text to ids and back. `decode(encode(text)) == text` for our own; a Hugging Face one may normalise."""

    vocab_size: int
    start_id: int
    """what stands before the first token of a text: end-of-text where there is one, else a line break"""

    def encode(self, text: str) -> np.ndarray:
        """Token ids, (T,), int64."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def save(self, folder: Path) -> None: ...


class CharTokenizer:
    """One id a character, in code-point order; with `byte_fallback`, 256 more ids for the bytes of any other."""

    def __init__(self, characters: str, *, byte_fallback: bool = False):
        self.characters = "".join(sorted(set(characters)))
        self.byte_fallback = byte_fallback
        self.vocab_size = len(self.characters) + 256 * byte_fallback
        self.start_id = max(self.characters.find("\n"), 0)
        points = np.array([ord(character) for character in self.characters])
        self._ids = np.full(int(points.max()) + 1, -1)  # code point -> id
        self._ids[points] = np.arange(len(points))

    def encode(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        ids = np.where(points < len(self._ids), self._ids[np.minimum(points, len(self._ids) - 1)], -1)
        unknown = np.flatnonzero(ids < 0)
        if len(unknown) == 0:
            return ids
        if not self.byte_fallback:
            names = ", ".join(f"{character!r}" for character in sorted({text[index] for index in unknown})[:10])
            raise TokenizerError(
                f"{len(unknown)} characters are outside the vocabulary of {self.vocab_size}: {names}. Remove them, or"
                " train with tokenizer.byte_fallback=true."
            )
        spelled, before = [], 0
        for index in unknown:
            spelled += [
                ids[before:index],
                np.frombuffer(text[index].encode(), np.uint8) + np.int64(len(self.characters)),
            ]
            before = index + 1
        return np.concatenate([*spelled, ids[before:]])

    def decode(self, ids: Sequence[int]) -> str:
        text, spelled = [], bytearray()
        for index in map(int, ids):
            if index >= len(self.characters):
                spelled.append(index - len(self.characters))
                continue
            text += [spelled.decode(errors="replace"), self.characters[index]]
            spelled.clear()
        return "".join(text) + spelled.decode(errors="replace")

    def save(self, folder: Path) -> None:
        content = {"kind": "char", "characters": self.characters, "byte_fallback": self.byte_fallback}
        (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


class BPETokenizer:
    """Byte-level BPE (Sennrich et al. 2016, on bytes as in GPT-2), by the `tokenizers` library. Takes any text."""

    END = "<|endoftext|>"

    def __init__(self, inner):
        self.inner = inner
        self.vocab_size = inner.get_vocab_size()
        self.start_id = inner.token_to_id(self.END)

    @classmethod
    def train(cls, text: str, vocab_size: int) -> BPETokenizer:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[cls.END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(text.splitlines(keepends=True), trainer)
        return cls(inner)

    def encode(self, text: str) -> np.ndarray:
        return np.array(self.inner.encode(text).ids, np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode([int(index) for index in ids], skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        self.inner.save(str(folder / "tokenizer.json"))


class HFTokenizer:
    """A Hugging Face tokenizer, without special tokens added around the text."""

    def __init__(self, inner):
        self.inner = inner
        self.vocab_size = len(inner)
        marks = (inner.bos_token_id, inner.eos_token_id, inner.cls_token_id)
        self.start_id = next((mark for mark in marks if mark is not None), 0)

    @classmethod
    def load(cls, name: str) -> HFTokenizer:
        from transformers import AutoTokenizer

        try:
            return cls(AutoTokenizer.from_pretrained(name))
        except (OSError, ValueError) as error:
            raise TokenizerError(f"Hugging Face tokenizer {name!r} could not be loaded: {error}") from error

    def fingerprint(self) -> str:
        """Of the vocabulary and the rules: a name alone does not say which version it stands for."""
        backend = getattr(self.inner, "backend_tokenizer", None)
        rules = backend.to_str() if backend is not None else json.dumps(sorted(self.inner.get_vocab().items()))
        return hashlib.sha256(rules.encode()).hexdigest()[:12]

    def encode(self, text: str) -> np.ndarray:
        return np.array(self.inner(text, add_special_tokens=False, verbose=False)["input_ids"], np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode([int(index) for index in ids], clean_up_tokenization_spaces=False)

    def save(self, folder: Path) -> None:
        self.inner.save_pretrained(folder)


def build_tokenizer(config: TokenizerConfig, text: str, training_text: str) -> Tokenizer:
    """Characters are taken from the whole `text`; BPE merges are learned from `training_text` alone."""
    if config.kind == "char":
        return CharTokenizer(text, byte_fallback=config.byte_fallback)
    if config.kind == "bpe":
        return BPETokenizer.train(training_text, config.vocab_size)
    return HFTokenizer.load(config.name)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `save` left in a folder."""
    if (folder / "tokenizer_config.json").is_file():
        return HFTokenizer.load(str(folder))
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise TokenizerError(f"No tokenizer in {folder}: expected tokenizer.json.")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("kind") == "char":
        return CharTokenizer(content["characters"], byte_fallback=content["byte_fallback"])
    from tokenizers import Tokenizer

    return BPETokenizer(Tokenizer.from_file(str(path)))
