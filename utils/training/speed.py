"""Throughput, and utilisation against the matmul peak measured on this machine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from utils.core import repro
from utils.core.device import peak_flops
from utils.training.config import TrainConfig
from utils.training.objectives import Batch, Objective, count_targets

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
ROWS = 8  # over which the FLOPs of a row are averaged


class Speed:
    """Tokens a second (rows, where a batch has no labels or one a row), model FLOPs utilisation since the last `take`.

    Utilisation as in Chowdhery et al. 2022, appendix B, with the FLOPs of a row averaged over a few.

    A training step is counted as three forward passes: one forward, two backward. The peak is measured, so 100% is
    what a large matmul reaches here, not a data sheet's figure.
    """

    def __init__(self, model: nn.Module, objective: Objective, split: Any, config: TrainConfig, fabric: Fabric):
        batch = next(split.batches(min(config.micro_batch_size or config.batch_size, ROWS), seed=config.seed))
        self.flops_per_row: float | None = None
        try:
            with repro.preserved_rng():
                flops = forward_flops(model, objective, batch, fabric)
        except Exception as error:  # a step that fails likewise says more
            log.warning("The operations of a pass cannot be counted, so no mfu is logged: %s", error)
        else:
            self.flops_per_row = 3 * flops / len(next(iter(batch.values())))
        self.unit = "tokens" if "labels" in batch and batch["labels"].ndim > 1 else "rows"
        self.peak = fabric.world_size * peak_flops(fabric.device, _dtype(fabric))
        self.rows, self.targets, self.seconds = 0, 0, 0.0

    def add(self, batch: Batch, seconds: float) -> None:
        self.rows += len(next(iter(batch.values())))
        self.targets += count_targets(batch)
        self.seconds += seconds

    def take(self) -> dict[str, float]:
        speed = {f"{self.unit}_per_second": self.targets / self.seconds}
        if self.flops_per_row is not None:
            speed["mfu"] = self.rows * self.flops_per_row / self.seconds / self.peak
        self.rows, self.targets, self.seconds = 0, 0, 0.0
        return speed


@torch.no_grad()
def forward_flops(model: nn.Module, objective: Objective, batch: Any, fabric: Fabric) -> int:
    """Floating-point operations of one forward pass of training, counted operator by operator."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query, key, value, *args, out_shape=None, **kwargs) -> int:
        return sdpa_flop_count(query, key, value)

    cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # not in torch's own registry
    mode, buffers = model.training, [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train()
    try:
        with FlopCounterMode(display=False, custom_mapping={cpu_attention: attention}) as counter, fabric.autocast():
            objective(model, fabric.to_device(batch), 0)
    finally:
        model.train(mode)
        for buffer, value in buffers:  # running statistics
            buffer.copy_(value)
    return counter.get_total_flops()


def _dtype(fabric: Fabric) -> torch.dtype:
    with fabric.autocast():
        kind = fabric.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.get_default_dtype()
