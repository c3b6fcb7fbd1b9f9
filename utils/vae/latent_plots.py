"""Figures of latents: one moved at a time, the palette's exchanged, a way between two grids, all of them in the plane.

What is decoded comes from `vae.explore`, the plane from `vae.embedding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.core.plots import ARC_COLOURS, canvas, plot_grid
from utils.vae.explore import Traversal, as_canvas, interpolate, palette_group, repaint, traverse
from utils.vae.grid_plots import SMALL, box

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import nn

    from utils.vae.data import GridSplit

MARKERS = "osD^v<>Ph*"
BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.01), "fontsize": 6}  # over no point
TASKS = 8  # told apart in a figure
TITLES = {"task_id": "task", "colours": "number of colours", "background": "background colour"}


def plot_traversals(
    model: nn.Module, split: GridSplit, row: int = 0, *, count: int = 6, steps: int = 7, group: str | None = None
) -> Figure:
    """A line for each of the latents with most KL of one grid of a split, moved alone as far as `explore.ends` says.

    First stand the grid itself and its reconstruction, nothing moved; all are on one scale. `group` limits the latents
    to one of the config's groups: overall, colours, map.
    """
    return _plot_traversal(traverse(model, split.grids[row], count=count, steps=steps, group=group))


def plot_palette(
    model: nn.Module, split: GridSplit, row: int = 0, *, others: Sequence[int] | None = None, count: int = 3
) -> Figure:
    """One grid with its palette latents changed and all others left: colours change, the structure stays.

    The first line has the palettes of other grids of the split (`others`, else the next seven that have as many
    colours or more; none where the split has one grid); then the `count` palette latents with most KL move as in
    `plot_traversals`. Raises ValueError for an architecture without a palette.
    """
    palette_group(model.config)
    others = _colourful(split, row) if others is None else list(others)
    moved = traverse(model, split.grids[row], count=count, steps=7, group="colours")
    if not others:
        return _plot_traversal(moved)
    painted = repaint(model, split.grids[row], split.grids[others])
    return _plot_traversal(moved, first=("palettes of\nother grids", painted))


def plot_interpolation(model: nn.Module, a: np.ndarray, b: np.ndarray, steps: int = 8) -> Figure:
    """Two grids at the ends, and between them what is decoded on the straight line between their latents."""
    between = interpolate(model, a, b, steps)
    canvases = [as_canvas(a), *between, as_canvas(b)]
    shares = [f"{share:.0%}" for share in np.linspace(0, 1, steps)]
    with canvas(ncols=len(canvases), figsize=(1.2 * len(canvases), 1.7), squeeze=False) as axes:
        for ax, picture, title in zip(axes.flat, canvases, ["a", *shares, "b"]):
            height, width = box(picture[None])
            plot_grid(picture[:height, :width], ax)
            ax.set_title(title, fontsize=SMALL)
        return axes.flat[0].figure


def plot_embedding(
    points: pandas.DataFrame, by: Sequence[str] = ("task_id", "height", "background", "symmetric")
) -> Figure:
    """Grids in the plane: a line for each method of `embedding.embed`, a panel for each property in `by`.

    Tasks: the eight with most grids have a marker each, and the rest are grey points. Background: the colour's number
    in its ARC colour. Symmetric grids are filled, others hollow. Amounts run from pale to dark.
    """
    missing = {"method", "x", "y", *by} - set(points)
    if missing or not len(points) or not by:
        raise ValueError(f"Points without {', '.join(sorted(missing)) or 'rows or properties'}; expected a table of"
                         " embedding.embed, and columns of it in `by`.")  # fmt: skip
    methods = list(dict.fromkeys(points["method"]))
    size = (3.5 * len(by), 3.2 * len(methods))
    with canvas(nrows=len(methods), ncols=len(by), figsize=size, squeeze=False) as axes:
        for line, method in zip(axes, methods):
            few = points[points["method"] == method]
            for ax, name in zip(line, by):
                _plot_property(few, name, ax)
                ax.set(xticks=[], yticks=[], title=f"{method}: {TITLES.get(name, name)}")
        return axes.flat[0].figure


def _plot_property(points: pandas.DataFrame, name: str, ax: Axes) -> None:
    x, y, values = points["x"], points["y"], points[name]
    if name == "task_id":
        ax.scatter(x, y, s=6, color="#b5b5b5", linewidths=0)
        for number, task in enumerate(points.groupby(name).size().nlargest(TASKS).index):
            of = values == task
            ax.scatter(
                x[of],
                y[of],
                s=26,
                marker=MARKERS[number],
                edgecolors="black",
                linewidths=0.5,
                label=task or "procedural",
            )
        ax.legend(ncols=4, handletextpad=0.2, columnspacing=0.8, **BELOW)
    elif name == "background":
        for colour in sorted(set(values)):
            of = values == colour
            look = {"edgecolors": "black", "linewidths": 0.25}
            ax.scatter(x[of], y[of], s=30, marker=f"${colour}$", color=ARC_COLOURS[colour], **look)
    elif name == "symmetric":
        for of, face, label in ((values == 0, "none", "not"), (values == 1, "black", "symmetric")):
            ax.scatter(x[of], y[of], s=12, facecolors=face, edgecolors="black", linewidths=0.5, label=label)
        ax.legend(ncols=2, **BELOW)
    else:
        shown = ax.scatter(x, y, c=values, s=10, cmap="viridis_r", linewidths=0)
        ax.figure.colorbar(shown, ax=ax, shrink=0.8)


def _plot_traversal(moved: Traversal, first: tuple[str, np.ndarray] | None = None) -> Figure:
    """Each line beside the reconstruction, and the first beside the grid; `first` (name, canvases) is above all."""
    lines = [
        (f"{label}\n{nats:.1f} nats", canvases)
        for label, nats, canvases in zip(moved.labels, moved.nats, moved.canvases)
    ]
    lines = [*([first] if first else []), *lines]
    wide = 2 + max(len(canvases) for _, canvases in lines)
    height, width = box(np.stack([moved.grid, moved.unmoved, *(one for _, canvases in lines for one in canvases)]))
    with canvas(nrows=len(lines), ncols=wide, figsize=(1.2 * wide + 0.6, 1.35 * len(lines)), squeeze=False) as axes:
        for ax in axes.flat:
            ax.set_axis_off()
        for number, (line, (name, canvases)) in enumerate(zip(axes, lines)):
            for ax, picture in zip(line[1:], [moved.unmoved, *canvases]):
                ax.set_axis_on()
                plot_grid(picture[:height, :width], ax)
            line[1].set_ylabel(name, fontsize=SMALL + 1)
            if not number:
                line[0].set_axis_on()
                plot_grid(moved.grid[:height, :width], line[0])
                line[0].set_title("the grid", fontsize=SMALL + 1)
                line[1].set_title("decoded", fontsize=SMALL + 1)
        headed = None
        for line, values in zip(axes[first is not None :], moved.values.tolist()):
            for ax, value in zip(line[2:], values if values != headed else ()):  # where they are those above, not again
                ax.set_title(f"{value:+.2g}" if value else "0", fontsize=SMALL + 1)
            headed = values
        return axes.flat[0].figure


def _colourful(split: GridSplit, row: int, count: int = 7) -> list[int]:
    """The first rows after `row`, and then from the start, whose grids have at least as many colours."""

    def colours(at: int) -> int:
        return len(np.unique(split.grids[at]))

    order = [(row + step) % len(split) for step in range(1, len(split))]
    return [at for at in order if colours(at) >= colours(row)][:count] or order[:count]
