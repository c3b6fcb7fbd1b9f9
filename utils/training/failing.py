"""`Place`: where in the data a batch stands; and which of its rows an objective fails on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from utils.core import repro
from utils.core.run import RunError
from utils.training.objectives import Batch, Objective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SHOWN = 10


class RowError(RunError):
    """Rows that the model or the objective cannot take; the message names them and how to see them."""


@dataclass(frozen=True)
class Place:
    """A batch: its number in its epoch (None: in the plain order of evaluation), and the call that gives it."""

    batch: int
    epoch: int | None
    call: str

    def __str__(self) -> str:
        return f"batch {self.batch}" + ("" if self.epoch is None else f" of epoch {self.epoch}")


def name_rows(
    error: Exception, model: nn.Module, objective: Objective, batch: Batch, step: int, place: Place, fabric: Fabric
) -> None:  # fmt: skip
    """Raise `RowError` from `error` where some rows of a batch fail by themselves, and others do not.

    Each is tried alone, without gradients, in evaluation mode. Where all fail it is the model or the objective, where
    none does it is no row: then this returns.
    """
    count = len(next(iter(batch.values())))
    rows = [row for row in range(count) if _fails(model, objective, batch, row, step, fabric)]
    if not rows or (len(rows) == count > 1):
        return
    many = len(rows) > 1
    named = ", ".join(map(str, rows[:SHOWN])) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
    raise RowError(
        f"Row{'s' * many} {named} (counted from 0) of {place} fail{'' if many else 's'}:"
        f" {type(error).__name__}: {error} See {'them' if many else 'it'} with"
        f" {{name: value[{rows[:SHOWN] if many else rows[0]}] for name, value in {place.call}.items()}}; mend or drop"
        f" {'them' if many else 'it'} in the data, or mend the model. The weights are as before the batch."
    ) from error


@torch.no_grad()
def _fails(model: nn.Module, objective: Objective, batch: Batch, row: int, step: int, fabric: Fabric) -> bool:
    part = {name: value[row : row + 1] for name, value in batch.items()}
    mode = model.training
    model.eval()
    try:
        with repro.preserved_rng(), fabric.autocast():
            objective(model, fabric.to_device(part), step)
    except Exception:
        return True
    finally:
        model.train(mode)
    return False
