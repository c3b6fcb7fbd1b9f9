"""One style of plot. Every `plot_x(data, ax=None)` returns a Figure, which the caller shows or saves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
# Panels of plot_metrics: title, y label, the metrics drawn, and whether the y axis is logarithmic.
PANELS = (
    ("Loss", "nats per token", ("train/loss", "validation/loss"), False),
    ("Next-token accuracy", "share of tokens", ("train/accuracy", "validation/accuracy"), False),
    ("Learning rate", "per step", ("train/lr",), False),
    ("Gradient norm before clipping", "L2 norm", ("train/grad_norm",), True),
    ("Throughput", "tokens per second", ("train/tokens_per_second",), False),
)


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
    rows = -(-len(panels) // 2)
    with canvas(nrows=rows, ncols=2, figsize=(10, 2.9 * rows), squeeze=False) as axes:
        for ax, (title, unit, names, logarithmic) in zip(axes.flat, panels):
            plot_curves(metrics, names, ax)
            ax.set(title=title, ylabel=unit, yscale="log" if logarithmic else "linear")
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        return axes.flat[0].figure
