"""Figures of PPO's numbers: how training went, before and after, levels, endings, lengths.

Leaves out grids (`rl.task_plots`) and single programs (`rl.closeup_plots`). Lines differ in dashes and markers and bars
in shade and hatching, so every figure can be read in grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.core.plots import canvas
from utils.rl.evaluation import ENDINGS, Evaluation

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from utils.core.run import Run

DARK, PALE, ORANGE = "#1f4e79", "#c8d6e5", "#c55a11"
LINES = (
    {"color": DARK, "linestyle": "-", "marker": "o"},
    {"color": ORANGE, "linestyle": "--", "marker": "s"},
    {"color": "#595959", "linestyle": "-.", "marker": "^"},
    {"color": "#7aa6c2", "linestyle": ":", "marker": "D"},
    {"color": "black", "linestyle": (0, (1, 3)), "marker": "v"},
    {"color": "#a06a3c", "linestyle": (0, (6, 2)), "marker": "x"},
    {"color": "#808080", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "+"},
    {"color": "#2f2f2f", "linestyle": (0, (8, 2, 2, 2)), "marker": "*"},
)
BARS = (
    {"facecolor": PALE, "edgecolor": DARK},
    {"facecolor": DARK, "edgecolor": DARK},
    {"facecolor": "white", "edgecolor": "black", "hatch": "///"},
    {"facecolor": "white", "edgecolor": "black", "hatch": "..."},
    {"facecolor": "#a6a6a6", "edgecolor": "black", "hatch": "xxx"},
    {"facecolor": "#e8c9b0", "edgecolor": ORANGE, "hatch": "\\\\\\"},
    {"facecolor": "#6b6b6b", "edgecolor": "black", "hatch": "---"},
    {"facecolor": "#ededed", "edgecolor": "black", "hatch": "+++"},
)
ASIDE = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}  # a legend to the right of its panel
# Panels of plot_learning: title, unit, factor, and the metrics by their names in the legend.
PANELS = (
    ("Solved, of validation tasks and of training's rollouts", "%", 100, {
        "validation/pass@1": "validation pass@1", "validation/greedy": "validation greedy",
        "train/pass@1": "rollouts pass@1", "train/solved": "rollouts, by some program",
    }),
    ("Score of programs", "reward", 1, {"train/score": "mean over a rollout"}),
    ("KL to the policy it started from", "nats a program", 1, {"train/kl": "k3 estimate"}),
    ("Entropy", "nats a token", 1, {"train/entropy": "of the next token"}),
    ("What moved further than the clip", "% of tokens", 100, {
        "train/clip_fraction": "ratio", "train/value_clip_fraction": "value",
    }),
    ("Explained variance of returns", "1: perfect", 1, {"train/explained_variance": "by the value"}),
    ("Length", "tokens", 1, {"train/length": "of programs"}),
)  # fmt: skip


def plot_learning(run: Run) -> Figure:
    """Pass rates, score, KL, entropy, clipping, explained variance, length and faults over the updates of a run.

    As far as they were logged. Raises ValueError where nothing was.
    """
    metrics = run.metrics()
    panels = [one for one in (*PANELS, _fault_panel(metrics)) if any(name in metrics for name in one[3])]
    if not panels:
        raise ValueError(f"{run} has no metrics of PPO to draw yet; train it first.")
    rows = -(-len(panels) // 2)
    with canvas(nrows=rows, ncols=2, figsize=(10, 2.7 * rows), squeeze=False) as axes:
        for ax, (title, unit, factor, names) in zip(axes.flat, panels):
            shown = {name: label for name, label in names.items() if name in metrics}
            for look, (name, label) in zip(LINES, shown.items()):
                curve = factor * metrics[name].dropna()
                marker = look["marker"] if len(curve) < 30 else None
                width = 1.0 if name.startswith("train/") and len(shown) > 1 else 1.8
                ax.plot(curve.index, curve, **{**look, "marker": marker}, markersize=4, linewidth=width, label=label)
            ax.set(title=title, ylabel=unit, xlabel="update")
            if len(shown) > 1:
                low, high = ax.get_ylim()
                ax.set_ylim(low, high + 0.17 * (high - low) * -(-len(shown) // 2))  # room for the legend
                if unit.startswith("%"):
                    ax.set_yticks([tick for tick in ax.get_yticks() if low <= tick <= min(100, ax.get_ylim()[1])])
                ax.legend(fontsize="small", loc="upper center", ncols=2)
            elif unit == "%":
                ax.set_ylim(bottom=0)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        return axes.flat[0].figure


def _fault_panel(metrics: pandas.DataFrame) -> tuple[str, str, int, dict[str, str]]:
    """Faults and tricks that occurred, the most frequent ones."""
    found = {name: name.rpartition("/")[2] for name in metrics if name.startswith(("train/fault/", "train/trick/"))}
    if "train/fault/truncated" not in found and "train/truncated" in metrics:
        found["train/truncated"] = "truncated"
    kept = sorted((name for name in found if metrics[name].max() > 0), key=lambda name: -metrics[name].mean())
    names = {name: found[name] for name in (kept or list(found))[: len(LINES)]}
    return "Faults and tricks", "% of programs", 100, names


def plot_before_after(evaluations: Mapping[str, Evaluation], ax: Axes | None = None) -> Figure:
    """Bars of every rate of each evaluation, baselines included, with 95% intervals over tasks."""
    _some(evaluations)
    metrics = list(dict.fromkeys(metric for one in evaluations.values() for metric in one.metrics))
    with canvas(ax, figsize=(8, 3.8)) as ax:
        bars = {name: [one.rates.get(metric) for metric in metrics] for name, one in evaluations.items()}
        _grouped(ax, bars, metrics)
        tasks = {len(one.records) for one in evaluations.values()}
        ax.set(title=f"Tasks solved, of {' and '.join(map(str, sorted(tasks)))}, with 95% intervals", ylabel="%")
        ax.legend(fontsize="small", **ASIDE)
        return ax.figure


def plot_levels(evaluations: Mapping[str, Evaluation], metric: str = "pass@1") -> Figure:
    """A rate by the steps of the program that made the task, and by whether that program made a training task, too."""
    _some(evaluations)
    first = next(iter(evaluations.values()))
    seen = {True: "among the\ntraining programs", False: "not among them"}
    parts = [
        ("by_level", {key: f"{key} step{'s' * (key != 1)}" for key in first.by_level}, "by the program's steps"),
        ("by_seen", {key: seen[key] for key in first.by_seen}, "by the task's program"),
    ]
    parts = [part for part in parts if part[1]]
    with canvas(ncols=len(parts), figsize=(4.6 * len(parts) + 1, 3.6), squeeze=False, sharey=True) as axes:
        for ax, (kind, labels, title) in zip(axes.flat, parts):
            groups = {name: getattr(one, kind) for name, one in evaluations.items()}
            bars = {name: [group[key].rates.get(metric) for key in labels] for name, group in groups.items()}
            counts = [len(getattr(first, kind)[key].records) for key in labels]
            _grouped(ax, bars, [f"{label}\n{n} task{'s' * (n != 1)}" for label, n in zip(labels.values(), counts)])
            ax.set(title=f"{metric} {title}, with 95% intervals", ylabel="%")
        axes.flat[-1].legend(fontsize="small", **ASIDE)
        return axes.flat[0].figure


def _grouped(ax: Axes, bars: Mapping[str, Sequence], labels: Sequence[str]) -> None:
    """Groups of bars of estimates, None for no bar."""
    width = min(0.8 / len(bars), 0.3)
    for number, (name, estimates) in enumerate(bars.items()):
        at = np.arange(len(labels)) + (number - (len(bars) - 1) / 2) * width
        there = [place for place, one in enumerate(estimates) if one is not None]
        found = [estimates[place] for place in there]
        heights = np.array([100 * one.value for one in found])
        ends = np.array([[100 * one.low, 100 * one.high] for one in found]).reshape(-1, 2)
        ax.bar(at[there], heights, width, label=name, linewidth=0.8, **BARS[number % len(BARS)])
        ax.errorbar(at[there], heights, np.abs(ends.T - heights), fmt="none", ecolor="black", capsize=3, linewidth=1)
        for place, height, (_, top) in zip(at[there], heights, ends):
            ax.annotate(f"{height:.1f}", (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    ax.set_xticks(range(len(labels)), labels)
    ax.set_ylim(bottom=0)
    ax.set_xlim(-0.7, len(labels) - 0.3)
    ax.grid(False, axis="x")


def plot_endings(evaluations: Mapping[str, Evaluation], ax: Axes | None = None) -> Figure:
    """What programs came to, in % of those drawn: a bar for each ending that some came to."""
    _some(evaluations)
    shares = {name: one.endings for name, one in evaluations.items()}
    kept = [name for name in ENDINGS if any(found[name] for found in shares.values())]
    with canvas(ax, figsize=(8, 0.8 + 0.16 * len(kept) * (1 + len(shares)))) as ax:
        height = 0.8 / len(shares)
        for number, (name, found) in enumerate(shares.items()):
            at = np.arange(len(kept)) + (number - (len(shares) - 1) / 2) * height
            values = np.array([100 * found[one] for one in kept])
            ax.barh(at, values, height, label=name, linewidth=0.8, **BARS[number % len(BARS)])
            for place, value in zip(at, values):
                ax.annotate(f"{value:.1f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
        ax.set_yticks(range(len(kept)), [one.replace("_", " ") for one in kept])
        ax.invert_yaxis()
        ax.set(title="What programs came to", xlabel="% of the programs drawn")
        ax.margins(x=0.1)
        ax.grid(False, axis="y")
        ax.legend(fontsize="small", loc="lower right")
        return ax.figure


def plot_lengths(evaluations: Mapping[str, Evaluation], ax: Axes | None = None) -> Figure:
    """The share of programs of each length: in tokens where all have been drawn as such, else in characters."""
    _some(evaluations)
    unit = "tokens" if all(len(one.tokens) for one in evaluations.values()) else "characters"
    lengths = {name: np.asarray(getattr(one, unit)) for name, one in evaluations.items()}
    top = max(int(found.max()) for found in lengths.values())
    edges = np.arange(0.5, top + 1.5) if top <= 60 else np.linspace(0, top + 1, 41)
    with canvas(ax) as ax:
        for look, (name, found) in zip(LINES, lengths.items()):
            shares = 100 * np.histogram(found, edges)[0] / len(found)
            ax.stairs(shares, edges, color=look["color"], linestyle=look["linestyle"], linewidth=1.5, label=name)
        ax.set(title="Length of programs", xlabel=unit, ylabel="% of programs", xlim=(0, top + 1))
        ax.legend(fontsize="small")
        return ax.figure


def _some(evaluations: Mapping[str, Evaluation]) -> None:
    if not evaluations:
        raise ValueError("No evaluation to draw; expected at least one, by its name.")
