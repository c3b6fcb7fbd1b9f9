"""Plots of a search: how it went, what each setting did, which settings belong together, which matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from utils.core.plots import canvas
from utils.experiments.search_space import Dimension, parse_space
from utils.experiments.search_study import SearchError

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from utils.experiments.search_found import Search


def plot_history(search: Search, ax: Axes | None = None) -> Figure:
    """The metric of each complete trial, the best so far, and where trials were stopped early or failed."""
    table, metric = search.table, search.config.metric
    done = _complete(search)
    with canvas(ax) as ax:
        ax.plot(done.index, done[metric], "o", markersize=4, label="complete")
        best = done[metric].cummin() if search.config.direction == "minimize" else done[metric].cummax()
        ax.step(best.index, best, where="post", label="best so far")
        pruned = table[(table["state"] == "pruned") & table[metric].notna()]
        if len(pruned):
            ax.plot(pruned.index, pruned[metric], "x", color="grey", label="stopped early, last value")
        failed = table.index[table["state"] == "fail"]
        if len(failed):
            ax.plot(failed, [0.02] * len(failed), "|", color="C3", transform=ax.get_xaxis_transform(), label="failed")
        ax.set(xlabel="trial", ylabel=metric, title=f"{search.config.name}: {metric} of each trial")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend()
        return ax.figure


def plot_slices(search: Search) -> Figure:
    """The metric against each setting, a panel each, over the complete trials that drew it; later trials darker."""
    done, metric = _complete(search), search.config.metric
    dimensions = parse_space(search.config.space)
    columns = min(3, len(dimensions))
    rows = -(-len(dimensions) // columns)
    size = (3.4 * columns, 2.7 * rows)
    with canvas(nrows=rows, ncols=columns, figsize=size, squeeze=False, sharey=True) as axes:
        for ax, dimension in zip(axes.flat, dimensions):
            drawn = done[done[dimension.key].notna()]
            places, ticks = _places(dimension, drawn[dimension.key])
            shades = numpy.linspace(0.3, 1.0, max(len(drawn), 1))[: len(drawn)]
            ax.scatter(places, drawn[metric], s=16, c="C0", alpha=shades if len(drawn) else None)
            ax.set(xlabel=dimension.key, xscale="log" if dimension.kind in ("log", "log_int") else "linear")
            if ticks:
                ax.set_xticks(range(len(ticks)), ticks)
            elif dimension.kind == "int":
                ax.xaxis.get_major_locator().set_params(integer=True)
            elif dimension.kind == "log":
                ax.set_xlim(dimension.values[0] / 1.2, dimension.values[1] * 1.2)
        for ax in axes[:, 0]:
            ax.set_ylabel(metric)
        for ax in axes.flat[len(dimensions) :]:
            ax.set_axis_off()
        return axes.flat[0].figure


def plot_parallel(search: Search, ax: Axes | None = None) -> Figure:
    """A line a complete trial through its settings, each on its own scale from low (bottom) to high; the best in front.

    A line is broken where its trial did not draw the setting. The colour is the metric, dark where it is good.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import Normalize

    done, metric = _complete(search), search.config.metric
    best_last = done.sort_values(metric, ascending=search.config.direction == "maximize")
    dimensions = parse_space(search.config.space)
    colours = plt.get_cmap("viridis" if search.config.direction == "minimize" else "viridis_r")
    scale = Normalize(done[metric].min(), done[metric].max())
    with canvas(ax, figsize=(max(6.0, 1.5 * len(dimensions)), 3.8)) as ax:
        heights = numpy.column_stack([_heights(one, best_last[one.key]) for one in dimensions])  # (trials, settings)
        for line, value in zip(heights, best_last[metric]):
            ax.plot(range(len(dimensions)), line, marker=".", color=colours(scale(value)), alpha=0.8)
        for place, dimension in enumerate(dimensions):
            for height, text in _ends(dimension):
                style = {"size": 7, "ha": "left", "va": "center", "textcoords": "offset points", "xytext": (4, 0)}
                ax.annotate(text, (place, height), **style)
        ax.set_xticks(range(len(dimensions)), [one.key.replace(".", ".\n", 1) for one in dimensions], size=8)
        ax.set(yticks=[], ylim=(-0.06, 1.06), title=f"{search.config.name}: settings of the complete trials")
        ax.figure.colorbar(plt.cm.ScalarMappable(scale, colours), ax=ax, label=metric)
        return ax.figure


def plot_importance(search: Search, ax: Axes | None = None) -> Figure:
    """The share of the metric's variance that each setting explains (fANOVA, over the settings every trial drew).

    fANOVA: Hutter, Hoos, Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014, as
    Optuna has it. Raises `SearchError` before two complete trials of different values.
    """
    import optuna

    done = _complete(search)
    if done[search.config.metric].nunique() < 2:
        raise SearchError(
            f"Importance compares trials, and the complete ones ({len(done)}) show no difference; run more."
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=search.config.seed)
    shares = optuna.importance.get_param_importances(search.study, evaluator=evaluator)
    names = list(reversed(shares))
    with canvas(ax, figsize=(6.0, 1.2 + 0.32 * len(names))) as ax:
        ax.barh(names, [shares[name] for name in names])
        for name in names:
            ax.annotate(f" {shares[name]:.2f}", (shares[name], name), va="center", size=8)
        ax.set(xlabel="share of the explained variance", title=f"What decides {search.config.metric}")
        ax.set_xlim(0, 1.12 * max(shares.values()))
        ax.grid(visible=False, axis="y")
        return ax.figure


def _complete(search: Search) -> pandas.DataFrame:
    table = search.table
    done = table[table["state"] == "complete"] if len(table) else table
    if not len(done):
        raise SearchError(f"{search.config.name!r} has no complete trial to draw; run it first.")
    return done


def _places(dimension: Dimension, values: pandas.Series) -> tuple[list[Any], list[str]]:
    """Where values stand on their axis, and the names of its places where they are choices."""
    if dimension.kind != "choice":
        return list(values), []
    names = [str(one) for one in dimension.values]
    return [names.index(str(one)) for one in values], names


def _heights(dimension: Dimension, values: pandas.Series) -> numpy.ndarray:
    """Values between 0 (lowest, first choice) and 1; NaN where there is none."""
    if dimension.kind == "choice":
        names = [str(one) for one in dimension.values]
        last = len(names) - 1
        return numpy.array([names.index(str(one)) / last if str(one) in names else numpy.nan for one in values])
    low, high = dimension.values
    numbers = values.astype(float).to_numpy()
    if dimension.kind in ("log", "log_int"):
        low, high, numbers = numpy.log(low), numpy.log(high), numpy.log(numbers)
    return (numbers - low) / (high - low)


def _ends(dimension: Dimension) -> list[tuple[float, str]]:
    if dimension.kind == "choice":
        last = len(dimension.values) - 1
        return [(place / last, str(one)) for place, one in enumerate(dimension.values)]
    return [(height, f"{value:g}") for height, value in zip((0, 1), dimension.values)]
