"""Evaluation of an objective over a split, without touching the model's mode or the generators."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from utils.core import repro
from utils.core.device import choose, make_fabric
from utils.core.run import RunError
from utils.training.config import TrainConfig
from utils.training.failing import Place, name_rows
from utils.training.memory import Rows, out_of_memory
from utils.training.metrics import WeightedMeans, language_metrics
from utils.training.objectives import OBJECTIVES, Batch, Objective, count_targets

if TYPE_CHECKING:
    from lightning_fabric import Fabric


LANGUAGE_TASKS = ("causal_lm", "masked_lm", "seq2seq")


class Split(Protocol):
    """Batches in an order that is a function of (seed, epoch). `units`, if there, is as in `TokenBlocks`."""

    def num_batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0) -> int: ...

    def batches(
        self, batch_size: int, *, seed: int | None = None, epoch: int = 0, start: int = 0
    ) -> Iterator[dict[str, Tensor]]: ...


class Data(Protocol):
    """What a model is trained on. `fingerprint` says which data it is: a resumed run must find the same."""

    train: Split
    validation: Split
    fingerprint: str


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective: Objective,
    split: Split,
    config: TrainConfig,
    *,
    fabric: Fabric | None = None,
    limit: Rows | None = None,
) -> dict[str, float]:
    """Means of the objective's values over every target of `split` (or `config.eval_batches` batches of it).

    For a language task (by its objective, or a split with `units`) also perplexity, and bits per character and byte
    where the split knows its `units`. Several processes share the
    batches, and all get the result. Where memory runs out, fewer rows go through the model at once: `limit` holds how
    many, over several evaluations. Raises `OutOfMemory` where one is too much, `RowError` where single rows fail.
    """
    fabric = fabric or make_fabric(choose(config.device, config.precision))
    limit = limit or evaluation_rows()
    rows = config.eval_rows
    mode = model.training
    model.to(fabric.device).eval()
    means = WeightedMeans()

    def values_of(parts: list[Batch]) -> list[tuple[dict[str, Tensor], int]]:
        with fabric.autocast():
            return [(objective(model, fabric.to_device(part), 0), count_targets(part)) for part in parts]

    try:
        batches = islice(enumerate(split.batches(rows)), fabric.global_rank, config.eval_batches, fabric.world_size)
        with repro.preserved_rng():
            for number, batch in batches:
                try:
                    found = limit.run(batch, values_of, undo=lambda: None)
                except Exception as error:
                    if not isinstance(error, RunError) and not out_of_memory(error):
                        place = Place(number, None, f"next(split.batches({rows}, start={number}))")
                        name_rows(error, model, objective, batch, 0, place, fabric)
                    raise
                for values, weight in found:
                    means.update(values, weight)
    finally:
        model.train(mode)
    result = means.compute(fabric)
    language = hasattr(split, "units") or _is_language(objective)
    return language_metrics(result, getattr(split, "units", {})) if language else result


def _is_language(objective: Objective) -> bool:
    """Whether its loss is that of tokens, also where keywords are bound to it."""
    while isinstance(objective, functools.partial):
        objective = objective.func
    return objective in [OBJECTIVES[task] for task in LANGUAGE_TASKS]


def evaluation_rows() -> Rows:
    """For evaluations that remember how many rows memory takes."""
    return Rows(None, "an evaluation")
