"""Metrics over many batches, each weighted by its targets; and what follows from a loss in nats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class WeightedMeans:
    """Running sums of weighted metrics, in double precision, on the device until `compute`."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weight = 0

    def update(self, means: Mapping[str, Tensor], weight: int) -> None:
        """Add means over `weight` targets."""
        for name, value in means.items():
            total = value.detach().double() if value.device.type != "mps" else value.detach()
            self.sums[name] = self.sums.get(name, torch.zeros_like(total)) + total * weight
        self.weight += weight

    def compute(self, fabric: Fabric | None = None) -> dict[str, float]:
        """Means over every target seen, by every process of `fabric`. Raises ValueError where there was none."""
        sums, weight = {name: value.item() for name, value in self.sums.items()}, self.weight
        if fabric is not None and fabric.world_size > 1:
            gathered: list = [None] * fabric.world_size
            torch.distributed.all_gather_object(gathered, (sums, weight))
            weight = sum(part for _, part in gathered)
            names = {name for part, _ in gathered for name in part}
            sums = {name: sum(part.get(name, 0.0) for part, _ in gathered) for name in sorted(names)}
        if weight == 0:
            raise ValueError("No targets to average over: every label is -100, or the split is empty.")
        return {name: value / weight for name, value in sums.items()}


def language_metrics(means: Mapping[str, float], units: Mapping[str, float]) -> dict[str, float]:
    """Add perplexity exp(loss), and bits a unit: loss / ln 2 / (units a token). `units` as of `TokenBlocks.units`."""
    loss = means["loss"]
    bits = {f"bits_per_{unit}": loss / math.log(2) / per_token for unit, per_token in units.items()}
    return {**means, "perplexity": math.inf if loss > 700 else math.exp(loss), **bits}
