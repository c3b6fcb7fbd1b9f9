"""Splits as batches of rows, padded to the longest of their batch or cut out of packed text.

The order of an epoch's batches is a function of (seed, epoch), and what is drawn for a batch (its masks) of (seed,
epoch, number of the batch); so any position can be taken up again exactly. Without a seed the order is that of the
rows, and draws are fixed for each row. What a batch holds is utils/data/collate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

MEGA = 50  # batches that are sorted by length together, at most
EVALUATION = 0  # the seed of what is drawn for evaluation
Batch = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Draw:
    """Where the randomness of one batch comes from."""

    seed: int | None
    epoch: int
    number: int

    def generators(self, rows: Sequence[int]) -> list[tuple[np.random.Generator, slice]]:
        """A generator for the whole batch; or, for evaluation, one for each row, so that batch sizes change nothing."""
        if self.seed is not None:
            return [(np.random.default_rng((1, self.seed, self.epoch, self.number)), slice(0, len(rows)))]
        return [(np.random.default_rng((0, EVALUATION, int(row))), slice(at, at + 1)) for at, row in enumerate(rows)]


@dataclass(frozen=True)
class TokenRows:
    """Rows, each once an epoch, in batches of about one length.

    An epoch is a permutation of the rows, cut into stretches of up to `MEGA` batches; each stretch is sorted by length
    and cut into batches, and the batches of all of them are shuffled. The batch that is not full is any of them.
    """

    collate: Callable[[np.ndarray, Draw], Batch]
    lengths: np.ndarray
    """(N,), or (N, 2) for sources and targets: the ids of each row"""
    targets: int
    """labels that an epoch asks for; of masked text, as many as it does on average"""

    def __len__(self) -> int:
        return len(self.lengths)

    def num_batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0) -> int:
        return -(-len(self) // batch_size)

    def batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on; in the order of the rows where `seed` is None."""
        for number, rows in enumerate(self.order(batch_size, seed=seed, epoch=epoch)):
            if number >= start:
                yield self.collate(rows, Draw(seed, epoch, number))

    def order(self, batch_size: int, *, seed: int | None = None, epoch: int = 0) -> list[np.ndarray]:
        """The row numbers of each batch."""
        number = len(self)
        if seed is None:
            order = np.arange(number)
            return [order[first : first + batch_size] for first in range(0, number, batch_size)]
        generator = np.random.default_rng((seed, epoch))
        order = generator.permutation(number)
        stretch = batch_size * max(1, min(MEGA, number // (4 * batch_size)))
        for first in range(0, number, stretch):
            part = order[first : first + stretch]
            columns = self.lengths[part].reshape(len(part), -1)
            order[first : first + stretch] = part[np.lexsort(columns.T[::-1])]  # by the source, then by the target
        batches = [order[first : first + batch_size] for first in range(0, number, batch_size)]
        return [batches[index] for index in generator.permutation(len(batches))]

    def padding(self, batch_size: int, *, seed: int | None = None, epoch: int = 0) -> float:
        """Share of an epoch's places that hold padding."""
        batches = self.order(batch_size, seed=seed, epoch=epoch)
        places = sum(int((self.lengths[rows].max(0) * len(rows)).sum()) for rows in batches)
        return 1 - float(self.lengths.sum()) / places if places else 0.0


@dataclass(frozen=True)
class TokenWindows:
    """Packed text as blocks of `block_size` ids, every id once an epoch.

    The cuts between blocks move with the epoch; an epoch's first and last block may be shorter, and are padded.
    """

    collate: Callable[[list[np.ndarray], np.ndarray, Draw], Batch]
    tokens: np.ndarray
    block_size: int
    share: float = 1.0
    """of the ids, how many are targets"""
    lengths: np.ndarray = field(init=False, repr=False)
    """(N,) of the blocks in the order of the text"""

    def __post_init__(self):
        starts = self._starts(None, 0)
        object.__setattr__(self, "lengths", np.minimum(len(self.tokens) - starts, self.block_size))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def targets(self) -> int:
        """Labels that an epoch asks for, on average."""
        return round(self.share * len(self.tokens))

    def num_batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0) -> int:
        return -(-len(self._starts(seed, epoch)) // batch_size)

    def batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on; in the order of the text where `seed` is None."""
        starts = self._starts(seed, epoch)
        for number in range(start, -(-len(starts) // batch_size)):
            part = starts[number * batch_size : (number + 1) * batch_size]
            blocks = [np.asarray(self.tokens[max(at, 0) : at + self.block_size]) for at in part]
            yield self.collate(blocks, part // self.block_size, Draw(seed, epoch, number))

    def padding(self, batch_size: int, *, seed: int | None = None, epoch: int = 0) -> float:
        """Share of an epoch's places that hold padding: at the two ends alone."""
        return 1 - len(self.tokens) / (len(self._starts(seed, epoch)) * self.block_size) if len(self) else 0.0

    def _starts(self, seed: int | None, epoch: int) -> np.ndarray:
        """Where each block begins; the first may lie before the text (it is then cut short at the front)."""
        if seed is None:
            return np.arange(0, len(self.tokens), self.block_size)
        generator = np.random.default_rng((seed, epoch))
        starts = np.arange(-int(generator.integers(self.block_size)), len(self.tokens), self.block_size)
        return generator.permutation(starts)
