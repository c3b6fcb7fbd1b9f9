"""Tokenizers behind one small protocol: characters, byte-level BPE, WordPiece, and any Hugging Face tokenizer.

A tokenizer is made from a config (and a corpus, where it learns from one), saved in a folder, and loaded from it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from utils.core.config import Config, ConfigError


class TokenizerError(ConfigError):
    """Text that a tokenizer cannot take, or a tokenizer that cannot be loaded."""


class TokenizerConfig(Config):
    """How text becomes token ids."""

    kind: Literal["char", "bpe", "wordpiece", "t5", "hf"] = "char"
    """char: one id a character; trained on the training split: bpe (byte-level BPE), wordpiece (as BERT's, lower case),
    t5 (byte-level BPE with padding, end and sentinels); hf: a Hugging Face tokenizer"""
    byte_fallback: bool = False
    """char only: spell a character outside the vocabulary as its UTF-8 bytes, instead of raising"""
    vocab_size: int = Field(2048, ge=257)
    """bpe, wordpiece, t5: entries to learn at most, the 256 bytes (not wordpiece) and the special tokens included"""
    name: str | None = None
    """hf only: hub id or local folder, such as gpt2"""

    @model_validator(mode="after")
    def _named(self):
        if self.kind == "hf" and self.name is None:
            raise ValueError("kind=hf needs tokenizer.name: a hub id such as gpt2, or a local folder")
        if self.kind == "t5" and self.vocab_size < 256 + len(T5Tokenizer.SPECIAL):
            raise ValueError(
                f"kind=t5 needs a vocab_size of at least {256 + len(T5Tokenizer.SPECIAL)}: 256 bytes and"
                f" {len(T5Tokenizer.SPECIAL)} special tokens come before what is learned"
            )
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
    SPECIAL: tuple[str, ...] = (END,)

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
            special_tokens=list(cls.SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(_lines(text), trainer)
        return cls(inner)

    def encode(self, text: str) -> np.ndarray:
        return np.array(self.inner.encode(text).ids, np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode([int(index) for index in ids], skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        self.inner.save(str(folder / "tokenizer.json"))


class T5Tokenizer(BPETokenizer):
    """Byte-level BPE with T5's special tokens (Raffel et al. 2020): padding, end, and 100 sentinels for spans."""

    END = "</s>"
    SPECIAL = ("<pad>", END, *(f"<extra_id_{number}>" for number in range(100)))


class WordPieceTokenizer:
    """WordPiece as in BERT (Devlin et al. 2019), by the `tokenizers` library: lower case, without accents.

    Decoding gives the words back, not the spaces between them. What is in no entry is `[UNK]`.
    """

    SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

    def __init__(self, inner):
        self.inner = inner
        self.vocab_size = inner.get_vocab_size()
        self.start_id = inner.token_to_id("[CLS]")

    @classmethod
    def train(cls, text: str, vocab_size: int) -> WordPieceTokenizer:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

        inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        inner.normalizer = normalizers.BertNormalizer(lowercase=True)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece(cleanup=False)
        inner.model = models.WordPiece(_pieces(inner, text, cls.SPECIAL, vocab_size), unk_token="[UNK]")
        inner.add_special_tokens(list(cls.SPECIAL))
        return cls(inner)

    def encode(self, text: str) -> np.ndarray:
        return np.array(self.inner.encode(text, add_special_tokens=False).ids, np.int64)

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


CONTINUED = 0xF0000  # what is added to a character inside a word while merges are learned: private code points


def _pieces(inner, text: str, special: Sequence[str], vocab_size: int) -> dict[str, int]:
    """Entries of a WordPiece vocabulary: merges of BPE, for which `h` in `the` is another character than `h` in `he`.

    The same ids every time: the library's own trainer of WordPiece numbers `##h` and its like in a random order, and
    settles ties between merges by these numbers.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    def words(line: str) -> str:
        found = inner.pre_tokenizer.pre_tokenize_str(inner.normalizer.normalize_str(line))
        known = (word for word, _ in found if max(word) < chr(0x10000))  # beyond, there is no room above CONTINUED
        return " ".join(word[0] + "".join(chr(CONTINUED + ord(one)) for one in word[1:]) for word in known)

    merges = Tokenizer(models.BPE())
    merges.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # A quarter of the entries at most for single characters: many rare ones would leave no room for words.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special), limit_alphabet=vocab_size // 4, show_progress=False
    )
    merges.train_from_iterator(map(words, _lines(text)), trainer)
    return {_piece(entry): index for entry, index in merges.get_vocab().items()}


def _piece(entry: str) -> str:
    """An entry as WordPiece writes it: `##` before what goes on a word."""
    inside = ord(entry[0]) >= CONTINUED
    return "##" * inside + "".join(chr(ord(one) - CONTINUED) if ord(one) >= CONTINUED else one for one in entry)


TRAINED = {"bpe": BPETokenizer, "t5": T5Tokenizer, "wordpiece": WordPieceTokenizer}


def build_tokenizer(config: TokenizerConfig, text: str, training_text: str) -> Tokenizer:
    """Characters are taken from the whole `text`; BPE and WordPiece learn from `training_text` alone."""
    if config.kind == "char":
        return CharTokenizer(text, byte_fallback=config.byte_fallback)
    if config.kind == "hf":
        return HFTokenizer.load(config.name)
    return TRAINED[config.kind].train(training_text, config.vocab_size)


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

    inner = Tokenizer.from_file(str(path))
    kinds = (WordPieceTokenizer, T5Tokenizer, BPETokenizer)
    return next((kind for kind in kinds if inner.token_to_id(kind.SPECIAL[0]) == 0), BPETokenizer)(inner)


def _lines(text: str) -> Iterator[str]:
    """The lines of a text to learn from; a bar shows how far it is where that takes more than a second."""
    from tqdm import tqdm

    lines = text.splitlines(keepends=True)
    return iter(tqdm(lines, "learning the vocabulary", unit="line", file=sys.stdout, delay=1, mininterval=0.5))
