"""What the figures of a beta-VAE show, as numbers: grids decoded from latents that were moved, mixed, or looked at.

Every function takes a trained model as it is and moves no weight. Leaves out drawing (`vae.plots`, `vae.grid_plots`,
`vae.latent_plots`), judging (`vae.evaluate`), completion (`vae.completion`) and embedding (`vae.embedding`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from utils.arc.grids import OUTSIDE, SIDE, GridError, check_grid, from_canvas, to_canvas
from utils.vae.config import PLACES, VAEConfig
from utils.vae.decoded import Decoded
from utils.vae.latents import place
from utils.vae.model import gaussian_kl

LOW, HIGH = -3.0, 3.0  # ends of a traversal, where the grid's own latent lies between: 99.7% of the prior does


@dataclass(frozen=True)
class Reconstructions:
    """What a model makes of N grids, all (N, 30, 30)."""

    true: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    """probability of the colour chosen, 0 to 1; NaN outside the predicted grid"""

    @property
    def wrong(self) -> np.ndarray:
        """Cells that differ, those outside one of the two included."""
        return self.true != self.predicted


@dataclass(frozen=True)
class Traversal:
    """Grids decoded from the latents of one grid with one number of them moved."""

    grid: np.ndarray
    """the canvas (30, 30) whose latents they are"""
    unmoved: np.ndarray
    """what is decoded with nothing moved (30, 30)"""
    dimensions: list[int]
    labels: list[str]
    nats: np.ndarray
    """KL of each dimension for this grid (K,)"""
    own: np.ndarray
    """where the grid's own latents lie (K,)"""
    values: np.ndarray
    """what each dimension is set to (K, S)"""
    canvases: np.ndarray
    """(K, S, 30, 30) uint8"""


@torch.no_grad()
def reconstructions(model: nn.Module, canvases: np.ndarray | Tensor) -> Reconstructions:
    """The likeliest canvas of each of `canvases` (N, 30, 30) at its posterior mean, and how sure each cell is."""
    grids = torch.as_tensor(canvases).to(place(model))
    decoded = model.decode(model.encode(grids)[0])
    return Reconstructions(grids.cpu().numpy(), *_chosen(decoded))


def dimension_label(config: VAEConfig, dimension: int) -> str:
    """`overall 3`, or `map 2 at (5, 0)`: the channel and the place, of 8x8, in rows and columns from 0."""
    for name, group in config.groups.items():
        if group.start <= dimension < group.stop:
            number = dimension - group.start
            if name != "map":
                return f"{name} {number}"
            channel, at = divmod(number, PLACES**2)
            return f"map {channel} at {divmod(at, PLACES)}"
    raise ValueError(f"No dimension {dimension}; this model's latents are 0 to {config.latent_size - 1}.")


@torch.no_grad()
def traverse(
    model: nn.Module,
    canvas: np.ndarray,
    *,
    dimensions: Sequence[int] | None = None,
    count: int = 6,
    steps: int = 7,
    group: str | None = None,
) -> Traversal:
    """Move one latent at a time, the others at the posterior mean of a canvas (30, 30) or a grid (h, w).

    From -3 to 3; where the grid's own latent lies beyond, from there or up to there (`ends`).
    Moved are `dimensions`, or else the `count` with most KL for this grid, of all or of one `group` of the config's.
    """
    canvas = as_canvas(canvas)
    mu, logvar = model.encode(torch.from_numpy(canvas)[None].to(place(model)))
    nats = gaussian_kl(mu.float(), logvar.float())[0].cpu()
    if dimensions is None:
        among = model.config.groups[group] if group else slice(0, len(nats))
        dimensions = (nats[among].topk(min(count, len(nats[among]))).indices + among.start).tolist()
    own = mu[0, dimensions].float().cpu()
    values = torch.stack([torch.linspace(*ends(at), steps) for at in own.tolist()])  # (K, S)
    z = mu.repeat(len(dimensions) * steps, 1)  # (K * S, D)
    z[torch.arange(len(z)), torch.tensor(dimensions).repeat_interleave(steps)] = values.flatten().to(z)
    return Traversal(
        grid=canvas,
        unmoved=model.decode(mu).mode[0].cpu().numpy(),
        dimensions=list(dimensions),
        labels=[dimension_label(model.config, dimension) for dimension in dimensions],
        nats=nats[dimensions].numpy(),
        own=own.numpy(),
        values=values.numpy(),
        canvases=model.decode(z).mode.cpu().numpy().reshape(len(dimensions), steps, SIDE, SIDE),
    )


