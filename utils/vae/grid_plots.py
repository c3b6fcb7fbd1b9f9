"""Figures of grids beside what a model makes of them: reconstructions, samples, completions.

Grids are drawn in the ARC palette, as large as their box allows, with the cells outside hatched. What is wrong or
hidden is crossed, and confidence is grey, so nothing depends on colour. Leaves out moved latents (`vae.latent_plots`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from utils.arc.grids import OUTSIDE, sizes
from utils.core.plots import canvas, plot_grid
from utils.vae.explore import Reconstructions, reconstructions
from utils.vae.metrics import valid_canvases

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from torch import Tensor, nn

    from utils.vae.completion import Completion
    from utils.vae.data import GridSplit

KINDS = ("input", "reconstruction", "wrong cells", "confidence")
COLUMNS = 10
HIDDEN = {"facecolor": "white", "edgecolor": "black", "hatch": "xxxxxx", "linewidth": 0}
SMALL = 7  # points, of the text over a grid


def plot_reconstructions(
    model: nn.Module, split: GridSplit, rows: Sequence[int] | Mapping[str, Sequence[int]]
) -> Figure:
    """Input, reconstruction, wrong cells and confidence of the grids at some rows of a split, ten abreast.

    A single grid has them side by side. Groups of rows, as `tables.worst_and_best` gives, stand beside their names. A
    cell that is wrong, or inside one of the two grids only, has a cross; confidence is the probability of the colour
    chosen, given the size: white 1.
    """
    groups = {name: list(found) for name, found in (rows if isinstance(rows, Mapping) else {"": rows}).items()}
    parts = [(name, found[at : at + COLUMNS]) for name, found in groups.items() for at in range(0, len(found), COLUMNS)]
    if not parts:
        raise ValueError("No rows to draw; expected at least one row of the split.")
    if len(parts) == 1 and len(parts[0][1]) == 1:
        return _plot_alone(reconstructions(model, split.grids[parts[0][1]]))
    count, wide = len(KINDS), max(len(part) for _, part in parts)
    size = (1.05 * wide + 0.8, 1.15 * count * len(parts))
    with canvas(nrows=count * len(parts), ncols=wide, figsize=size, squeeze=False) as axes:
        for ax in axes.flat:
            ax.set_axis_off()
        for block, (name, part) in enumerate(parts):
            found = reconstructions(model, split.grids[part])
            lines = axes[count * block : count * (block + 1)]
            for column in range(len(part)):
                shown = _plot_one(found, column, lines[:, column])
                lines[0, column].set_title(_verdict(found, column), fontsize=SMALL)
            for ax, kind in zip(lines[:, 0], KINDS):
                ax.set_ylabel(f"{name}\n{kind}" if name else kind, fontsize=SMALL + 1)
        figure = axes.flat[0].figure
        figure.colorbar(shown, ax=axes, label="probability of the colour chosen", shrink=0.3, aspect=30, pad=0.01)
        return figure


def _plot_alone(found: Reconstructions) -> Figure:
    """One grid, its four panels abreast under their names."""
    with canvas(ncols=len(KINDS), figsize=(10, 2.8)) as axes:
        shown = _plot_one(found, 0, axes)
        for ax, kind in zip(axes, KINDS):
            ax.set_title(f"{kind}: {_verdict(found, 0)}" if kind == "wrong cells" else kind, fontsize=SMALL + 2)
        axes[0].figure.colorbar(shown, ax=axes, label="probability of the colour", shrink=0.8, pad=0.02)
        return axes[0].figure


def _verdict(found: Reconstructions, row: int) -> str:
    wrong, cells = found.wrong[row].sum(), (found.true[row] != OUTSIDE).sum()
    return f"{wrong} wrong" if wrong else f"all {cells} right"


def _plot_one(found: Reconstructions, row: int, axes: np.ndarray) -> AxesImage:
    """One grid down four axes, in the box that holds both it and its reconstruction; gives the last one's image."""
    true, predicted = found.true[row], found.predicted[row]
    height, width = box(np.stack([true, predicted]))
    for ax in axes:
        ax.set_axis_on()
    plot_grid(true[:height, :width], axes[0])
    plot_grid(predicted[:height, :width], axes[1])
    plot_crosses(true[:height, :width] != OUTSIDE, found.wrong[row, :height, :width], axes[2])
    return plot_confidence(found.confidence[row, :height, :width], predicted[:height, :width] != OUTSIDE, axes[3])


