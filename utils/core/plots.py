"""One style of plot. Every `plot_x(data, ax=None)` returns a Figure, which the caller shows or saves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from utils.core.run import Run

STYLE = {
    "figure.figsize": (6.0, 3.6),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "grid.alpha": 0.3,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
}
# The ten colours of the ARC site (https://github.com/fchollet/ARC-AGI, apps/css/common.css): black, blue, red, green,
# yellow, grey, magenta, orange, light blue, maroon. Cells outside a grid (10 on a canvas) are hatched, as no colour is.
ARC_COLOURS = (
    "#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00", "#AAAAAA", "#F012BE", "#FF851B", "#7FDBFF", "#870C25",
)  # fmt: skip
ARC_PADDING = {"facecolor": "#FFFFFF", "edgecolor": "#C4C4C4", "hatch": "////", "linewidth": 0}
ARC_LINES = {"colors": "#777777", "linewidth": 0.4}
# Panels of plot_metrics: title, y label, the metrics drawn, and whether the y axis is logarithmic. {accuracy} and {one}
# are of the run's task: a classifier's targets are rows, a language model's are tokens.
PANELS = (
    ("Loss", "nats per {one}", ("train/loss", "validation/loss"), False),
    ("{accuracy}", "share of {one}s", ("train/accuracy", "validation/accuracy"), False),
    ("Learning rate", "per step", ("train/lr",), False),
    ("Gradient norm before clipping", "L2 norm", ("train/grad_norm",), True),
    ("Throughput", "{one}s per second", ("train/tokens_per_second", "train/rows_per_second"), False),
)
ACCURACIES = {
    "causal_lm": "Next-token accuracy", "masked_lm": "Masked-token accuracy", "seq2seq": "Next-token accuracy",
}  # fmt: skip


@contextlib.contextmanager
def canvas(ax: Axes | None = None, **subplots) -> Iterator[Axes]:
    """The axes to draw on, in the house style: `ax` if given, else new ones (an array for several `nrows`/`ncols`).

    The figure is closed to pyplot, so that a notebook shows it once: where a cell returns it.
    """
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        if ax is not None:
            yield ax
            return
        figure, axes = plt.subplots(**subplots)
        try:
            yield axes
        finally:
            plt.close(figure)


def plot_curves(metrics: pandas.DataFrame, names: Sequence[str], ax: Axes | None = None) -> Figure:
    """Columns of `run.metrics()` over the steps; a column logged at few steps is drawn with its points."""
    with canvas(ax) as ax:
        for name in names:
            if name in metrics:
                curve = metrics[name].dropna()
                ax.plot(curve.index, curve, marker="." if len(curve) < 30 else None, label=name.replace("/", " "))
        ax.set_xlabel("step")
        if len(ax.get_lines()) > 1:
            ax.legend()
        return ax.figure


def plot_metrics(run: Run) -> Figure:
    """Loss, accuracy, learning rate, gradient norm and throughput of a run, as far as they were logged."""
    metrics = run.metrics()
    panels = [panel for panel in PANELS if any(name in metrics for name in panel[2])]
    if not panels:
        raise ValueError(f"{run} has no metrics to draw yet; train it first.")
    task = run.config.get("task")
    of_tokens = task in ACCURACIES or task is None and "train/tokens_per_second" in metrics
    words = {"one": "token" if of_tokens else "row", "accuracy": ACCURACIES.get(task, "Accuracy")}
    rows = -(-len(panels) // 2)
    with canvas(nrows=rows, ncols=2, figsize=(10, 2.9 * rows), squeeze=False) as axes:
        for ax, (title, unit, names, logarithmic) in zip(axes.flat, panels):
            plot_curves(metrics, names, ax)
            ax.set(title=title.format(**words), ylabel=unit.format(**words), yscale="log" if logarithmic else "linear")
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        return axes.flat[0].figure


def plot_grid(grid: numpy.ndarray, ax: Axes | None = None, *, digits: bool = False) -> Figure:
    """An ARC grid, or a canvas whose cells of 10 lie outside it and are hatched; (h, w) whole numbers, 0 to 10.

    `digits` writes each colour's number in its cell, for who cannot tell the colours apart (or prints in grey).
    Raises ValueError for what is no such array.
    """
    import numpy
    from matplotlib.colors import to_rgba_array
    from matplotlib.patches import Rectangle

    grid = numpy.asarray(grid)
    if grid.ndim != 2 or not grid.size or not 0 <= grid.min() <= grid.max() <= len(ARC_COLOURS):
        raise ValueError(
            f"An array of shape {grid.shape}, holding {grid.ravel()[:5].tolist()} ...; expected a grid (h, w) of"
            f" colours 0 to 9, and {len(ARC_COLOURS)} outside it."
        )
    height, width = grid.shape
    with canvas(ax, figsize=(0.6 + 0.16 * width, 0.6 + 0.16 * height)) as ax:
        outside = grid == len(ARC_COLOURS)
        if outside.any():
            ax.add_patch(Rectangle((0, 0), width, height, zorder=0, **ARC_PADDING))
        picture = to_rgba_array([*ARC_COLOURS, "none"])[grid]  # (h, w, 4)
        ax.imshow(picture, extent=(0, width, height, 0), interpolation="nearest")
        box = ax.get_position().size * ax.figure.get_size_inches() * 72
        cell = min(box[0] / width, box[1] / height)  # points, about
        if cell >= 6:  # in smaller cells, lines would hide the colours
            rows, columns = (numpy.flatnonzero((~outside).any(axis)) for axis in (1, 0))
            tall, wide = (int(filled.max(initial=-1)) + 1 for filled in (rows, columns))
            ax.vlines(range(wide + 1), 0, tall, **ARC_LINES)
            ax.hlines(range(tall + 1), 0, wide, **ARC_LINES)
        for row, column in numpy.argwhere(~outside) if digits else ():
            ink = "black" if grid[row, column] in (3, 4, 5, 7, 8) else "white"
            place = {"ha": "center", "va": "center_baseline", "size": 0.6 * cell}
            ax.text(column + 0.5, row + 0.5, str(grid[row, column]), color=ink, **place)
        ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_visible(False)
        return ax.figure


def plot_grids(
    grids: Sequence[numpy.ndarray], titles: Sequence[str] = (), *, columns: int = 8, digits: bool = False
) -> Figure:
    """Several grids, `columns` to a row, each under its title as far as there are titles."""
    if not len(grids):
        raise ValueError("No grids to draw; expected at least one.")
    columns = min(columns, len(grids))
    rows = -(-len(grids) // columns)
    size = (1.4 * columns, (1.65 if titles else 1.4) * rows)
    with canvas(nrows=rows, ncols=columns, figsize=size, squeeze=False) as axes:
        for ax, grid in zip(axes.flat, grids):
            plot_grid(grid, ax, digits=digits)
        for ax, title in zip(axes.flat, titles):
            ax.set_title(title, fontsize=7)
        for ax in axes.flat[len(grids) :]:
            ax.set_axis_off()
        return axes.flat[0].figure
