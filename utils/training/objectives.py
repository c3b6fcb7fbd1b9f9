"""Objectives: pure functions `(model, batch, step) -> {"loss": ..., metric: ...}`.

Every value is a mean over the batch's targets, as a scalar tensor; the loop weights it by how many there are. A target
is a label that is not -100 (a row, where a batch has no labels), so padding counts nowhere, whatever its token id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
Objective = Callable[[nn.Module, Batch, int], dict[str, Tensor]]
IGNORED = -100


def count_targets(batch: Batch) -> int:
    """Labels that are not -100; rows, where there are no labels."""
    if "labels" in batch:
        return int((batch["labels"] != IGNORED).sum())
    return len(next(iter(batch.values())))


def next_token(model: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
    """Cross-entropy in nats of each label given the ids up to its place, and the share predicted right.

    `input_ids` and `labels` are (B, T): `labels[:, t]` is the token that follows `input_ids[:, : t + 1]`.
    `attention_mask` (B, T) is needed only where padding stands on the left.
    """
    logits = model(batch["input_ids"], attention_mask=batch.get("attention_mask"))  # (B, T, V)
    return token_metrics(logits, batch["labels"])


def token_metrics(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Mean loss and accuracy over labels that are not -100; both 0 where there are none.

    `logits` (..., V), `labels` (...).
    """
    logits, labels = logits.flatten(0, -2), labels.flatten()  # (N, V), (N,)
    targets = (labels != IGNORED).sum().clamp(min=1)
    loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum") / targets
    with torch.no_grad():
        accuracy = (logits.argmax(-1) == labels).sum() / targets
    return {"loss": loss, "accuracy": accuracy}


def shard(batch: Batch, rank: int, world: int) -> Batch:
    """This process's rows of a global batch: as many for each, filled up with rows that have no target."""
    if world == 1:
        return batch
    rows = len(next(iter(batch.values())))
    missing = -rows % world
    if missing and "labels" not in batch:
        raise ValueError(
            f"{rows} rows cannot be shared by {world} processes; use a batch_size that is a multiple of it."
        )
    part = {}
    for name, value in batch.items():
        filler = torch.full_like(value[:1], IGNORED) if name == "labels" else value[:1]
        part[name] = torch.cat((value, filler.expand(missing, *value.shape[1:])))[rank::world]
    return part


def micro_batches(batch: Batch, rows: int | None) -> list[Batch]:
    """A batch cut into pieces of at most `rows` rows; whole where `rows` is None."""
    if rows is None:
        return [batch]
    pieces = {name: value.split(rows) for name, value in batch.items()}
    return [dict(zip(pieces, parts)) for parts in zip(*pieces.values())]
