"""Evaluation of a beta-VAE on a split: every metric with counts and intervals, beside baselines.

Leaves out figures, the record of what was found (`vae.evaluation`), and how each number comes about: `vae.metrics`,
`vae.latents`, `vae.bounds`, `vae.collapse`, `vae.baselines`, `vae.probes`, `vae.disentangle`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
import torch
from pydantic import Field
from torch import Tensor, nn

from utils.core import repro
from utils.core.config import Config
from utils.vae.baselines import MODAL, predictions
from utils.vae.bounds import importance_bound
from utils.vae.collapse import collapse_check
from utils.vae.disentangle import disentanglement
from utils.vae.evaluation import Evaluation
from utils.vae.factors import factor_set
from utils.vae.latents import (
    Batch,
    Nll,
    active_by_kl,
    active_by_variance,
    bits_per_cell,
    encoded,
    latent_use,
    place,
)
from utils.vae.metrics import Bootstrap, Estimate, estimates, gate, grid_counts, rates
from utils.vae.model import BetaVAE, gaussian_kl
from utils.vae.objective import nll as model_nll
from utils.vae.probes import LEAST_TASKS, probe_latents
from utils.vae.spatial import reached

if TYPE_CHECKING:
    from utils.vae.data import GridSplit


class EvaluationConfig(Config):
    """How much is measured on a split."""

    grids: int | None = Field(None, ge=1)
    """at most so many grids, evenly spread over the split; null: all of them"""
    batch_size: int = Field(128, ge=1)
    """grids encoded and decoded at a time"""
    iwae_samples: int = Field(64, ge=0)
    """importance samples a grid of the tighter bound; 0 leaves it out"""
    iwae_grids: int = Field(256, ge=1)
    """at most so many grids, evenly spread, for that bound"""
    bootstrap: int = Field(1000, ge=1)
    """draws of tasks for the intervals"""
    neighbours: bool = True
    """whether the nearest training grid is looked for, as a baseline"""
    probes: bool = True
    """whether properties are read off the latents"""
    factor_grids: int = Field(2000, ge=0)
    """grids of known factors for MIG, DCI and SAP; 0 leaves them out"""
    seed: int = 0
    """of the latents drawn, the bootstrap, and the halves of the probes"""


@torch.no_grad()
def evaluate_vae(
    model: nn.Module,
    split: GridSplit,
    config: EvaluationConfig = EvaluationConfig(),
    *,
    nll: Nll = model_nll,
    name: str = "validation",
    train: GridSplit | None = None,
    others: Mapping[str, nn.Module] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Judge a model on the grids of `split`, taken in order and as they are, and leave it and the generators as found.

    `train` gives the baselines that know training grids; `others` are trained models to stand among the baselines,
    such as {"autoencoder (beta 0)": model}; `settings` of the model (`beta`, `architecture`) are named in advice.
    """
    rows = split.spread(config.grids)
    split = split.subset(rows)
    batches = list(split.batches(config.batch_size))
    if not batches:
        raise ValueError(f"The split {name} holds no grid; nothing can be measured on it.")
    bootstrap = Bootstrap(split.task_ids, draws=config.bootstrap, seed=config.seed)
    with _evaluating([model, *(others or {}).values()]), repro.preserved_rng():
        generator = torch.Generator().manual_seed(config.seed)
        counts = grid_counts(_reconstructed(model, batches), split.grids)
        known = None if train is None else train.grids
        baselines = {
            label: grid_counts(found, split.grids)
            for label, found in predictions(split.grids, known, neighbours=config.neighbours)
        }
        for label, other in (others or {}).items():
            baselines[label] = grid_counts(_reconstructed(other, batches), split.grids)
        mu, logvar = encoded(model, batches)
        kl = gaussian_kl(mu, logvar)  # (N, D)
        counts["nll"] = _nll(model, batches, nll, mu, logvar, generator)
        counts["kl"] = kl.double().sum(1).numpy()
        bounds, sampled = _bounds(model, split, counts, bootstrap, nll, config, generator)
        whole = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
        counted = torch.ones(mu.shape[1], dtype=torch.bool)
        if isinstance(model, BetaVAE):
            counted = reached(model.config, whole["heights"], whole["widths"])
        use = latent_use(model, whole, mu, logvar, nll, reached=counted, seed=config.seed)
        factors = factor_set(config.factor_grids, seed=config.seed) if config.factor_grids else None
        axes = factors and disentanglement(_means(model, factors.grids, config.batch_size), factors)
    probes = []
    if config.probes and len(bootstrap.tasks) >= LEAST_TASKS:
        probes = probe_latents(mu, split.grids, split.task_ids, seed=config.seed)
    checks = [
        gate(counts, baselines[MODAL], bootstrap),
        collapse_check(use, foreground=rates(counts)["foreground"], settings=settings),
    ]
    table = pandas.DataFrame({"row": rows, "task_id": split.task_ids, **counts})
    return Evaluation(
        split=name,
        counts={
            "grids": len(split),
            "tasks": len(bootstrap.tasks),
            **{key: int(counts[key].sum()) for key in ("cells", "inside", "foreground")},
            "iwae_grids": sampled,
        },
        reconstruction=estimates(counts, bootstrap),
        baselines={label: estimates(found, bootstrap) for label, found in baselines.items()},
        bounds=bounds,
        kl_per_dimension=kl.double().mean(0).tolist(),
        active={
            "dimensions": mu.shape[1],
            "reached": use.dimensions,
            "by_kl": int(active_by_kl(mu, logvar).sum()),
            "by_variance": int(active_by_variance(mu).sum()),
        },
        latents=use,
        checks=checks,
        probes=probes,
        disentanglement=axes,
        grids=table.assign(bits_per_cell=bits_per_cell(counts["nll"] + counts["kl"], counts["inside"])),
    )


