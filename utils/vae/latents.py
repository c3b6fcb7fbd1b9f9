"""What latents carry: KL by dimension, active units, bounds on the likelihood, swapped latents, collapse.

All in nats. A model `encode`s canvases to `mu, logvar` (B, D) of a diagonal Gaussian and `decode`s z (B, D); `Nll`
turns what it decodes into -log p(x|z) of each grid. Leaves out how canvases are judged (`vae.metrics`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
import torch
from torch import Tensor, nn

from utils.core.check import Check
from utils.vae.model import gaussian_kl

ACTIVE_KL = 0.05
ACTIVE_VARIANCE = 0.01
COLLAPSE = "latents in use"
ROWS = 512  # latents decoded at a time

Batch = Mapping[str, Tensor]
Nll = Callable[[Any, Batch], Tensor]
"""(what the model decodes, batch) -> (B,) nats"""


def active_by_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """Which dimensions (D,) spend more than 0.05 nats on a grid on average."""
    return gaussian_kl(mu, logvar).mean(0) > ACTIVE_KL


def active_by_variance(mu: Tensor) -> Tensor:
    """Which dimensions (D,) have means whose variance over grids is above 0.01 (Burda et al. 2016, section 5.2).

    It saturates: a dimension that costs 0.005 nats a grid already counts.
    """
    return mu.var(0, correction=0) > ACTIVE_VARIANCE


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on log p(x) of each grid (N,), estimated from the same draws of z, so that iwae >= elbo always."""

    elbo: np.ndarray
    iwae: np.ndarray
    samples: int


@torch.no_grad()
def importance_bound(
    model: nn.Module, batch: Batch, nll: Nll, *, samples: int = 64, generator: torch.Generator | None = None
) -> Bounds:
    """log of the mean of k importance weights p(x|z) p(z) / q(z|x), z from q (Burda et al. 2016, equation 8).

    `samples` is k; one sample is the ELBO in expectation. Decodes at most 512 latents at a time.
    """
    batch = {name: value.to(place(model)) for name, value in batch.items()}
    mu, logvar = (part.float() for part in model.encode(batch["grids"]))
    most, weights = max(1, ROWS // len(mu)), []
    while len(weights) * most < samples:
        now = min(most, samples - len(weights) * most)
        weights.append(_log_weights(model, batch, nll, mu, logvar, now, generator))
    log_weights = torch.cat(weights)  # (k, B)
    iwae = log_weights.logsumexp(0) - math.log(samples)
    return Bounds(log_weights.mean(0).cpu().numpy(), iwae.cpu().numpy(), samples)


def _log_weights(
    model: nn.Module,
    batch: Batch,
    nll: Nll,
    mu: Tensor,
    logvar: Tensor,
    samples: int,
    generator: torch.Generator | None,
) -> Tensor:
    """log p(x|z) + log p(z) - log q(z|x) of `samples` draws of z for each grid, (samples, B); float64 but on MPS."""
    noise = torch.randn((samples, *mu.shape), generator=generator).to(mu)  # (k, B, D), alike on every device
    z = mu + noise * (0.5 * logvar).exp()
    many = {name: value.repeat(samples, *[1] * (value.ndim - 1)) for name, value in batch.items()}
    wide = torch.float32 if mu.device.type == "mps" else torch.float64
    reconstruction = nll(model.decode(z.flatten(0, 1)), many).to(wide).view(samples, -1)
    ratio = 0.5 * (noise.to(wide).square() - z.to(wide).square() + logvar.to(wide)).sum(-1)
    return ratio - reconstruction


def bits_per_cell(nats: float | np.ndarray, cells: float | np.ndarray) -> float | np.ndarray:
    """Nats of whole grids as bits a cell inside them; padding is told by the size and costs next to nothing."""
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
    active: int
    """dimensions of more than 0.05 nats a grid"""
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
def latent_use(model: nn.Module, whole: Batch, mu: Tensor, logvar: Tensor, nll: Nll, *, seed: int = 0) -> LatentUse:
    """The shuffled-latent test at the means `mu` (N, D) of the N grids of `whole`, one large batch; and their KL."""
    device = place(model)

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
        dimensions=mu.shape[1],
        active=int(active_by_kl(mu, logvar).sum()),
        kl=float(gaussian_kl(mu, logvar).double().sum(1).mean()),
        nll=float(own.mean()),
        nll_shuffled=_mean(decoded(any_other[any_other >= 0], rows[any_other >= 0])),
        nll_own_of_size=_mean(own[paired]),
        nll_shuffled_in_size=_mean(decoded(of_size[paired], rows[paired])),
    )


def collapse_check(use: LatentUse, *, foreground: float, settings: Mapping[str, Any] | None = None) -> Check:
    """Whether the decoder draws grids from their latents, or from what all grids have in common.

    Collapsed, whatever its pixel accuracy, where any of these holds: under 5% of the dimensions are active; latents
    carry under 10% of the nats that describe a grid; they save under 10% of those of a grid whose size is known; under
    5% of the foreground cells come out right. `settings` (`beta`, `architecture`, ...) are named in what to change.

    The 10% of all nats was set between short trainings, one of each: 4% and 7% for dense under the classical preset
    (70,000 and 300,000 grids); on the other side 20% and 40% for palette with beta 1 and 0.05 (19,000 grids), and 31%
    for dense with beta 0.05 (50,000). The other three limits were met by none of them.
    """
    signs = []
    if use.active < 0.05 * use.dimensions:
        signs.append(f"{use.active} of {use.dimensions} latent dimensions carry more than {ACTIVE_KL} nats")
    if use.share < 0.1:
        signs.append(f"latents carry {use.kl:.1f} of the {use.kl + use.nll:.1f} nats of a grid")
    if use.content < 0.1:
        signs.append(f"a grid's own latents save {use.content:.1%} of its nats against those of another of its size")
    if foreground < 0.05:
        signs.append(f"{foreground:.1%} of the foreground cells are right")
    table = pandas.DataFrame(
        {
            "what": [
                "active dimensions",
                "KL, nats a grid",
                "of all nats of a grid",
                "nats a grid that own latents save",
                "share saved among grids of one size",
                "foreground cells right",
            ],
            "value": [
                f"{use.active} of {use.dimensions}",
                f"{use.kl:.4g}",
                f"{use.share:.1%}",
                f"{use.gain:.4g}",
                f"{use.content:.1%}",
                f"{foreground:.1%}",
            ],
        }
    )
    if not signs:
        summary = f"{use.active} of {use.dimensions} dimensions are active and carry {use.kl:.1f} nats a grid"
        return Check(COLLAPSE, "pass", f"{summary}; own latents save {use.gain:.1f} nats", table)
    return Check(COLLAPSE, "fail", f"collapsed: {'; '.join(signs)}. {_advice(settings or {})}", table)


def _advice(settings: Mapping[str, Any]) -> str:
    beta, architecture = settings.get("beta"), settings.get("architecture")
    twice = ", and twice that at the end of its classical schedule" if settings.get("schedule") == "classical" else ""
    now = f" (now {beta:g}{twice})" if isinstance(beta, (int, float)) else ""
    low = isinstance(beta, (int, float)) and beta <= 0.05
    change = "Keep beta" if low else "Lower beta"
    advice = (
        f"{change}{now}{'' if low else ' to about 0.05'}, warm it up over the first fifth of training, and train longer"
    )
    if architecture == "dense":
        return f"{advice}; or take architecture: palette in place of dense, whose latents keep where things are."
    return f"{advice}."


def place(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
