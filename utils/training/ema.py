"""`Average`: an exponential moving average of the weights, which stands for the model wherever it is judged or kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average:
    """w_t = d_t w_{t-1} + (1 - d_t) weights_t after step t, with d_t = min(decay, (1 + t) / (10 + t)).

    The rise of d_t lets go of the weights that a model started with (TensorFlow's `ExponentialMovingAverage` with
    `num_updates`). `model` is a copy of the model, with the averaged weights and the newest buffers.
    """

    def __init__(self, model: nn.Module, decay: float, device: torch.device):
        """Starts at the weights of `model`."""
        self.decay = decay
        self.averaged = AveragedModel(model, multi_avg_fn=self._update)
        self.averaged.requires_grad_(False)
        self.model: nn.Module = self.averaged.module.to(device).eval()
        self.start(model)

    def start(self, model: nn.Module) -> None:
        """Begin anew with these weights."""
        self.averaged.n_averaged.zero_()
        self.averaged.update_parameters(model)  # the first is a copy

    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.averaged.update_parameters(model)

    @property
    def updates(self) -> int:
        """Steps taken in."""
        return int(self.averaged.n_averaged) - 1

    def restore(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Put back what a checkpoint holds."""
        self.model.load_state_dict(weights)
        self.averaged.n_averaged.fill_(updates + 1)

    def _update(self, averages: list[Tensor], weights: list[Tensor], _: Tensor) -> None:
        t = int(self.averaged.n_averaged)  # of this update; kept on the CPU, so that nothing waits for the device
        get_ema_multi_avg_fn(min(self.decay, (1 + t) / (10 + t)))(averages, weights, _)
