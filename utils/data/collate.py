"""Rows of ids as the batches that a task's models take: padded on the right, with their mask and labels.

    next_tokens    input_ids, attention_mask, labels: the token after each
    masked_tokens  input_ids with masks, attention_mask, labels where a token was chosen
    classes        input_ids, attention_mask, labels (B,)
    pairs          input_ids, attention_mask, labels, decoder_input_ids, decoder_attention_mask
    spans          the same, of text whose spans were taken out

Everything is int64. Labels are -100 on padding, whatever id fills it. Which rows make a batch: utils/data/batches.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from utils.data.masking import IGNORED, corrupt_spans, mask_tokens, shift_right
from utils.data.ragged import Ragged
from utils.data.special import Special

if TYPE_CHECKING:
    from utils.data.batches import Batch, Draw


def padded(rows: Sequence[np.ndarray], fill: int) -> tuple[np.ndarray, np.ndarray]:
    """(B, T) with T the longest, and its mask: 1 for a token."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
    filled = np.full(mask.shape, fill, np.int64)
    filled[mask] = np.concatenate(rows)
    return filled, mask.astype(np.int64)


@dataclass(frozen=True)
class NextTokens:
    """Each row by itself: the model reads all of it but the last token, and says all of it but the first."""

    ids: Ragged
    special: Special

    def __call__(self, rows: np.ndarray, draw: Draw) -> Batch:
        texts = [self.ids[row] for row in rows]
        inputs, mask = padded([text[:-1] for text in texts], self.special.padding)
        labels, _ = padded([text[1:] for text in texts], IGNORED)
        return _tensors(input_ids=inputs, attention_mask=mask, labels=labels)


@dataclass(frozen=True)
class MaskedTokens:
    """Rows with masks drawn anew each time."""

    special: Special
    vocab_size: int
    share: float
    ids: Ragged | None = None
    """the rows; None where blocks of packed text come"""

    def __call__(self, *given) -> Batch:
        """Of (rows, draw), or of (blocks, their numbers, draw)."""
        texts, rows, draw = given if self.ids is None else ([self.ids[row] for row in given[0]], *given)
        inputs, mask = padded(texts, self.special.padding)
        labels = np.full_like(inputs, IGNORED)
        for generator, part in draw.generators(rows):
            size = int(mask[part].sum(1).max())  # so that a row's masks do not hang on the longest of its batch
            inputs[part, :size], labels[part, :size] = mask_tokens(
                inputs[part, :size], generator, mask_id=self.special.mask, vocab_size=self.vocab_size,
                special_ids=self.special.ids, attention_mask=mask[part, :size], rate=self.share,
            )  # fmt: skip
        return _tensors(input_ids=inputs, attention_mask=mask, labels=labels)


@dataclass(frozen=True)
class Classes:
    """Rows with the number of their class."""

    ids: Ragged
    labels: np.ndarray
    special: Special

    def __call__(self, rows: np.ndarray, draw: Draw) -> Batch:
        inputs, mask = padded([self.ids[row] for row in rows], self.special.padding)
        return _tensors(input_ids=inputs, attention_mask=mask, labels=np.asarray(self.labels[rows], np.int64))


@dataclass(frozen=True)
class Pairs:
    """Sources and targets; the decoder reads `start_id`, then the target but for its last token."""

    ids: Ragged
    target_ids: Ragged
    special: Special
    start_id: int

    def __call__(self, rows: np.ndarray, draw: Draw) -> Batch:
        sources, targets = ([held[row] for row in rows] for held in (self.ids, self.target_ids))
        return sequences(sources, targets, self.special, self.start_id)


@dataclass(frozen=True)
class Spans:
    """Blocks of text with spans taken out (T5), an end after the source and after the target."""

    special: Special
    start_id: int
    share: float
    mean_span: float

    def __call__(self, blocks: list[np.ndarray], numbers: np.ndarray, draw: Draw) -> Batch:
        sources, targets = [], []
        for generator, part in draw.generators(numbers):
            for block in blocks[part]:
                source, target = corrupt_spans(
                    block, generator, sentinels=self.special.sentinels, density=self.share, mean_span=self.mean_span
                )
                sources.append(np.append(source, self.special.end))
                targets.append(np.append(target, self.special.end))
        return sequences(sources, targets, self.special, self.start_id)


def sequences(sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], special: Special, start_id: int) -> Batch:
    """The batch of an encoder and a decoder."""
    inputs, mask = padded(sources, special.padding)
    labels, target_mask = padded(targets, IGNORED)
    return _tensors(
        input_ids=inputs,
        attention_mask=mask,
        decoder_input_ids=shift_right(labels, start_id, special.padding),
        decoder_attention_mask=target_mask,
        labels=labels,
    )


def _tensors(**arrays: np.ndarray) -> Batch:
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}
