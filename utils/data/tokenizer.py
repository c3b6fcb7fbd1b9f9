"""What a tokenizer is: text to ids and back. Which there are stands in utils/data/tokenizers.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.core.config import ConfigError


class TokenizerError(ConfigError):
    """Text that a tokenizer cannot take, or a tokenizer that cannot be loaded."""


class Tokenizer(Protocol):
    """Text to ids and back. `decode(encode(text)) == text` for our own; a Hugging Face one may normalise."""

    vocab_size: int
    start_id: int
    """what stands before the first token of a text: end-of-text where there is one, else a line break"""

    def encode(self, text: str) -> np.ndarray:
        """Token ids, (T,), int64."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def save(self, folder: Path) -> None: ...


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text to learn from; a bar shows how far it is where that takes more than a second."""
    from tqdm import tqdm

    lines = text.splitlines(keepends=True)
    return iter(tqdm(lines, "learning the vocabulary", unit="line", file=sys.stdout, delay=1, mininterval=0.5))
