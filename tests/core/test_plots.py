"""Plots: the lines they hold, and that pyplot holds no figure afterwards."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
import pytest  # noqa: E402

from utils.core import jsonl  # noqa: E402
from utils.core.config import Config  # noqa: E402
from utils.core.plots import canvas, plot_curves, plot_metrics  # noqa: E402
from utils.core.run import Run  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path, "name", Config())
    for step in range(1, 5):
        record = {"step": step, "train/loss": 5.0 - step, "train/grad_norm": 1.0, "train/lr": 0.1}
        jsonl.append(run.metrics_file, record)
    jsonl.append(run.metrics_file, {"step": 4, "validation/loss": 2.0})
    return run


def test_each_metric_that_was_logged_is_a_line_of_its_panel(run):
    figure = plot_metrics(run)
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes if ax.get_title(loc="left")}
    assert list(panels) == ["Loss", "Learning rate", "Gradient norm before clipping"]
    train, validation = panels["Loss"].get_lines()
    assert (train.get_xdata().tolist(), train.get_ydata().tolist()) == ([1, 2, 3, 4], [4, 3, 2, 1])
    assert (validation.get_xdata().tolist(), validation.get_ydata().tolist()) == ([4], [2])
    assert [text.get_text() for text in panels["Loss"].get_legend().get_texts()] == ["train loss", "validation loss"]
    assert panels["Gradient norm before clipping"].get_yscale() == "log"
    assert panels["Learning rate"].get_legend() is None
    assert run.save_figure(figure, "metrics").read_bytes().startswith(b"\x89PNG")


def test_axes_that_are_given_are_drawn_on(run):
    with canvas() as ax:
        assert plot_curves(run.metrics(), ["train/loss", "absent"], ax) is ax.figure
    assert len(ax.get_lines()) == 1


def test_a_run_without_metrics_says_so_and_a_failed_plot_leaves_nothing_open(tmp_path):
    with pytest.raises(ValueError, match="no metrics to draw yet"):
        plot_metrics(Run.create(tmp_path, "name", Config()))
    with pytest.raises(ZeroDivisionError), canvas():
        raise ZeroDivisionError