def plot_samples(samples: Mapping[str, Tensor], distances: Mapping[str, np.ndarray] | None = None) -> Figure:
    """A row of canvases for each sampler (and temperature): the first ten of `samples[name]` (N, 30, 30).

    Over each canvas stands its size, and over one that is no rectangle of colours "not valid", with a cross through it;
    the row's name says how many of all N are valid. `distances[name]` (N,), if there, are cells to the nearest
    training grid (`baselines.nearest`), 0 for a copy.
    """
    if not samples:
        raise ValueError("No samples to draw; expected canvases of at least one sampler.")
    wide = min(COLUMNS, max(len(canvases) for canvases in samples.values()))
    size = (1.15 * wide + 1, 1.55 * len(samples))
    with canvas(nrows=len(samples), ncols=wide, figsize=size, squeeze=False) as axes:
        for ax in axes.flat:
            ax.set_axis_off()
        for line, (name, canvases) in zip(axes, samples.items()):
            valid = valid_canvases(canvases).cpu().numpy()
            line[0].set_axis_on()
            title = "\n".join([*textwrap.wrap(name, 18), f"{valid.mean():.0%} of {len(valid)} valid"])
            line[0].set_ylabel(title, fontsize=SMALL + 1)
            away = (distances or {}).get(name)
            for number, ax in enumerate(line[: len(valid)]):
                ax.set_axis_on()
                picture = np.asarray(torch.as_tensor(canvases[number]).cpu())
                _plot_sample(picture, bool(valid[number]), None if away is None else int(away[number]), ax)
        return axes.flat[0].figure


def _plot_sample(picture: np.ndarray, valid: bool, away: int | None, ax: Axes) -> None:
    height, width = box(picture[None])
    plot_grid(picture[:height, :width], ax)
    if not valid:
        for ends in ([0, height], [height, 0]):
            ax.plot([0, width], ends, color="white", linewidth=3.5)
            ax.plot([0, width], ends, color="black", linewidth=1.5)
    title = f"{height}x{width}" if valid else "not valid"
    ax.set_title(title if away is None else f"{title}, {away} away", fontsize=SMALL)


def plot_completion(found: Completion) -> Figure:
    """What is seen of a grid (hidden cells hatched across), its completion, how sure that is, and what is wrong."""
    from matplotlib.patches import Rectangle

    height, width = box(found.true[None])
    true, hidden, completed, confidence, wrong = (
        part[:height, :width] for part in (found.true, found.hidden, found.completed, found.confidence, found.wrong)
    )
    with canvas(ncols=4, figsize=(10, 2.8)) as axes:
        plot_grid(true, axes[0])
        for row, column in np.argwhere(hidden):
            axes[0].add_patch(Rectangle((column, row), 1, 1, **HIDDEN))
            axes[2].add_patch(Rectangle((column, row), 1, 1, fill=False, linewidth=0.8))
        plot_grid(completed, axes[1])
        inside = np.ones_like(hidden)
        shown = plot_confidence(confidence, inside, axes[2])
        axes[2].figure.colorbar(shown, ax=axes[2], shrink=0.7)
        plot_crosses(inside, wrong, axes[3])
        titles = ("given", "completed", "confidence", f"{wrong.sum()} of {hidden.sum()} hidden cells wrong")
        for ax, title in zip(axes, titles):
            ax.set_title(title, fontsize=9)
        return axes[0].figure


def plot_crosses(inside: np.ndarray, crossed: np.ndarray, ax: Axes) -> None:
    """A white grid with the cells outside hatched and a cross on some; both (h, w) truth values."""
    plot_confidence(np.full(inside.shape, np.nan), inside, ax)
    height, width = inside.shape
    span = ax.get_position().size * ax.figure.get_size_inches() * 72
    cell = min(span[0] / width, span[1] / height)  # points, about
    rows, columns = np.nonzero(crossed)
    ax.scatter(columns + 0.5, rows + 0.5, s=(0.6 * cell) ** 2, marker="x", color="black", linewidths=max(0.6, cell / 9))


def plot_confidence(confidence: np.ndarray, inside: np.ndarray, ax: Axes) -> AxesImage:
    """Probabilities (h, w) from black (0) to white (1), nothing where they are NaN; cells not `inside` are hatched."""
    from matplotlib.patches import Rectangle

    plot_grid(np.where(inside, 0, OUTSIDE), ax)
    height, width = inside.shape
    ax.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor="#777777", linewidth=0.8, clip_on=False))
    look = {"cmap": "gray", "vmin": 0, "vmax": 1, "extent": (0, width, height, 0), "interpolation": "nearest"}
    ax.imshow(np.ma.masked_array(np.ones(inside.shape), ~inside), **look)
    return ax.imshow(np.ma.masked_invalid(confidence), **look)


def box(canvases: np.ndarray) -> tuple[int, int]:
    """Height and width that hold everything inside some canvases (N, 30, 30); at least 1."""
    heights, widths = sizes(canvases)
    return max(1, int(heights.max())), max(1, int(widths.max()))
