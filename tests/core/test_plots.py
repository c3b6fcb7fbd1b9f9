"""Plots: the lines they hold, and that pyplot holds no figure afterwards."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402

from utils.core import jsonl  # noqa: E402
from utils.core.config import Config  # noqa: E402
from utils.core.plots import ARC_COLOURS, canvas, plot_curves, plot_grid, plot_grids, plot_metrics  # noqa: E402
from utils.core.run import Run  # noqa: E402


class Tasked(Config):
    task: str | None = None


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


@pytest.mark.parametrize(
    ("task", "rate", "accuracy", "one"),
    [
        ("classifier", "rows", "Accuracy", "row"),
        ("classifier", "tokens", "Accuracy", "row"),  # as runs were once logged
        ("masked_lm", "tokens", "Masked-token accuracy", "token"),
        ("causal_lm", "tokens", "Next-token accuracy", "token"),
        (None, "tokens", "Accuracy", "token"),
        (None, "rows", "Accuracy", "row"),
    ],
)
def test_panels_are_titled_by_what_a_target_of_the_task_is(task, rate, accuracy, one, tmp_path):
    run = Run.create(tmp_path, "name", Tasked(task=task))
    jsonl.append(run.metrics_file, {"step": 1, "train/loss": 1.0, "train/accuracy": 0.5, f"train/{rate}_per_second": 9})
    titles = {ax.get_title(loc="left"): ax.get_ylabel() for ax in plot_metrics(run).axes if ax.get_title(loc="left")}
    assert titles == {"Loss": f"nats per {one}", accuracy: f"share of {one}s", "Throughput": f"{one}s per second"}


def test_axes_that_are_given_are_drawn_on(run):
    with canvas() as ax:
        assert plot_curves(run.metrics(), ["train/loss", "absent"], ax) is ax.figure
    assert len(ax.get_lines()) == 1


def test_a_run_without_metrics_says_so_and_a_failed_plot_leaves_nothing_open(tmp_path):
    with pytest.raises(ValueError, match="no metrics to draw yet"):
        plot_metrics(Run.create(tmp_path, "name", Config()))
    with pytest.raises(ZeroDivisionError), canvas():
        raise ZeroDivisionError


def drawn(figure, ax, row, column):
    """The RGB colours (0 to 255) found in the middle of a cell, as drawn."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    corners = [(column + 0.3, row + 0.3), (column + 0.7, row + 0.7)]
    (left, top), (right, bottom) = ax.transData.transform(corners).round().astype(int)
    middle = pixels[len(pixels) - top : len(pixels) - bottom, left:right, :3]  # rows count from the top
    return set(map(tuple, middle.reshape(-1, 3).tolist()))


def test_a_grid_is_drawn_cell_by_cell_in_the_arc_palette_from_the_top_left():
    grid = np.arange(10).reshape(2, 5)
    figure = plot_grid(grid)
    (ax,) = figure.axes
    for (row, column), colour in np.ndenumerate(grid):
        expected = tuple(round(255 * part) for part in to_rgb(ARC_COLOURS[colour]))
        assert drawn(figure, ax, row, column) == {expected}
    assert len(set(ARC_COLOURS)) == 10


def test_cells_outside_the_grid_are_hatched_and_so_have_more_than_one_colour():
    canvas_ = np.full((8, 8), 10)
    canvas_[:2, :3] = 0
    figure = plot_grid(canvas_)
    (ax,) = figure.axes
    assert drawn(figure, ax, 0, 0) == {(0, 0, 0)}
    outside = set().union(*(drawn(figure, ax, row, column) for row in range(2, 8) for column in range(3, 8)))
    assert len(outside) > 1
    assert (0, 0, 0) not in outside


def test_digits_tell_the_colours_apart_without_colour():
    (ax,) = plot_grid(np.array([[1, 2], [3, 10]]), digits=True).axes
    assert [text.get_text() for text in ax.texts] == ["1", "2", "3"]


def test_several_grids_have_a_panel_each_with_its_title():
    grids = [np.full((2, 2), colour) for colour in range(5)]
    figure = plot_grids(grids, ["a", "b"], columns=3)
    assert [ax.axison for ax in figure.axes] == [True] * 5 + [False]
    assert [ax.get_title(loc="left") for ax in figure.axes[:3]] == ["a", "b", ""]
    with canvas() as ax:
        assert plot_grid(grids[0], ax) is ax.figure


@pytest.mark.parametrize("grid", [np.zeros(3, int), np.zeros((0, 2), int), np.array([[11]]), np.array([[-1]])])
def test_what_is_no_grid_is_not_drawn(grid):
    with pytest.raises(ValueError, match=r"expected a grid .h, w. of colours 0 to 9, and 10 outside it"):
        plot_grid(grid)
    with pytest.raises(ValueError, match="No grids to draw"):
        plot_grids([])
