"""A model's answers over a split: in eval mode, in the split's order, shared by several processes.

What is asked of it, and measured on its answers: `training.classes`, `training.generation`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from utils.core import repro
from utils.training.config import TrainConfig
from utils.training.evaluate import Split
from utils.training.objectives import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def over(
    model: nn.Module,
    split: Split,
    config: TrainConfig,
    fabric: Fabric,
    answer: Callable[[Batch], tuple[list, list]],
    batches: int | None = None,
) -> tuple[list, list]:
    """`answer`'s two lists, one entry an example, over a split in its order; each process answers for its batches."""
    rows = config.eval_rows
    model.to(fabric.device)
    own: list[tuple[list, list]] = []
    with judged(model), torch.no_grad(), repro.preserved_rng():
        for batch in islice(split.batches(rows), fabric.global_rank, batches, fabric.world_size):
            own.append(answer(fabric.to_device(batch)))
    shares: list[Any] = [own]
    if fabric.world_size > 1:
        shares = [None] * fabric.world_size
        torch.distributed.all_gather_object(shares, own)
    in_order = [pair for turn in zip_longest(*shares) for pair in turn if pair is not None]
    return [one for made, _ in in_order for one in made], [one for _, right in in_order for one in right]


@contextlib.contextmanager
def judged(model: nn.Module) -> Iterator[None]:
    """In eval mode inside, as it was afterwards."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)


def parted(batch: Batch) -> tuple[Mapping[str, Tensor], Tensor]:
    """Inputs and labels."""
    return {name: value for name, value in batch.items() if name != "labels"}, batch["labels"]
