"""The autoregressive sampler of z: the map of latents place by place, from a mixture that a small GPT puts out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.core.config import ConfigError
from utils.models.blocks import Block, TransformerConfig, init_weights, make_norm
from utils.vae.config import PATCH, PLACES
from utils.vae.latents import place as device_of
from utils.vae.model import BetaVAE
from utils.vae.sampler import Sampler, SamplerConfig
from utils.vae.spatial import inside


class Autoregressive(Sampler):
    """Whole-grid latents from the posterior of a training grid drawn at random; the map from a GPT over its places.

    The GPT sees the whole-grid latents and the places before, in reading order, and gives each place a mixture of
    diagonal Gaussians. Places outside the grid that the whole-grid latents decode to are neither learned nor drawn.
    """

    MIXES = 8

    def __init__(self, model: BetaVAE, posteriors: int, config: SamplerConfig):
        super().__init__()
        groups = model.config.groups
        if "map" not in groups:
            raise ConfigError(
                f"The autoregressive sampler needs a map of latents, and architecture {model.config.architecture!r} has"
                " none; take kind: mixture."
            )
        self.channels, self.start = model.config.channels, groups["map"].start
        self.decoder = [model.decoder]  # not a part of this module
        shape = TransformerConfig(width=config.width, num_heads=4, num_layers=config.layers, bias=True)
        self.register_buffer("mu", torch.zeros(posteriors, self.start))
        self.register_buffer("logvar", torch.zeros(posteriors, self.start))
        self.register_buffer("scale", torch.ones(self.channels))
        self.whole = nn.Linear(self.start, config.width)
        self.size = nn.Linear(2, config.width)
        self.before = nn.Linear(self.channels, config.width)
        self.above = nn.Linear(self.channels, config.width)
        self.places = nn.Parameter(torch.empty(PLACES**2, config.width))
        self.blocks = nn.ModuleList(Block(shape, causal=True) for _ in range(config.layers))
        self.norm = make_norm(shape)
        self.head = nn.Linear(config.width, self.MIXES * (1 + 2 * self.channels))
        init_weights(self, additions=2 * config.layers)

    def fit(self, mu: Tensor, logvar: Tensor, heights: Tensor, widths: Tensor, config: SamplerConfig) -> Autoregressive:
        """To posteriors (N, D) of grids of those sizes."""
        generator = torch.Generator().manual_seed(config.seed)
        self.mu.copy_(mu[:, : self.start])
        self.logvar.copy_(logvar[:, : self.start])
        there = inside(heights, widths, PLACES * PATCH, PATCH).flatten(1)  # (N, 64)
        maps = mu[:, self.start :].view(len(mu), self.channels, -1).transpose(1, 2)  # (N, 64, C)
        self.scale.copy_(maps[there].std(0, correction=0).clamp(min=1e-3))
        optimizer = torch.optim.AdamW(self.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.01)
        self.train()
        for step in range(config.steps):
            rows = torch.randint(len(mu), (config.batch_size,), generator=generator)
            noise = torch.randn(config.batch_size, mu.shape[1], generator=generator)
            z = mu[rows] + (0.5 * logvar[rows]).exp() * noise
            loss = self._nll(z, heights[rows], widths[rows], there[rows])
            rate = config.lr * min(1.0, 20 * step / config.steps) * (1 - step / config.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            optimizer.step()
        return self.eval()

    def _nll(self, z: Tensor, heights: Tensor, widths: Tensor, there: Tensor) -> Tensor:
        """Mean nats a place in use, of scaled latents."""
        whole, maps = z[:, : self.start], z[:, self.start :].view(len(z), self.channels, -1).transpose(1, 2)
        maps = maps / self.scale * there[..., None]
        count = int(there.any(0).nonzero().max()) + 1
        maps, there = maps[:, :count], there[:, :count]
        weights, means, logs = self(whole, heights, widths, maps)
        apart = (maps[:, :, None] - means) * (-logs).exp()  # (B, T, M, C)
        each = -(0.5 * apart.square() + logs + 0.5 * math.log(2 * math.pi)).sum(-1)
        return -(weights + each).logsumexp(-1)[there].mean()

    def forward(self, whole: Tensor, heights: Tensor, widths: Tensor, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (B, T, M), means and log standard deviations (B, T, M, C) of each of the first T places.

        `maps` (B, T, C) are the places' scaled latents; those of place t take part from place t + 1 on.
        """
        B, T, C = maps.shape
        before = F.pad(maps, (0, 0, 1, 0))[:, :T]
        above = F.pad(maps, (0, 0, PLACES, 0))[:, :T]
        size = torch.stack((heights, widths), 1).float() / 30
        x = (self.whole(whole) + self.size(size))[:, None] + self.places[:T]
        x = x + self.before(before) + self.above(above)  # (B, T, width)
        for block in self.blocks:
            x = block(x)
        weights, means, logs = self.head(self.norm(x)).view(B, T, self.MIXES, -1).split([1, C, C], -1)
        return weights[..., 0].log_softmax(-1), means, logs.clamp(-5, 3)

    @torch.no_grad()
    def draw(self, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        rows = torch.randint(len(self.mu), (n,), generator=generator)
        whole = self.mu[rows] + (0.5 * self.logvar[rows]).exp() * temperature * torch.randn(
            n, self.start, generator=generator
        )
        empty = torch.zeros(n, self.channels * PLACES**2)
        heights, widths = self.decoder[0](torch.cat((whole, empty), 1).to(device_of(self.decoder[0]))).likeliest_sizes()
        heights, widths = heights.cpu(), widths.cpu()
        there = inside(heights, widths, PLACES * PATCH, PATCH).flatten(1)
        maps = torch.zeros(n, PLACES**2, self.channels)
        for place in range(PLACES**2):
            some = there[:, place].nonzero()[:, 0]
            if len(some) == 0:
                continue
            weights, means, logs = (
                part[:, -1] for part in self(whole[some], heights[some], widths[some], maps[some, : place + 1])
            )
            sharp = (weights / max(temperature, 1e-3)).softmax(-1)
            mix = torch.multinomial(sharp, 1, generator=generator)[:, :, None].expand(-1, 1, self.channels)
            mean, log = means.gather(1, mix)[:, 0], logs.gather(1, mix)[:, 0]
            noise = torch.randn(len(some), self.channels, generator=generator)
            maps[some, place] = mean + temperature * log.exp() * noise
        return torch.cat((whole, (maps * self.scale).transpose(1, 2).flatten(1)), 1)
