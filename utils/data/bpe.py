"""Tokenizers that merge bytes: byte-level BPE, and the same with T5's special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.data.tokenizer import lines_of


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
        inner.train_from_iterator(lines_of(text), trainer)
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
