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


def next_token(model: nn.Module, batch: Batch, step: int, *, label_smoothing: float = 0.0) -> dict[str, Tensor]:
    """Cross-entropy in nats of each label given the ids up to its place, and the share predicted right.

    `input_ids` and `labels` are (B, T): `labels[:, t]` is the token that follows `input_ids[:, : t + 1]`.
    `attention_mask` (B, T) is needed only where padding stands on the left.
    """
    logits = _logits(model, batch)  # (B, T, V)
    return token_metrics(logits, batch["labels"], label_smoothing=_while_training(model, label_smoothing))


def masked_token(model: nn.Module, batch: Batch, step: int, *, label_smoothing: float = 0.0) -> dict[str, Tensor]:
    """Cross-entropy in nats of the chosen tokens given the whole masked row (Devlin et al. 2019), and the share right.

    `labels` (B, T) hold the original token where one was chosen (`data.masking.mask_tokens`), -100 elsewhere.
    """
    logits, labels = _logits(model, batch), batch["labels"]  # (B, T, V), (B, T)
    chosen = labels != IGNORED
    # About one place in seven: the rest of the logits, the largest tensor of the step, is not copied to fp32.
    return token_metrics(logits[chosen], labels[chosen], label_smoothing=_while_training(model, label_smoothing))


def sequence_to_sequence(
    model: nn.Module, batch: Batch, step: int, *, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Cross-entropy in nats of each target token given the source and the right tokens before it (teacher forcing).

    `labels` (B, Td), -100 on padding; `decoder_input_ids` (B, Td) are the labels moved one place to the right. The
    batch has to bring them (`data.masking.shift_right`): only the data knows the id that a target starts from. Masks
    of source and target where they have padding. Raises ValueError for a batch without decoder ids.
    """
    if "decoder_input_ids" not in batch:
        raise ValueError(
            f"The batch has {', '.join(batch)}, and no decoder_input_ids; make them from the labels with"
            " utils.data.masking.shift_right(labels, start_id, pad_id)."
        )
    logits = _logits(model, batch)  # (B, Td, V)
    return token_metrics(logits, batch["labels"], label_smoothing=_while_training(model, label_smoothing))


def classify(model: nn.Module, batch: Batch, step: int, *, label_smoothing: float = 0.0) -> dict[str, Tensor]:
    """Cross-entropy in nats of each example's class, and the share predicted right.

    `labels` (B,) count from 0; an example with -100 counts nowhere.
    """
    logits = _logits(model, batch)  # (B, classes)
    return token_metrics(logits, batch["labels"], label_smoothing=_while_training(model, label_smoothing))


OBJECTIVES: dict[str, Objective] = {
    "causal_lm": next_token,
    "masked_lm": masked_token,
    "seq2seq": sequence_to_sequence,
    "classifier": classify,
}
"""By task; each takes `label_smoothing` too (bind it with functools.partial)."""


def token_metrics(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> dict[str, Tensor]:
    """Mean loss and accuracy over labels that are not -100; both 0 where there are none.

    `logits` (..., V), `labels` (...). With `label_smoothing` e the target is 1 - e on the label and e spread evenly
    over all V (Szegedy et al. 2016). Raises ValueError where the shapes do not belong together.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"Logits of shape {tuple(logits.shape)} for labels of shape {tuple(labels.shape)}; expected"
            f" ({', '.join(map(str, labels.shape))}, V): one row of logits for each label."
        )
    logits, labels = logits.flatten(0, -2), labels.flatten()  # (N, V), (N,)
    targets = (labels != IGNORED).sum().clamp(min=1)
    loss = F.cross_entropy(
        logits.float(), labels, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing
    )
    with torch.no_grad():
        accuracy = (logits.argmax(-1) == labels).sum() / targets
    return {"loss": loss / targets, "accuracy": accuracy}


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """The model called by keyword with everything in the batch but the labels."""
    return model(**{name: value for name, value in batch.items() if name != "labels"})


def _while_training(model: nn.Module, label_smoothing: float) -> float:
    """Smoothing is for learning: losses of an evaluation are plain, so that runs with and without it compare."""
    return label_smoothing if model.training else 0.0


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