def _bounds(
    model: nn.Module,
    split: GridSplit,
    counts: Mapping[str, np.ndarray],
    bootstrap: Bootstrap,
    nll: Nll,
    config: EvaluationConfig,
    generator: torch.Generator,
) -> tuple[dict[str, Estimate], int]:
    """Estimates of the likelihood's bounds, and over how many grids the importance-weighted one was taken."""
    ones, total = counts["grids"], counts["nll"] + counts["kl"]
    found = {
        "nll": bootstrap.micro(counts["nll"], ones),
        "kl": bootstrap.micro(counts["kl"], ones),
        "elbo": bootstrap.micro(-total, ones),
        "bits_per_cell": bootstrap.micro(bits_per_cell(total, 1.0), counts["inside"]),
    }
    if not config.iwae_samples:
        return found, 0
    few = split.subset(split.spread(config.iwae_grids))
    parts = [
        importance_bound(model, batch, nll, samples=config.iwae_samples, generator=generator)
        for batch in few.batches(config.batch_size)
    ]
    among = Bootstrap(few.task_ids, draws=config.bootstrap, seed=config.seed)
    ones = np.ones(len(few))
    found[f"iwae_{config.iwae_samples}"] = among.micro(np.concatenate([part.iwae for part in parts]), ones)
    found["iwae_elbo"] = among.micro(np.concatenate([part.elbo for part in parts]), ones)
    return found, len(few)


def _reconstructed(model: nn.Module, batches: Sequence[Batch]) -> np.ndarray:
    found = [model.reconstruct({name: value.to(place(model)) for name, value in batch.items()}) for batch in batches]
    return torch.cat(found).cpu().numpy()


def _means(model: nn.Module, grids: np.ndarray, batch_size: int) -> Tensor:
    return encoded(model, [{"grids": part} for part in torch.from_numpy(grids).split(batch_size)])[0]


def _nll(
    model: nn.Module, batches: Sequence[Batch], nll: Nll, mu: Tensor, logvar: Tensor, generator: torch.Generator
) -> np.ndarray:
    """-log p(x|z) of each grid (N,), at one z drawn from its posterior."""
    z = mu + torch.randn(mu.shape, generator=generator) * (0.5 * logvar).exp()
    parts = []
    for batch, drawn in zip(batches, z.split([len(batch["grids"]) for batch in batches])):
        there = {name: value.to(place(model)) for name, value in batch.items()}
        parts.append(nll(model.decode(drawn.to(place(model))), there).cpu().double())
    return torch.cat(parts).numpy()


@contextlib.contextmanager
def _evaluating(models: Sequence[nn.Module]) -> Iterator[None]:
    """Models in evaluation mode, and afterwards each module in the mode it was found in."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
