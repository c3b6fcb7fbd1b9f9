"""The warm start: programs of ours, learned token by token after the prompts of the tasks that they made.

Only a program's tokens are targets, its end among them; what the prompt says is given. Leaves out the training (`fit`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.arc.programs import Example
from utils.arc.tasks import Task
from utils.core.config import digest
from utils.rl.problems import Pool
from utils.training.objectives import IGNORED

NEIGHBOURS = 32  # batches of rows that are sorted by length together


@dataclass(frozen=True)
class Demonstrations:
    """One split: prompts and the tokens to be learned after them.

    Batches hold `input_ids` and `labels`, both (B, T) int64, padded on the right. Rows of like length share a batch;
    which do, and in what order, is a function of (seed, epoch).
    """

    prompts: Sequence[Sequence[int]]
    answers: Sequence[Sequence[int]]
    pad_id: int

    @property
    def fingerprint(self) -> str:
        """Of every token."""
        rows = [row for pair in zip(self.prompts, self.answers) for row in pair]
        tokens = np.concatenate([np.asarray([len(row), *row], np.int64) for row in rows])
        return hashlib.sha256(tokens.tobytes()).hexdigest()[:12]

    def num_batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0) -> int:
        return -(-len(self.prompts) // batch_size)

    def batches(
        self, batch_size: int, *, seed: int | None = None, epoch: int = 0, start: int = 0
    ) -> Iterator[dict[str, Tensor]]:
        """Batches from number `start` on; in the order of the rows where there is no seed."""
        for rows in self._order(batch_size, seed, epoch)[start:]:
            yield self._batch(rows)

    def _order(self, size: int, seed: int | None, epoch: int) -> list[np.ndarray]:
        rows = np.arange(len(self.prompts))
        if seed is None:
            return np.split(rows, range(size, len(rows), size))
        rng = np.random.default_rng((seed, epoch))
        lengths = np.array([len(prompt) + len(answer) for prompt, answer in zip(self.prompts, self.answers)])
        batches = []
        for part in np.split(rng.permutation(rows), range(size * NEIGHBOURS, len(rows), size * NEIGHBOURS)):
            part = part[lengths[part].argsort(kind="stable")]
            batches += np.split(part, range(size, len(part), size))
        return [batches[at] for at in rng.permutation(len(batches))]

    def _batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        texts = [(*self.prompts[row], *self.answers[row]) for row in rows]
        longest = max(map(len, texts)) - 1
        input_ids = torch.full((len(rows), longest), self.pad_id)
        labels = torch.full((len(rows), longest), IGNORED)
        for at, (row, text) in enumerate(zip(rows, texts)):
            input_ids[at, : len(text) - 1] = torch.tensor(text[:-1])
            labels[at, len(self.prompts[row]) - 1 : len(text) - 1] = torch.tensor(self.answers[row])
        return {"input_ids": input_ids, "labels": labels}


@dataclass(frozen=True)
class WarmData:
    """What `fit` trains on."""

    train: Demonstrations
    validation: Demonstrations
    fingerprint: str


def warm_data(
    pool: Pool, encode: Callable[[Task], Sequence[int]], answer: Callable[[str], Sequence[int]], pad_id: int
) -> WarmData:
    """The pool's tasks as prompts (by `encode`) and its programs as what to answer (by `answer`, its end included)."""

    def split(examples: Sequence[Example]) -> Demonstrations:
        return Demonstrations([encode(one.task) for one in examples], [answer(one.program) for one in examples], pad_id)

    train, validation = split(pool.train), split(pool.validation)
    return WarmData(train, validation, digest([train.fingerprint, validation.fingerprint]))
