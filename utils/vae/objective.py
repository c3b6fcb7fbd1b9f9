"""The beta-VAE's objective: per grid, cross-entropy summed over cells plus beta times KL summed over latents.

    loss = mean over grids of [ -log p(x|z) + beta * KL(q(z|x) || p(z)) ]       (Higgins et al. 2017)

Both sums are of nats a grid and are scaled alike, by the number of grids: a mean over cells against a mean over latents
would multiply beta by their ratio, hundreds here, and collapse the latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from utils.arc.grids import SIDE
from utils.training.objectives import Objective
from utils.vae.config import VAEConfig
from utils.vae.decoded import Decoded, Terms
from utils.vae.latents import bits_per_cell
from utils.vae.schedules import share


def make_elbo(config: VAEConfig, total_steps: int) -> Objective:
    """The objective of a training of `total_steps` steps; evaluations (a model in eval mode) weigh with the full beta.

    Values are means over the grids of the batch, in nats unless said: loss, nll, kl, elbo, beta, bits_per_cell; size,
    colours and cells, the parts of nll; shape (share of grids whose size is right) and exact (share of grids); all,
    non_padding and foreground: the shares of the batch's cells, of those inside, and of those that differ from their
    grid's most frequent colour, that are right given the true size. At the drawn z in training, at mu in evaluation.
    """

    def elbo(model: nn.Module, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        progress = step / max(total_steps, 1) if model.training else 1.0
        terms, kl = model(batch["grids"], batch["heights"], batch["widths"])
        losses = loss_terms(config, terms, kl, progress)
        if not model.training:
            still = torch.zeros_like(kl)
            at_mean, _ = model(batch["grids"], batch["heights"], batch["widths"], noise=still)
            terms = terms._replace(right=at_mean.right, foreground=at_mean.foreground, shape=at_mean.shape)
        with torch.no_grad():
            area = batch["heights"] * batch["widths"]
            nats = (terms.total + kl.sum(1)).mean()
            losses |= {
                "elbo": -nats,
                "bits_per_cell": bits_per_cell(nats, area.float().mean()),
                "size": terms.size.mean(),
                "colours": terms.colours.mean(),
                "cells": terms.cells.mean(),
                "all": 1 - (area - terms.right).mean() / SIDE**2,
                "non_padding": terms.right.sum() / area.sum(),
                "foreground": terms.foreground.sum() / terms.foreground_cells.sum().clamp(min=1),
                "shape": terms.shape.mean(),
                "exact": ((terms.right == area) * terms.shape).mean(),
            }
        return losses

    return elbo


def loss_terms(config: VAEConfig, terms: Terms, kl: Tensor, progress: float) -> dict[str, Tensor]:
    """loss, nll, kl and beta from the terms of B grids and the KL of each latent (B, D), at a progress of 0 to 1."""
    nll = (terms.size + terms.colours + terms.cells + config.padding_weight * terms.padding).mean()
    risen = share(config, progress)
    each = kl.mean(0)  # (D,)
    total = each.sum()
    if config.capacity is not None:  # Burgess et al. 2018, equation 8
        beta, penalty = config.beta, (total - config.capacity * risen).abs()
    else:  # free bits: Kingma et al. 2016, equation 15, on the batch's mean of each latent
        beta, penalty = config.beta * risen, each.clamp(min=config.free_bits).sum()
    return {"loss": nll + beta * penalty, "nll": nll, "kl": total, "beta": nll.new_tensor(beta)}


def nll(decoded: Decoded, batch: Mapping[str, Any]) -> Tensor:
    """-log p(x|z) in nats (B,) of a batch under what a model decoded; in it every cell weighs 1."""
    return decoded.terms(batch["grids"], batch["heights"], batch["widths"]).total
