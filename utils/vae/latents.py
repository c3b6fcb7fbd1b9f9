"""What latents carry: KL by dimension, active units, what swapping them costs.

All in nats. A model `encode`s canvases to `mu, logvar` (B, D) of a diagonal Gaussian and `decode`s z (B, D); `Nll`
turns what it decodes into -log p(x|z) of each grid. Leaves out bounds on the likelihood (`vae.bounds`), the verdict on
collapse (`vae.collapse`) and how canvases are judged (`vae.metrics`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.vae.model import gaussian_kl

ACTIVE_KL = 0.05
ACTIVE_VARIANCE = 0.01
ROWS = 512  # latents decoded at a time

Batch = Mapping[str, Tensor]
Nll = Callable[[Any, Batch], Tensor]
"""(what the model decodes, batch) -> (B,) nats"""


def place(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@torch.no_grad()
def encoded(model: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """mu and log-variance (N, D) of the grids of some batches, on the CPU."""
    found = [model.encode(batch["grids"].to(place(model))) for batch in batches]
    mu, logvar = (torch.cat([part.float().cpu() for part in parts]) for parts in zip(*found))
    return mu, logvar


def active_by_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """Which dimensions (D,) spend more than 0.05 nats on a grid on average."""
    return gaussian_kl(mu, logvar).mean(0) > ACTIVE_KL


def active_by_variance(mu: Tensor) -> Tensor:
    """Which dimensions (D,) have means whose variance over grids is above 0.01 (Burda et al. 2016, section 5.2).

    It saturates: a dimension that costs 0.005 nats a grid already counts.
    """
    return mu.var(0, correction=0) > ACTIVE_VARIANCE


def bits_per_cell(nats: float | np.ndarray, cells: float | np.ndarray) -> float | np.ndarray:
    """Nats of whole grids as bits a cell inside them.

    Padding is not among the cells, and what it costs is among the nats: nothing where the size tells it (palette,
    spatial); with dense, whose decoder names every cell of the canvas, the nats of the cells outside too.
    """
    return nats / math.log(2) / cells


def partners(groups: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """For each row (N,) another row of the same group, every row once; -1 where it is alone in its group."""
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0]) if len(order) else []
    found = np.full(len(groups), -1)
    for rows in np.split(order, starts[1:]):
        if len(rows) > 1:
            found[rows] = np.roll(rows, 1)
    return found


@dataclass(frozen=True)
class LatentUse:
    """How much a decoder needs the latents it is given: what it says with a grid's own, and with another's."""

    dimensions: int
    """those that some grid reaches"""
    active: int
    """those of them with more than 0.05 nats a grid"""
    kl: float
    """nats a grid, summed over dimensions"""
    nll: float
    """-log p(x|z) with the grid's own latents, nats a grid"""
    nll_shuffled: float
    """with the latents of any other grid"""
    nll_own_of_size: float
    """as `nll`, over the grids that share their size with another"""
    nll_shuffled_in_size: float
    """with the latents of another grid of the same size, over the same grids; NaN where there are none"""

    @property
    def gain(self) -> float:
        """Nats a grid that its own latents save."""
        return self.nll_shuffled - self.nll

    @property
    def share(self) -> float:
        """Share of the nats that describe a grid, KL and what the decoder still has to be told, that latents carry."""
        return self.kl / (self.kl + self.nll) if self.kl + self.nll > 0 else math.nan

    @property
    def content(self) -> float:
        """Share of the nats of grids of a known size that their own latents save: 0 where they tell the size alone."""
        if not self.nll_shuffled_in_size > 0:
            return math.nan
        return 1 - self.nll_own_of_size / self.nll_shuffled_in_size


@torch.no_grad()
def latent_use(
    model: nn.Module,
    whole: Batch,
    mu: Tensor,
    logvar: Tensor,
    nll: Nll,
    *,
    reached: Tensor | None = None,
    seed: int = 0,
) -> LatentUse:
    """The shuffled-latent test at the means `mu` (N, D) of the N grids of `whole`, one large batch; and their KL.

    `reached` (D,) are the dimensions that count (`spatial.reached`); None: all.
    """
    device = place(model)
    reached = torch.ones(mu.shape[1], dtype=torch.bool) if reached is None else reached

    def decoded(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Nats of the grids at rows `target` given the latents of the rows `source`."""
        found = [np.empty(0)]
        for at in range(0, len(source), ROWS):
            z = mu[torch.from_numpy(source[at : at + ROWS])].to(device)
            rows = torch.from_numpy(target[at : at + ROWS])
            batch = {name: value[rows].to(device) for name, value in whole.items()}
            found.append(nll(model.decode(z), batch).cpu().double().numpy())
        return np.concatenate(found)

    rows = np.arange(len(mu))
    own = decoded(rows, rows)
    any_other = partners(np.zeros(len(mu), int), seed=seed)
    of_size = partners((whole["heights"] * 100 + whole["widths"]).cpu().numpy(), seed=seed)
    paired = of_size >= 0
    return LatentUse(
        dimensions=int(reached.sum()),
        active=int((active_by_kl(mu, logvar) & reached).sum()),
        kl=float(gaussian_kl(mu, logvar).double().sum(1).mean()),
        nll=float(own.mean()),
        nll_shuffled=_mean(decoded(any_other[any_other >= 0], rows[any_other >= 0])),
        nll_own_of_size=_mean(own[paired]),
        nll_shuffled_in_size=_mean(decoded(of_size[paired], rows[paired])),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
