"""The classical encoder and decoder: convolutions to one vector of latents, and transposed convolutions back.

They see the whole canvas, padding and all, as images of 11 colours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.arc.grids import OUTSIDE, SIDE
from utils.vae.config import VAEConfig

CANVAS = 32
CHANNELS = (32, 64, 128)
LAST = CANVAS // 2 ** len(CHANNELS)  # side of the last feature map


class DenseEncoder(nn.Module):
    """Canvases to mu and log-variance."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        layers, inputs = [], OUTSIDE + 1
        for outputs in CHANNELS:
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.latents = nn.Linear(inputs * LAST**2, 2 * config.latents)
        self.to(memory_format=torch.channels_last)

    def forward(self, grids: Tensor) -> Tensor:
        """(B, 30, 30) int64 to (B, 2, latents): mu and log-variance."""
        missing = CANVAS - SIDE
        cells = F.pad(grids, (0, missing, 0, missing), value=OUTSIDE)
        x = F.one_hot(cells, OUTSIDE + 1).float().permute(0, 3, 1, 2)  # (B, 11, 32, 32)
        return self.latents(self.layers(x).flatten(1)).view(grids.shape[0], 2, -1).float()


class DenseDecoder(nn.Module):
    """Latents to logits of the sizes, and to logits of each cell's 11 colours."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.sizes = nn.Sequential(nn.Linear(config.latents, 128), nn.ReLU(), nn.Linear(128, 2 * SIDE))
        self.enter = nn.Linear(config.latents, CHANNELS[-1] * LAST**2)
        layers = []
        for inputs, outputs in zip(CHANNELS[::-1], (*CHANNELS[-2::-1], OUTSIDE + 1)):
            layers += [nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latents) to (B, 30, 30, 11)."""
        x = self.enter(z).view(z.shape[0], -1, LAST, LAST).contiguous(memory_format=torch.channels_last)
        return self.layers(x).permute(0, 2, 3, 1)[:, :SIDE, :SIDE]
