"""Curves while PPO trains: in a notebook drawn anew in one place, elsewhere a line of text.

Leaves out the figure itself (`rl.plots`).
"""

from __future__ import annotations

from collections.abc import Callable

from utils.core.notebook import redrawing
from utils.core.run import Run
from utils.rl.plots import plot_learning


def live_learning(run: Run) -> Callable[[int], str]:
    """For `train_ppo`: called with the update after each evaluation, it draws the curves and says how it stands."""
    redraw = redrawing(lambda: plot_learning(run))

    def watch(update: int) -> str:
        redraw()
        return standing(run)

    return watch


def standing(run: Run) -> str:
    """The last evaluation in a line: `validation: pass@1 21.3%, greedy 24.0%`."""
    metrics = run.metrics()
    if "validation/pass@1" not in metrics:
        return "not evaluated yet"
    last = metrics.loc[metrics["validation/pass@1"].last_valid_index()]
    return f"validation: pass@1 {last['validation/pass@1']:.1%}, greedy {last['validation/greedy']:.1%}"
