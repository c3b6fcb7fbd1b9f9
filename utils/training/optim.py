"""AdamW with decay groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from utils.training.config import TrainConfig


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """The rate that step `step` (0, 1, ...) of `total` is made with: linear warm-up to lr, then the schedule.

    The first step has lr / (warmup_steps + 1); the last step of all but constant has lr * min_lr_ratio. wsd (warm-up,
    stable, decay: Hu et al. 2024, MiniCPM) stays at lr and then falls by 1 - sqrt(share of the decay that is done)
    (Hägele et al. 2024, equation 1) over the last `decay_share` of the steps, or what the warm-up leaves of them.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.lr
    start = config.warmup_steps  # the last step at lr
    if config.schedule == "wsd":
        start = max(start, total - 1 - max(1, round(config.decay_share * total)))
    progress = max(0.0, min(1.0, (step - start) / max(1, total - 1 - start)))
    falls = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "wsd": 1 - math.sqrt(progress),
    }
    fall = falls[config.schedule]
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * fall)


def decay_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay for parameters of two or more dimensions, none for gains and biases."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [one for one in parameters if one.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [one for one in parameters if one.dim() < 2], "weight_decay": 0.0},
    ]


def make_optimizer(model: nn.Module, config: TrainConfig, device: torch.device, precision: str) -> torch.optim.AdamW:
    """AdamW, its update one fused kernel where torch has one.

    With fp16 it is not fused: a fused step unscales gradients itself, after they would have been clipped.
    """
    fused = device.type in ("cuda", "cpu", "mps") and precision != "fp16"
    return torch.optim.AdamW(decay_groups(model, config), lr=config.lr, betas=config.betas, fused=fused)