def ends(own: float) -> tuple[float, float]:
    """How far a latent is moved that lies at `own`: from -3 to 3, and as far as itself."""
    return min(LOW, own), max(HIGH, own)


@torch.no_grad()
def repaint(model: nn.Module, canvas: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A canvas (30, 30) decoded with the palette latents of each of `others` (N, 30, 30), all else its own.

    Raises ValueError where the architecture keeps no palette.
    """
    colours = palette_group(model.config)
    grids = torch.from_numpy(np.stack([as_canvas(canvas), *others])).to(place(model))
    mu, _ = model.encode(grids)
    z = mu[:1].repeat(len(others), 1)
    z[:, colours] = mu[1:, colours]
    return model.decode(z).mode.cpu().numpy()


def palette_group(config: VAEConfig) -> slice:
    """Where the palette's latents stand in z; ValueError where there are none."""
    if config.architecture != "palette":
        raise ValueError(
            f"architecture is {config.architecture}: its latents code colours and structure together, so there is no"
            " palette to move; train architecture: palette to see one."
        )
    return config.groups["colours"]


@torch.no_grad()
def interpolate(model: nn.Module, a: np.ndarray, b: np.ndarray, steps: int = 8) -> np.ndarray:
    """Canvases (steps, 30, 30) decoded on the straight line between the posterior means of two grids, ends included."""
    grids = torch.from_numpy(np.stack([as_canvas(a), as_canvas(b)])).to(place(model))
    first, last = model.encode(grids)[0]
    share = torch.linspace(0, 1, steps, device=first.device)[:, None]
    return model.decode(first + share * (last - first)).mode.cpu().numpy()


def parse_grid(text: str) -> np.ndarray:
    """The grid (h, w) that rows of digits spell, as typed in a field. Raises `GridError` for what spells none.

    Rows end at line breaks, "/" or ";", and cells may have spaces or commas between them: 0 1 2 / 3 4 5. Without such
    an end every space or comma ends a row: 012 345. Lists of lists, as in ARC files, are read too.
    """
    text = text.strip()
    if not text.strip("/; "):
        raise GridError("nothing was typed; expected rows of digits 0 to 9, such as 012 345")
    if text.startswith("["):
        try:
            return check_grid(json.loads(text))
        except json.JSONDecodeError as error:
            raise GridError(f"{text!r:.60} is no list of rows ({error}); expected [[0, 1], [2, 3]]") from None
    if re.search(r"[\n/;]", text):
        rows = [re.sub(r"[\s,]+", "", line) for line in re.split(r"[\n/;]", text) if line.strip()]
    else:
        rows = [row for row in re.split(r"[\s,]+", text) if row]
    for number, row in enumerate(rows):
        for column, letter in enumerate(row):
            if letter not in "0123456789":
                raise GridError(f"{letter!r} at row {number}, column {column}; expected digits 0 to 9")
    return check_grid([[int(digit) for digit in row] for row in rows])


def as_canvas(grid: np.ndarray | Tensor) -> np.ndarray:
    """A grid (h, w), or a canvas (30, 30) with 10 outside, as a canvas; `GridError` for what is neither."""
    grid = np.asarray(grid)
    canvas = grid if grid.shape == (SIDE, SIDE) else to_canvas(check_grid(grid))
    from_canvas(canvas)
    return canvas.astype(np.uint8)


def _chosen(decoded: Decoded) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest canvases (N, 30, 30), and the probability of each cell's colour, NaN outside."""
    predicted = decoded.mode
    chance = decoded.cells().exp().gather(1, predicted.long()[:, None])[:, 0]
    return predicted.cpu().numpy(), torch.where(predicted == OUTSIDE, torch.nan, chance).cpu().numpy()
