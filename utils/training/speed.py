"""Throughput, and utilisation against the matmul peak measured on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from utils.core import repro
from utils.core.device import peak_flops
from utils.training.config import TrainConfig
from utils.training.objectives import Batch, Objective, count_targets

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Speed:
    """Tokens a second and model FLOPs utilisation (Chowdhery et al. 2022, appendix B) since the last `take`.

    A training step is counted as three forward passes: one forward, two backward. The peak is measured, so 100% is
    what a large matmul reaches here, not a data sheet's figure.
    """

    def __init__(self, model: nn.Module, objective: Objective, split: Any, config: TrainConfig, fabric: Fabric):
        batch = next(split.batches(1, seed=config.seed))
        with repro.preserved_rng():
            self.flops_per_row = 3 * forward_flops(model, objective, batch, fabric)
        self.peak = fabric.world_size * peak_flops(fabric.device, _dtype(fabric))
        self.rows, self.targets, self.seconds = 0, 0, 0.0

    def add(self, batch: Batch, seconds: float) -> None:
        self.rows += len(next(iter(batch.values())))
        self.targets += count_targets(batch)
        self.seconds += seconds

    def take(self) -> dict[str, float]:
        rate, used = self.targets / self.seconds, self.rows * self.flops_per_row / self.seconds
        self.rows, self.targets, self.seconds = 0, 0, 0.0
        return {"tokens_per_second": rate, "mfu": used / self.peak}


@torch.no_grad()
def forward_flops(model: nn.Module, objective: Objective, batch: Any, fabric: Fabric) -> int:
    """Floating-point operations of one forward pass, counted operator by operator."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query, key, value, *args, out_shape=None, **kwargs) -> int:
        return sdpa_flop_count(query, key, value)

    cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # not in torch's own registry
    mode = model.training
    model.eval()
    try:
        with FlopCounterMode(display=False, custom_mapping={cpu_attention: attention}) as counter, fabric.autocast():
            objective(model, fabric.to_device(batch), 0)
    finally:
        model.train(mode)
    return counter.get_total_flops()


def _dtype(fabric: Fabric) -> torch.dtype:
    with fabric.autocast():
        kind = fabric.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.get_default_dtype()
