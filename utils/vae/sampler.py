"""Samplers of z: what stands in for N(0, I), from which the latents of real grids are far.

    normal          N(0, I), the prior that the KL term pulls towards
    gaussian        one Gaussian with the mean and covariance of the latents of training grids
    mixture         several such Gaussians, one for each cluster of grids
    autoregressive  size, colours and the rest of the whole grid from the posterior of some training grid; then the map
                    place by place, each given those before it, from a mixture that a small GPT puts out

Each is fitted to posteriors q(z|x) of training grids (the aggregated posterior), and is a module: its state can be
saved. Every z decodes to a grid, so samplers differ in how like real ones the grids are, not in whether they are valid.
Leaves out the last of them (`vae.autoregressive`), and which one is fitted and kept (`vae.sampling`).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from utils.core.config import Config

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


def _clusters(points: Tensor, count: int, generator: torch.Generator, rounds: int = 20) -> Tensor:
    """k-means: the cluster (N,) of each point, from centres that are points drawn at random."""
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(rounds):
        labels = torch.cdist(points, centres).argmin(1)
        for cluster in range(len(centres)):
            if (labels == cluster).any():
                centres[cluster] = points[labels == cluster].mean(0)
    return labels
