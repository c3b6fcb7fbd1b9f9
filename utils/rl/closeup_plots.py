"""Figures of single programs: what each earned and for what, and one of them token by token.

Leaves out how they come about (`rl.closeup`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.core.plots import canvas
from utils.rl.plots import BARS, DARK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from utils.rl.reward import Scored


def plot_reward_components(scored: Mapping[str, Scored], ax: Axes | None = None) -> Figure:
    """What each program earned, a bar a program, stacked by component; the sum stands beside it."""
    if not scored:
        raise ValueError("No program to draw; expected what at least one earned.")
    names = [
        name for name in next(iter(scored.values())).components if any(one.components[name] for one in scored.values())
    ]
    with canvas(ax, figsize=(8, 0.9 + 0.5 * len(scored))) as ax:
        right, left = np.zeros(len(scored)), np.zeros(len(scored))
        for number, name in enumerate(names):
            values = np.array([one.components[name] for one in scored.values()])
            start = np.where(values >= 0, right, left)
            ax.barh(range(len(scored)), values, 0.6, start, label=name, linewidth=0.8, **BARS[number % len(BARS)])
            right, left = right + values.clip(min=0), left + values.clip(max=0)
        for place, one in enumerate(scored.values()):
            why = ", ".join(filter(None, (one.trick, one.fault, f"{one.passed:.0%} of hidden pairs")))
            ax.annotate(f"{one.reward:+.3f} ({why})", (right[place], place), (4, 0), textcoords="offset points",
                        va="center", fontsize=8)  # fmt: skip
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(scored)), list(scored))
        ax.invert_yaxis()
        low, high = left.min(), right.max()
        ax.set(
            title="Reward and its components", xlabel="reward", xlim=(min(1.1 * low, -0.05), high + 0.5 * (high - low))
        )
        ax.grid(False, axis="y")
        ax.legend(fontsize="small", ncols=max(1, len(names)), loc="upper left", bbox_to_anchor=(0, -0.25))
        return ax.figure


def plot_rollout(
    tokens: Sequence[str], logprobs: Sequence[float], values: Sequence[float], advantages: Sequence[float]
) -> Figure:
    """One program token by token: its log-probability, the value before it and its advantage; each as long as `tokens`.

    A blank is drawn as a dot, a line break as an arrow; bars below 0 are hatched, which the title says where there are
    some, and values that are all 0 are said to be of a value that has learned nothing yet.
    """
    rows = {"log-probability": logprobs, "value before it": values, "advantage": advantages}
    numbers = {name: np.asarray(found, float) for name, found in rows.items()}
    wrong = {name: found.shape for name, found in numbers.items() if found.shape != (len(tokens),)}
    if wrong or not len(tokens):
        raise ValueError(f"{len(tokens)} tokens and {wrong or 'nothing'}; expected one number of each kind a token.")
    at = np.arange(len(tokens))
    shown = [token.replace(" ", "·").replace("\n", "↵") or "end" for token in tokens]
    with canvas(nrows=3, figsize=(max(5.0, 0.34 * len(tokens) + 1.5), 5.4), sharex=True) as axes:
        for ax, (name, found) in zip(axes, numbers.items()):
            if name == "value before it":
                ax.plot(at, found, color=DARK, marker="o", markersize=4)
                if not found.any():
                    told = "0 everywhere: it has learned nothing yet"
                    ax.annotate(told, (0.02, 0.9), xycoords="axes fraction", va="top", fontsize=8)
            else:
                for side, look in ((found >= 0, BARS[1]), (found < 0, BARS[2])):
                    ax.bar(at[side], found[side], 0.7, linewidth=0.8, **look)
            ax.axhline(0, color="black", linewidth=0.8)
            ax.set_ylabel(name)
            ax.grid(False, axis="x")
        below = any((found < 0).any() for name, found in numbers.items() if name != "value before it")
        axes[0].set_title("One program, token by token" + " (hatched: below 0)" * below)
        axes[-1].set_xticks(at, shown, rotation=90, fontsize=8, family="monospace", parse_math=False)
        return axes[0].figure
