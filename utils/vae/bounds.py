"""Bounds on the likelihood of grids by importance sampling: the ELBO, and the tighter IWAE (Burda et al. 2016)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from utils.vae.latents import ROWS, Batch, Nll, place


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
