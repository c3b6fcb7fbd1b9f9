"""New grids from each sampler: how many are grids at all, and whether they are new or remembered.

Leaves out the samplers themselves (`vae.sampler`) and how canvases are drawn (`vae.grid_plots`).
"""

from __future__ import annotations

import html
from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas
import torch
from torch import Tensor

from utils.arc.grids import COLOURS, OUTSIDE, SIDE, canonical_keys, sizes
from utils.vae.baselines import nearest
from utils.vae.metrics import modal_colours, valid_canvases
from utils.vae.sampler import Sampler
from utils.vae.sampling import draw_grids

if TYPE_CHECKING:
    from utils.vae.data import GridData
    from utils.vae.model import BetaVAE


SHARES = {
    "valid": "valid, %",
    "distinct": "distinct, %",
    "copies": "copies, %",
    "copies_turned": "copies once turned, %",
    "nearest": "from training, %",
    "one_colour": "one colour, %",
    "changes": "changes, %",
}
"""columns that are shares, and what they are called where people read them"""
NOTES = (
    "valid: is a rectangle of colours; distinct: no earlier one equals it; copies: is a training grid cell for cell, or"
    " once turned, mirrored and recoloured; from training: cells that differ from the nearest training grid, of the"
    " cells it has (the median grid); one colour: cells of its most frequent colour; changes: neighbouring cells whose"
    " colours differ, many in noise and few in drawings; cells: of the median grid; colours: of a grid on average. The"
    " last row is of real grids."
)


@dataclass(frozen=True)
class Samples:
    """Canvases by sampler and temperature, and what is known of them. Shows itself as the table."""

    canvases: dict[str, Tensor]
    """(n, 30, 30) uint8 each"""
    table: pandas.DataFrame
    """a row a sampler and temperature, and one for real grids: see `described`"""
    distances: dict[str, np.ndarray]
    """cells (n,) that differ from the nearest training canvas"""

    def shown(self) -> pandas.DataFrame:
        """The table as people read it: shares in %, counts to one decimal."""
        columns = {"sampler": self.table["sampler"]}
        for name, title in SHARES.items():
            columns[title] = [f"{100 * value:.1f}" for value in self.table[name]]
        for name in ("cells", "colours"):
            columns[name] = [f"{value:.1f}" for value in self.table[name]]
        return pandas.DataFrame(columns)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(NOTES)}</p>{self.shown().to_html(index=False)}"


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
    forms = set(canonical_keys(data.train.grids, data.train.heights, data.train.widths))
    canvases, distances, table = {}, {}, []
    for name, sampler in samplers.items():
        for temperature in temperatures:
            generator = torch.Generator().manual_seed(seed)
            found = draw_grids(model, sampler, n, temperature=temperature, generator=generator)
            label = f"{name}, temperature {temperature:g}"
            canvases[label], distances[label] = found, nearest(found.numpy(), data.train.grids).distance
            table.append({"sampler": label, **described(found, distances[label], forms)})
    real = data.validation.grids[data.validation.spread(n)]
    away = nearest(real, data.train.grids).distance
    table.append({"sampler": "real validation grids", **described(torch.from_numpy(real), away, forms)})
    return Samples(canvases, pandas.DataFrame(table), distances)


def described(canvases: Tensor, away: np.ndarray, forms: Container[bytes]) -> dict[str, float]:
    """What n canvases (n, 30, 30) are like.

    `away` (n,) are the cells that differ from the nearest training canvas, `forms` the `canonical_keys` of training.

    valid            share that are grids: a rectangle of colours with padding around it
    distinct         share that no earlier one equals
    copies           share that are a training grid, cell for cell
    copies_turned    share that are one once turned, mirrored and recoloured as need be
    nearest          median over grids of the cells that differ from the nearest training canvas, over the grid's cells
    cells            median cells inside
    colours          mean colours of a grid
    one_colour       mean share of a grid's cells that have its most frequent colour
    changes          share of neighbouring cells inside whose colours differ: noise has many, drawings few
    """
    valid = valid_canvases(canvases)
    grids = canvases[valid].numpy()
    inside = (canvases != OUTSIDE).flatten(1).sum(1)
    modal = (canvases == modal_colours(canvases)[:, None, None]).flatten(1).sum(1)
    colours = sum((canvases == colour).flatten(1).any(1).int() for colour in range(COLOURS))
    return {
        "valid": float(valid.float().mean()),
        "distinct": len(canvases.flatten(1).unique(dim=0)) / len(canvases),
        "copies": float((away == 0).mean()),
        "copies_turned": sum(form in forms for form in canonical_keys(grids, *sizes(grids))) / len(canvases),
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
