"""Samplers of z: what stands in for N(0, I), from which the latents of real grids are far.

    normal          N(0, I), the prior that the KL term pulls towards
    gaussian        one Gaussian with the mean and covariance of the latents of training grids
    mixture         several such Gaussians, one for each cluster of grids
    autoregressive  size, colours and the rest of the whole grid from the posterior of some training grid; then the map
                    place by place, each given those before it, from a mixture that a small GPT puts out

Each is fitted to posteriors q(z|x) of training grids (the aggregated posterior), and is a module: its state can be
saved. Every z decodes to a grid, so samplers differ in how like real ones the grids are, not in whether they are valid.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from utils.core import repro
from utils.core.config import Config, ConfigError
from utils.models.blocks import Block, TransformerConfig, init_weights, make_norm
from utils.vae.config import PATCH, PLACES
from utils.vae.decoded import sizes_of
from utils.vae.latents import place as device_of
from utils.vae.model import BetaVAE
from utils.vae.spatial import inside

if TYPE_CHECKING:
    from utils.vae.data import GridSplit

SamplerName = Literal["normal", "gaussian", "mixture", "autoregressive"]


class SamplerConfig(Config):
    """Which sampler, and how it is fitted."""

    kind: SamplerName | None = None
    """what z is drawn from; null: autoregressive where there is a map of latents (palette, spatial), else mixture"""
    grids: int = Field(20_000, ge=2)
    """at most so many training grids are fitted to, evenly spread over the split"""
    components: int = Field(20, ge=1)
    """Gaussians of the mixture"""
    steps: int = Field(1500, ge=1)
    """training steps of the autoregressive sampler"""
    batch_size: int = Field(64, ge=1)
    """grids a step of it"""
    lr: float = Field(2e-3, gt=0)
    """its highest learning rate"""
    width: int = Field(96, ge=4)
    """size of its residual stream"""
    layers: int = Field(3, ge=1)
    """its blocks"""
    seed: int = 0
    """of the fit"""


class Sampler(nn.Module):
    """A distribution of z. A temperature below 1 draws likelier latents, and 0 the likeliest (of the component)."""

    def draw(self, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """z (n, D)."""
        raise NotImplementedError


class Normal(Sampler):
    """N(0, I)."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def draw(self, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        return temperature * torch.randn(n, self.size, generator=generator)


class Mixture(Sampler):
    """Gaussians of full covariance, one for each of some clusters (k-means on the posterior means)."""

    def __init__(self, components: int, size: int):
        super().__init__()
        self.register_buffer("weights", torch.full((components,), 1 / components))
        self.register_buffer("means", torch.zeros(components, size))
        self.register_buffer("factors", torch.eye(size).repeat(components, 1, 1))  # Cholesky's

    @torch.no_grad()
    def fit(self, mu: Tensor, logvar: Tensor, *, seed: int = 0) -> Mixture:
        """To posteriors (N, D). A cluster's covariance is that of its means, plus the mean posterior variance."""
        generator = torch.Generator().manual_seed(seed)
        labels = _clusters(mu, len(self.weights), generator)
        for component in range(len(self.weights)):
            rows = labels == component
            own = mu[rows].double()
            self.weights[component] = rows.double().mean()
            if len(own) == 0:
                continue
            mean = own.mean(0)
            covariance = (own - mean).T @ (own - mean) / len(own) + logvar[rows].double().exp().mean(0).diag()
            self.means[component] = mean.float()
            self.factors[component] = torch.linalg.cholesky(covariance).float()
        return self

    def draw(self, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = temperature * torch.randn(n, self.means.shape[1], generator=generator)
        z = self.means[component]
        for one in component.unique():
            z[component == one] += noise[component == one] @ self.factors[one].T
        return z


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
        self.scale.copy_(maps[there].std(0).clamp(min=1e-3))
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


def resolved(config: SamplerConfig, model: BetaVAE) -> SamplerConfig:
    """The config with a kind, where it leaves that to the architecture."""
    return config.replace(kind=config.kind or ("autoregressive" if "map" in model.config.groups else "mixture"))


def fit_sampler(config: SamplerConfig, model: BetaVAE, split: GridSplit) -> Sampler:
    """The config's sampler, fitted to the posteriors of a split's grids, as they are. Leaves random states as found."""
    config = resolved(config, model)
    if config.kind == "normal":
        return Normal(model.config.latent_size)
    count = min(config.grids, len(split))
    rows = torch.linspace(0, len(split) - 1, count).round().long().numpy()
    with repro.preserved_rng():
        torch.manual_seed(config.seed)
        mu, logvar, heights, widths = posteriors(model, split.subset(rows))
        if config.kind == "autoregressive":
            return Autoregressive(model, count, config).fit(mu, logvar, heights, widths, config)
        components = config.components if config.kind == "mixture" else 1
        return Mixture(components, model.config.latent_size).fit(mu, logvar, seed=config.seed).eval()


@torch.no_grad()
def posteriors(model: BetaVAE, split: GridSplit, batch_size: int = 256) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """mu and log-variance (N, D) of each grid, and heights and widths (N,), on the CPU."""
    found = []
    for batch in split.batches(batch_size):
        mu, logvar = model.encode(batch["grids"].to(device_of(model)))
        found.append((mu.float().cpu(), logvar.float().cpu(), *sizes_of(batch["grids"])))
    return tuple(torch.cat(parts) for parts in zip(*found))


@torch.no_grad()
def draw_grids(
    model: BetaVAE,
    sampler: Sampler,
    n: int,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Tensor:
    """The likeliest canvases (n, 30, 30) uint8 of latents drawn from a sampler."""
    z = sampler.draw(n, temperature=temperature, generator=generator)
    return torch.cat([model.decode(part.to(device_of(model))).mode.cpu() for part in z.split(batch_size)])


def _clusters(points: Tensor, count: int, generator: torch.Generator, rounds: int = 20) -> Tensor:
    """k-means: the cluster (N,) of each point, from centres that are points drawn at random."""
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(rounds):
        labels = torch.cdist(points, centres).argmin(1)
        for cluster in range(len(centres)):
            if (labels == cluster).any():
                centres[cluster] = points[labels == cluster].mean(0)
    return labels
