"""Figures show the numbers they are given, whatever is missing, and no warning."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from utils.core import jsonl
from utils.core.config import Config
from utils.core.run import Run
from utils.rl.evaluation import Evaluation, Record
from utils.rl.plots import (
    BARS,
    LINES,
    plot_before_after,
    plot_endings,
    plot_learning,
    plot_lengths,
    plot_levels,
)

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def evaluation(name, correct, greedy=True, tokens=(3, 4, 5, 6)):
    records = [
        Record(f"t{at}", 1 + at % 2, at < 2, 4, right, right > 1 if greedy else None, "p", 1.0, 1, 2,
               {"solved": right, "syntax": 4 - right})
        for at, right in enumerate(correct)
    ]  # fmt: skip
    return Evaluation(name, records, (1, 2), 100, tokens=tokens, characters=[10, 20, 30, 40])


@pytest.fixture
def evaluations():
    return {"before": evaluation("before", (0, 2, 0, 1)), "after": evaluation("after", (4, 1, 0, 3))}


def logged(tmp_path, rows):
    run = Run.create(tmp_path, "plots", Config())
    for step, metrics in rows.items():
        jsonl.append(run.metrics_file, {"step": step, "time": "", **metrics})
    return run


def heights(ax):
    return [round(bar.get_height(), 6) for bar in ax.patches]


def test_bars_before_and_after_are_the_rates(evaluations):
    figure = plot_before_after({**evaluations, "random": evaluation("random", (1, 1, 1, 1), greedy=False)})
    found = heights(figure.axes[0])
    # pass@1, greedy, pass@2 before, then after; the last has no greedy bar. Of 6 pairs 6, 1, 6, 3 have none correct.
    assert found[:3] == pytest.approx([100 * 3 / 16, 25, 100 * (0 + 5 / 6 + 0 + 1 / 2) / 4])
    assert found[6:] == pytest.approx([25, 50])
    assert len(found) == 8


def test_bars_of_levels_say_how_many_tasks_there_are(evaluations):
    figure = plot_levels(evaluations)
    levels, seen = figure.axes
    assert heights(levels) == pytest.approx([0, 37.5, 50, 50])  # before: tasks 0, 2 and 1, 3; then after
    assert [label.get_text() for label in levels.get_xticklabels()] == ["1 step\n2 tasks", "2 steps\n2 tasks"]
    assert len(seen.get_xticklabels()) == 2
    unknown = Evaluation("arc", [Record("t", 0, None, 4, 1, True, "p", 1.0, 1, 2, {"solved": 4})])
    assert len(plot_levels({"arc": unknown}).axes) == 1


def test_endings_and_lengths_are_shares(evaluations):
    ax = plot_endings(evaluations).axes[0]
    assert [round(bar.get_width(), 4) for bar in ax.patches] == [18.75, 81.25, 50, 50]
    ax = plot_lengths(evaluations).axes[0]
    assert ax.get_xlabel() == "tokens"
    assert sum(ax.patches[0].get_data().values) == pytest.approx(100)
    mixed = {**evaluations, "random": evaluation("random", (1, 1, 1, 1), tokens=())}
    assert plot_lengths(mixed).axes[0].get_xlabel() == "characters"


def test_learning_curves_are_what_was_logged(tmp_path):
    rows = {
        0: {"validation/pass@1": 0.1, "validation/greedy": 0.15},
        1: {"train/pass@1": 0.2, "train/kl": 0.1, "train/fault/syntax": 0.3, "train/fault/memory": 0.0},
        2: {"validation/pass@1": 0.3, "train/pass@1": 0.25, "train/kl": 0.2, "train/fault/syntax": 0.1,
            "train/fault/memory": 0.0, "train/trick/identity": 0.4},
    }  # fmt: skip
    figure = plot_learning(logged(tmp_path, rows))
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert len(titles) == 3  # solved, KL, faults
    curve = figure.axes[0].get_lines()[0]
    assert curve.get_xdata().tolist() == [0, 2]
    assert curve.get_ydata().tolist() == pytest.approx([10, 30])
    faults = figure.axes[2]
    assert [text.get_text() for text in faults.get_legend().get_texts()] == ["identity", "syntax"]  # the worst first


def test_a_run_without_metrics_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no metrics of PPO"):
        plot_learning(logged(tmp_path, {1: {"train/loss": 1.0}}))


@pytest.mark.parametrize("plot", [plot_before_after, plot_levels, plot_endings, plot_lengths])
def test_nothing_to_draw_is_refused(plot):
    with pytest.raises(ValueError, match="at least one"):
        plot({})


def test_bars_and_lines_differ_in_grey():
    """In hatching or dashes, or by a fifth of the way from black to white."""

    def grey(colour):
        return np.dot(to_rgb(colour), (0.299, 0.587, 0.114))

    looks = [(look.get("hatch"), grey(look["facecolor"])) for look in BARS]
    for at, (hatch, shade) in enumerate(looks):
        assert all(hatch != other or abs(shade - tone) > 0.2 for other, tone in looks[:at])
    assert len({str(look["linestyle"]) for look in LINES}) == len({look["marker"] for look in LINES}) == len(LINES)
