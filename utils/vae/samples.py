"""New grids from each sampler: how many are grids at all, and whether they are new or remembered.

Leaves out the samplers themselves (`vae.sampler`) and how canvases are drawn (`vae.plots`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas
import torch
from torch import Tensor

from utils.arc.grids import COLOURS, OUTSIDE, SIDE
from utils.vae.baselines import nearest
from utils.vae.metrics import modal_colours, valid_canvases
from utils.vae.sampler import Autoregressive, Mixture, Normal, Sampler, SamplerConfig, draw_grids, fit_sampler, resolved

if TYPE_CHECKING:
    from utils.core.run import Run
    from utils.vae.data import GridData
    from utils.vae.model import BetaVAE


@dataclass(frozen=True)
class Samples:
    """Canvases by sampler and temperature, and what is known of them. Shows itself as the table."""

    canvases: dict[str, Tensor]
    """(n, 30, 30) uint8 each"""
    table: pandas.DataFrame
    """a row a sampler and temperature, and one for real grids: see `described`"""
    distances: dict[str, np.ndarray]
    """cells (n,) that differ from the nearest training canvas"""

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, float_format="{:.3g}".format)


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


def draw_samples(
    model: BetaVAE,
    samplers: dict[str, Sampler],
    data: GridData,
    *,
    n: int = 64,
    temperatures: tuple[float, ...] = (0.5, 1.0),
    seed: int = 0,
) -> Samples:
    """`n` grids from each sampler at each temperature, beside as many real ones of the validation split."""
    rows = np.linspace(0, len(data.validation) - 1, min(n, len(data.validation))).astype(int)
    canvases, distances, table = {}, {}, []
    for name, sampler in samplers.items():
        for temperature in temperatures:
            generator = torch.Generator().manual_seed(seed)
            found = draw_grids(model, sampler, n, temperature=temperature, generator=generator)
            label = f"{name}, temperature {temperature:g}"
            canvases[label], distances[label] = found, nearest(found.numpy(), data.train.grids).distance
            table.append({"sampler": label, **described(found, distances[label])})
    real = data.validation.grids[rows]
    away = nearest(real, data.train.grids).distance
    table.append({"sampler": "real validation grids", **described(torch.from_numpy(real), away)})
    return Samples(canvases, pandas.DataFrame(table), distances)


def described(canvases: Tensor, away: np.ndarray) -> dict[str, float]:
    """What n canvases (n, 30, 30) are like, `away` (n,) being the cells that differ from the nearest training canvas.

    valid         share that are grids: a rectangle of colours with padding around it
    distinct      share that no earlier one equals
    copies        share that are a training grid, cell for cell
    nearest       median over grids of the cells that differ from the nearest training canvas, over the grid's cells
    cells         median cells inside
    colours       mean colours of a grid
    one_colour    mean share of a grid's cells that have its most frequent colour
    changes       share of neighbouring cells inside whose colours differ: noise has many, drawings few
    """
    inside = (canvases != OUTSIDE).flatten(1).sum(1)
    modal = (canvases == modal_colours(canvases)[:, None, None]).flatten(1).sum(1)
    colours = sum((canvases == colour).flatten(1).any(1).int() for colour in range(COLOURS))
    return {
        "valid": float(valid_canvases(canvases).float().mean()),
        "distinct": len(canvases.flatten(1).unique(dim=0)) / len(canvases),
        "copies": float((away == 0).mean()),
        "nearest": float(np.median(away / inside.clamp(min=1).numpy())),
        "cells": float(inside.float().median()),
        "colours": float(colours.float().mean()),
        "one_colour": float((modal / inside.clamp(min=1)).mean()),
        "changes": _changes(canvases),
    }


def _changes(canvases: Tensor) -> float:
    differ = pairs = 0
    for dimension in (1, 2):
        one, other = canvases.narrow(dimension, 0, SIDE - 1), canvases.narrow(dimension, 1, SIDE - 1)
        both = (one != OUTSIDE) & (other != OUTSIDE)
        differ, pairs = differ + int(((one != other) & both).sum()), pairs + int(both.sum())
    return differ / max(pairs, 1)
