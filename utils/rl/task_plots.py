"""Figures of tasks: their pairs, and what a program makes of the hidden ones, its text beside.

Grids are drawn in the ARC palette; a cell that is wrong has a cross, so nothing depends on colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.arc.tasks import Pair, Task
from utils.core.plots import canvas, plot_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL = 8  # points, of the text over a grid
SIDE = 1.5  # inches of a grid's box
PLAIN = {"fontsize": SMALL, "parse_math": False}  # a dollar sign is one
TITLE = {"fontsize": SMALL + 2, "parse_math": False}
WIDE, LINES = 60, 34  # most characters of a program's line, and lines of a program


def plot_task(task: Task, *, digits: bool = True) -> Figure:
    """Each pair's input above its output: train pairs, then hidden ones. `digits` writes the colours' numbers."""
    pairs = [*task.train, *task.test]
    with canvas(nrows=2, ncols=len(pairs), figsize=(SIDE * len(pairs), 2 * SIDE + 0.4), squeeze=False) as axes:
        _plot_pairs(task, axes, digits)
        axes[0, 0].figure.suptitle(f"Task {task.id}", **TITLE)
        return axes[0, 0].figure


def plot_solution(task: Task, program: str, outputs: Sequence[np.ndarray | None], *, digits: bool = True) -> Figure:
    """A task as in `plot_task`, under its hidden pairs what a program made of them, and the program beside.

    `outputs` are of the hidden inputs in their order, None where the program failed. A cell that differs has a cross.
    """
    if len(outputs) != len(task.test):
        raise ValueError(f"{len(outputs)} outputs for the {len(task.test)} hidden pairs of task {task.id}; one each.")
    shown, count = len(task.train), len(task.train) + len(task.test)
    lines = [line for whole in program.strip().expandtabs(4).splitlines() for line in _wrapped(whole)]
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"... {len(lines) - LINES} more lines"]
    ratios = [1.0] * count + [0.3 + 0.068 * max(map(len, [*lines, ""])) / SIDE]  # inches of a character
    size = (SIDE * sum(ratios), 3 * SIDE + 0.5)
    with canvas(nrows=3, ncols=count + 1, figsize=size, squeeze=False, gridspec_kw={"width_ratios": ratios}) as axes:
        _plot_pairs(task, axes[:2, :count], digits)
        for ax in axes[2, :shown]:
            ax.set_axis_off()
        for ax in axes[:, count]:
            ax.remove()
        for ax, output, pair in zip(axes[2, shown:count], outputs, task.test):
            _plot_output(output, pair, ax, digits)
        axes[2, shown].set_ylabel("program's output", fontsize=SMALL)
        figure, text = axes[0, 0].figure, "\n".join(lines) or "(no text)"
        beside = figure.add_subplot(axes[0, 0].get_gridspec()[:, count])
        beside.set_axis_off()
        beside.text(0.05, 1, text, transform=beside.transAxes, va="top", family="monospace", **PLAIN)
        right = sum(_equal(output, pair.output) for output, pair in zip(outputs, task.test))
        figure.suptitle(f"Task {task.id}: {right} of {len(task.test)} hidden pairs right", **TITLE)
        return figure


def _plot_pairs(task: Task, axes: np.ndarray, digits: bool) -> None:
    """Pairs in columns, inputs above outputs; axes (2, pairs)."""
    names = [f"shown {at}" for at in range(1, len(task.train) + 1)]
    names += [f"hidden {at}" for at in range(1, len(task.test) + 1)]
    for column, (name, pair) in enumerate(zip(names, (*task.train, *task.test))):
        plot_grid(pair.input, axes[0, column], digits=digits)
        plot_grid(pair.output, axes[1, column], digits=digits)
        axes[0, column].set_title(name, fontsize=SMALL)
    for ax, name in zip(axes[:, 0], ("input", "output")):
        ax.set_ylabel(name, fontsize=SMALL)


def _plot_output(output: np.ndarray | None, pair: Pair, ax: Axes, digits: bool) -> None:
    if output is None:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(True)
        ax.text(0.5, 0.5, "no output", transform=ax.transAxes, ha="center", va="center", fontsize=SMALL)
        ax.set_title("failed", fontsize=SMALL)
        return
    plot_grid(output, ax, digits=digits)
    if output.shape != pair.output.shape:
        title = "wrong size"
    elif wrong := int((output != pair.output).sum()):
        title = f"{wrong} wrong cell{'s' * (wrong > 1)}"
        rows, columns = np.nonzero(output != pair.output)
        for ink, width in (("white", 2.6), ("black", 1.2)):
            ax.plot(columns + 0.8, rows + 0.2, linestyle="", marker="x", color=ink, markersize=4, markeredgewidth=width)
    else:
        title = "right"
    ax.set_title(title, fontsize=SMALL)


def _equal(output: np.ndarray | None, expected: np.ndarray) -> bool:
    return output is not None and np.array_equal(output, expected)


def _wrapped(line: str) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line, WIDE, subsequent_indent=indent + "    ", drop_whitespace=False) or [""]
