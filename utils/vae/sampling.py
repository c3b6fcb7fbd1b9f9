"""Samplers fitted to a model's training grids, kept in its run, and drawn from. What they are: `vae.sampler`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from utils.core import repro
from utils.vae.autoregressive import Autoregressive
from utils.vae.latents import encoded, place
from utils.vae.model import BetaVAE
from utils.vae.sampler import Mixture, Normal, Sampler, SamplerConfig

if TYPE_CHECKING:
    from utils.core.run import Run
    from utils.vae.data import GridData, GridSplit


def samplers_of(run: Run, step: int, model: BetaVAE, data: GridData, config: SamplerConfig) -> dict[str, Sampler]:
    """Every sampler that the model can have, the config's kind first; fitted once and kept in the run's `samplers/`."""
    kinds = ["normal", "gaussian", "mixture", "autoregressive"]
    if "map" not in model.config.groups:
        kinds.remove("autoregressive")
    kinds.sort(key=lambda kind: kind != resolved(config, model).kind)
    return {kind: sampler_of(run, step, model, data, config.replace(kind=kind)) for kind in kinds}


def sampler_of(run: Run, step: int, model: BetaVAE, data: GridData, config: SamplerConfig) -> Sampler:
    """The config's sampler for the weights of `step`: the one kept in the run, else fitted now and kept there."""
    config = resolved(config, model)
    path = run.path / "samplers" / f"{config.kind}-{config.fingerprint()}-step-{step:08d}.pt"
    if path.is_file():
        return load_sampler(path, model, config)
    sampler = fit_sampler(config, model, data.train)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(sampler.state_dict(), partial)
    partial.replace(path)
    return sampler


def load_sampler(path: Path, model: BetaVAE, config: SamplerConfig) -> Sampler:
    """A sampler that `sampler_of` kept, for the same model and config."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if config.kind == "normal":
        sampler = Normal(model.config.latent_size)
    elif config.kind == "autoregressive":
        sampler = Autoregressive(model, len(state["mu"]), config)
    else:
        sampler = Mixture(*state["means"].shape)
    sampler.load_state_dict(state)
    return sampler.eval()


def resolved(config: SamplerConfig, model: BetaVAE) -> SamplerConfig:
    """The config with a kind, where it leaves that to the architecture."""
    return config.replace(kind=config.kind or ("autoregressive" if "map" in model.config.groups else "mixture"))


def fit_sampler(config: SamplerConfig, model: BetaVAE, split: GridSplit) -> Sampler:
    """The config's sampler, fitted to the posteriors of a split's grids, as they are. Leaves random states as found."""
    config = resolved(config, model)
    if config.kind == "normal":
        return Normal(model.config.latent_size)
    few = split.subset(split.spread(config.grids))
    with repro.preserved_rng():
        torch.manual_seed(config.seed)
        mu, logvar, heights, widths = posteriors(model, few)
        if config.kind == "autoregressive":
            return Autoregressive(model, len(few), config).fit(mu, logvar, heights, widths, config)
        components = config.components if config.kind == "mixture" else 1
        return Mixture(components, model.config.latent_size).fit(mu, logvar, seed=config.seed).eval()


def posteriors(model: BetaVAE, split: GridSplit, batch_size: int = 256) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """mu and log-variance (N, D) of each grid, and heights and widths (N,), on the CPU."""
    heights, widths = (torch.from_numpy(side.astype(np.int64)) for side in (split.heights, split.widths))
    return *encoded(model, split.batches(batch_size)), heights, widths


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
    return torch.cat([model.decode(part.to(place(model))).mode.cpu() for part in z.split(batch_size)])
