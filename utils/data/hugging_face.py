"""A tokenizer of the transformers library, from the Hugging Face Hub or from a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.data.retries import with_retries
from utils.data.tokenizer import TokenizerError


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

        def read():
            return AutoTokenizer.from_pretrained(name)

        try:
            return cls(read() if Path(name).is_dir() else with_retries(read, f"Loading the tokenizer {name}"))
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
