"""The tokenizers there are: characters, byte-level BPE, WordPiece, any Hugging Face one, and one saved before.

A tokenizer is made from a config (and a corpus, where it learns from one), saved in a folder, and loaded from it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from utils.core.config import Config
from utils.data.bpe import BPETokenizer, T5Tokenizer
from utils.data.characters import CharTokenizer
from utils.data.hugging_face import HFTokenizer
from utils.data.tokenizer import Tokenizer, TokenizerError
from utils.data.wordpiece import WordPieceTokenizer

TRAINED = {"bpe": BPETokenizer, "t5": T5Tokenizer, "wordpiece": WordPieceTokenizer}


class TokenizerConfig(Config):
    """How text becomes token ids."""

    kind: Literal["char", "bpe", "wordpiece", "t5", "hf", "saved"] = "char"
    """char: one id a character; trained on the training split: bpe (byte-level BPE), wordpiece (as BERT's, lower case),
    t5 (byte-level BPE with padding, end and sentinels); hf: a Hugging Face tokenizer; saved: one that is in a
    folder of a dataset or of a run"""
    byte_fallback: bool = False
    """char only: spell a character outside the vocabulary as its UTF-8 bytes, instead of raising"""
    vocab_size: int = Field(2048, ge=257)
    """bpe, wordpiece, t5: entries to learn at most, the 256 bytes (not wordpiece) and the special tokens included"""
    name: str | None = None
    """hf: hub id or local folder, such as gpt2; saved: the folder that it was saved in"""

    @model_validator(mode="after")
    def _named(self):
        if self.kind == "hf" and self.name is None:
            raise ValueError("kind=hf needs tokenizer.name: a hub id such as gpt2, or a local folder")
        if self.kind == "saved" and self.name is None:
            raise ValueError("kind=saved needs tokenizer.name: the folder that a tokenizer was saved in")
        if self.kind == "t5" and self.vocab_size < 256 + len(T5Tokenizer.SPECIAL):
            raise ValueError(
                f"kind=t5 needs a vocab_size of at least {256 + len(T5Tokenizer.SPECIAL)}: 256 bytes and"
                f" {len(T5Tokenizer.SPECIAL)} special tokens come before what is learned"
            )
        return self


def build_tokenizer(config: TokenizerConfig, text: str, training_text: str) -> Tokenizer:
    """Characters are taken from the whole `text`; BPE and WordPiece learn from `training_text` alone."""
    if config.kind == "char":
        return CharTokenizer(text, byte_fallback=config.byte_fallback)
    if config.kind == "hf":
        return HFTokenizer.load(config.name)
    if config.kind == "saved":
        return load_tokenizer(Path(config.name).expanduser())
    return TRAINED[config.kind].train(training_text, config.vocab_size)


def version_of(config: TokenizerConfig) -> str | None:
    """12 hex digits of the tokenizer that a name stands for, as a name does not say which; None for a learned one."""
    if config.kind not in ("hf", "saved"):
        return None
    tokenizer = build_tokenizer(config, "", "")
    if isinstance(tokenizer, HFTokenizer):
        return tokenizer.fingerprint()
    return hashlib.sha256((Path(config.name).expanduser() / "tokenizer.json").read_bytes()).hexdigest()[:12]


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
