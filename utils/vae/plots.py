"""Figures of a beta-VAE's numbers: how training went, where the nats go, what beta trades, which tasks cost most.

Leaves out grids (`vae.grid_plots`) and latents (`vae.latent_plots`). Lines differ in dashes and markers and bars in
hatching, so every figure can be read in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.core.plots import canvas, plot_grid
from utils.vae.config import PLACES, VAEConfig
from utils.vae.latents import ACTIVE_KL
from utils.vae.metrics import TITLES

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from utils.core.run import Run
    from utils.vae.data import GridSplit

RATES = {name: TITLES[name] for name in ("all", "non_padding", "foreground", "exact")}
MARKERS = "osD^v<>P*X"
DARK, PALE = "#1f4e79", "#c8d6e5"
ORANGE = "#c55a11"
BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2, "fontsize": "small"}  # over no curve


def plot_history(run: Run) -> Figure:
    """Shares of cells and grids that are right, and KL beside beta, over the steps of a run as far as they were logged.

    All are at the true size: shares of the validation split are lines with points, those of training batches (at drawn
    latents) dotted with hollow points of the same shape. Raises ValueError where nothing was logged.
    """
    metrics = run.metrics()
    rates = [name for name in RATES if any(f"{part}/{name}" in metrics for part in ("train", "validation"))]
    if not rates and "train/kl" not in metrics:
        raise ValueError(f"{run} has no shares and no KL to draw yet; train it first.")
    with canvas(ncols=2, figsize=(10, 4.4)) as axes:
        shares, nats = axes
        for number, name in enumerate(rates):
            colour = f"C{number}"
            for part, look in (
                ("train", {"linestyle": ":", "linewidth": 1, "markerfacecolor": "white", "markersize": 5}),
                ("validation", {"markersize": 4}),
            ):
                if f"{part}/{name}" in metrics:
                    curve = metrics[f"{part}/{name}"].dropna()
                    look |= {"marker": MARKERS[number], "color": colour, "label": f"{part} {RATES[name]}"}
                    every = max(1, len(curve) // 8) if part == "train" else 1
                    shares.plot(curve.index, 100 * curve, markevery=every, **look)
        title = "Right at the true size (dotted, hollow: training)"
        shares.set(title=title, xlabel="step", ylabel="%", ylim=(0, 102))
        lines = [line for line in shares.get_lines() if line.get_linestyle() == "-"] or shares.get_lines()
        if lines:
            shares.legend(handles=lines, **BELOW)
        _plot_kl_and_beta(metrics, nats)
        return shares.figure


def _plot_kl_and_beta(metrics: pandas.DataFrame, ax: Axes) -> None:
    ax.set(title="KL and beta", xlabel="step", ylabel="KL, nats a grid")
    if "train/kl" in metrics:
        curve = metrics["train/kl"].dropna()
        ax.plot(curve.index, curve, color=DARK, linewidth=1, label="train KL")
    if "validation/kl" in metrics:
        curve = metrics["validation/kl"].dropna()
        ax.plot(curve.index, curve, color=DARK, linestyle="", marker="s", markersize=4, label="validation KL")
    ax.set_ylim(bottom=0)
    lines = ax.get_lines()
    if "train/beta" in metrics:
        twin = ax.twinx()
        curve = metrics["train/beta"].dropna()
        lines = [*lines, *twin.plot(curve.index, curve, color=ORANGE, linestyle="--", label="beta (right)")]
        twin.set(ylabel="beta", ylim=(0, max(1.1 * curve.max(), 1e-9)))
        twin.spines.right.set_visible(True)
        twin.grid(False)
    if lines:
        ax.legend(handles=lines, **BELOW)


def plot_kl(kl_per_dimension: Sequence[float], config: VAEConfig, reached: int | None = None) -> Figure:
    """Mean KL of each dimension, sorted, in nats a grid; and its sum over the channels at each place of the 8x8 map.

    A place covers 4x4 cells. Small grids do not reach the far places, which then cost nothing, and the mean is over
    grids of all sizes; `reached` says how many dimensions some grid has (None: all). The dense architecture's latents
    have no place, so its figure has the first panel alone.
    """
    kl = np.asarray(kl_per_dimension, float)
    if kl.shape != (config.latent_size,):
        raise ValueError(f"KL of {kl.shape} dimensions; this model has ({config.latent_size},). Is the config its own?")
    groups = {name: kl[group].sum() for name, group in config.groups.items()}
    mapped = "map" in config.groups
    with canvas(ncols=1 + mapped, figsize=(9.5 if mapped else 6, 3.8), squeeze=False) as axes:
        ax = axes.flat[0]
        ordered, active = np.sort(kl)[::-1], int((kl > ACTIVE_KL).sum())
        ax.fill_between(np.arange(len(kl) + 1), np.append(ordered, ordered[-1]), step="post", color=PALE)
        ax.step(np.arange(len(kl) + 1), np.append(ordered, ordered[-1]), where="post", color=DARK)
        ax.axhline(ACTIVE_KL, color="black", linestyle=":", linewidth=1)
        ax.text(0.02 * len(kl), ACTIVE_KL, f"active above {ACTIVE_KL} nats", va="bottom", fontsize="small")
        where = ", ".join(f"{name} {nats:.1f}" for name, nats in groups.items())
        ax.set(title=f"{active} of {reached or len(kl)} dimensions active\nnats: {where}", xlim=(0, len(kl)))
        ax.set(xlabel="dimensions, most KL first", ylabel="KL, nats a grid")
        ax.set_yscale("symlog", linthresh=ACTIVE_KL)
        ax.set_ylim(bottom=0)
        if mapped:
            _plot_places(kl[config.groups["map"]].reshape(-1, PLACES, PLACES).sum(0), axes.flat[1])
        return ax.figure


def _plot_places(nats: np.ndarray, ax: Axes) -> None:
    """A heat map, from white to black, with the numbers in it."""
    ax.imshow(nats, cmap="Greys", vmin=0)
    for (row, column), value in np.ndenumerate(nats):
        ink = "white" if value > 0.55 * nats.max() else "black"
        ax.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=7, color=ink)
    ax.set(title="Nats at each place of the map (4x4 cells)", xlabel="place across", ylabel="place down")
    ax.set(xticks=range(PLACES), yticks=range(PLACES))
    ax.grid(False)


def plot_rate_distortion(table: pandas.DataFrame) -> Figure:
    """Rate (KL) against distortion (-log p(x|z)), in nats a grid, a point for each row: `beta`, `kl`, `nll`.

    Along a dashed line their sum, the negative ELBO, is the same: nearer to the lower left is a better bound (Alemi et
    al. 2018). The rate's axis is logarithmic where it spans a factor of ten, as beside a beta of 0. With a column
    `exact` each point says its share of exact grids.
    """
    missing = {"beta", "kl", "nll"} - set(table)
    if missing or not len(table):
        raise ValueError(
            f"A table of {len(table)} rows without {', '.join(sorted(missing)) or 'a model'}; expected"
            " rows of beta, kl and nll."
        )
    table = table.sort_values("kl")
    with canvas(figsize=(6, 4.2)) as ax:
        ax.plot(table["kl"], table["nll"], color=DARK, marker="o")
        wide = table["kl"].max() > 10 * table["kl"].min() > 0
        left, right = (
            (0.7 * table["kl"].min(), 2.5 * table["kl"].max()) if wide else (0, 1.35 * table["kl"].max() + 1e-9)
        )
        rate = np.geomspace(left, right, 500) if wide else np.linspace(left, right, 2)
        for total in table["kl"] + table["nll"]:
            ax.plot(rate, total - rate, color="grey", linestyle="--", linewidth=0.7, zorder=0)
        for _, row in table.iterrows():
            text = f"beta {row['beta']:g}" + (f", {100 * row['exact']:.0f}% exact" if "exact" in table else "")
            ax.annotate(text, (row["kl"], row["nll"]), (6, 5), textcoords="offset points", fontsize="small")
        ax.set(xscale="log" if wide else "linear", xlim=(left, right), ylim=(0, 1.15 * table["nll"].max() + 1e-9))
        ax.set(xlabel="rate: KL, nats a grid", ylabel="distortion: -log p(x|z), nats")
        ax.set_title("Rate against distortion (dashed: equal ELBO)")
        return ax.figure


def plot_bits(table: pandas.DataFrame, split: GridSplit | None = None) -> Figure:
    """Bits a cell of each task of `tables.bits_by_task`: what the latents carry, and on it what is still to be told.

    With the `split` evaluated, the task's costliest grid stands under its bar.
    """
    if not len(table):
        raise ValueError("No task to draw; expected a table of bits_by_task with at least one row.")
    count = len(table)
    rows = 1 if split is None else 2
    ratios = {"height_ratios": [2.2, 1][:rows]}
    with canvas(
        nrows=rows, ncols=count, figsize=(1.05 * count + 1, 2 + 1.4 * rows), squeeze=False, gridspec_kw=ratios
    ) as axes:
        figure, place = axes[0, 0].figure, axes[0, 0].get_gridspec()[0, :]
        for ax in axes[0]:
            ax.remove()
        bars = figure.add_subplot(place)
        at = np.arange(count)
        bars.bar(at, table["kl_bits"], color=DARK, label="KL: what the latents carry")
        bars.bar(at, table["nll_bits"], bottom=table["kl_bits"], color=PALE, edgecolor=DARK, linewidth=0.6,
                 hatch="///", label="-log p(x|z): what is still to be told")  # fmt: skip
        bars.set(
            title="Tasks with most bits a cell" + (", and the costliest grid of each" if split is not None else ""),
            ylabel="bits a cell",
            xlim=(-0.5, count - 0.5),
        )
        bars.set_xticks(at, table["task_id"], fontsize=7)
        bars.grid(False, axis="x")
        bars.legend(fontsize="small")
        for ax, row in zip(axes[1] if split is not None else (), table["row"]):
            grid = split.grids[row][: split.heights[row], : split.widths[row]]
            plot_grid(grid, ax)
        return figure
