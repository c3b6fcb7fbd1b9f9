"""Figures of the beta-VAE's numbers: the values they hold, and that pyplot holds no figure afterwards."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas  # noqa: E402
import pytest  # noqa: E402

from utils.arc.grids import to_canvas  # noqa: E402
from utils.core import jsonl  # noqa: E402
from utils.core.config import Config  # noqa: E402
from utils.core.run import Run  # noqa: E402
from utils.vae.config import VAEConfig  # noqa: E402
from utils.vae.data import GridSplit  # noqa: E402
from utils.vae.plots import plot_bits, plot_history, plot_kl, plot_rate_distortion  # noqa: E402
from utils.vae.tables import bits_by_task  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path, "name", Config())


def title(ax):
    return ax.get_title(loc="left")


def test_history_draws_the_shares_that_were_logged_in_percent_and_beta_on_a_twin_axis(run):
    for step in (1, 2):
        record = {"train/kl": 10.0 * step, "train/beta": 0.1 * step, "train/exact": 0.25 * step}
        jsonl.append(run.metrics_file, {"step": step, **record})
    jsonl.append(run.metrics_file, {"step": 2, "validation/exact": 0.4, "validation/foreground": 0.3})
    shares, nats, twin = plot_history(run).axes
    drawn = {line.get_label(): line.get_ydata().tolist() for line in shares.get_lines()}
    assert drawn == {
        "validation foreground": [30.0],
        "train exact grids": [25.0, 50.0],
        "validation exact grids": [40.0],
    }
    assert [line.get_ydata().tolist() for line in nats.get_lines()] == [[10.0, 20.0]]
    assert [line.get_ydata().tolist() for line in twin.get_lines()] == [[0.1, 0.2]]


def test_a_run_without_metrics_has_no_history(run):
    with pytest.raises(ValueError, match="train it first"):
        plot_history(run)


def test_kl_is_sorted_and_its_map_summed_over_channels():
    config = VAEConfig(channels=2, overall=1, colours=1)  # 2 + 2 * 64 dimensions
    kl = np.zeros(130)
    kl[:2] = 3.0, 1.0
    kl[2 + 9], kl[2 + 64 + 9] = 0.5, 0.25  # both channels at row 1, column 1
    curve, places = plot_kl(kl, config).axes
    (line,) = [line for line in curve.get_lines() if len(line.get_xdata()) > 100]
    assert line.get_ydata()[:5].tolist() == [3.0, 1.0, 0.5, 0.25, 0.0]
    assert title(curve) == "4 of 130 dimensions active\nnats: overall 3.0, colours 1.0, map 0.8"
    (heat,) = places.get_images()
    assert heat.get_array().shape == (8, 8)
    assert heat.get_array()[1, 1] == 0.75
    assert heat.get_array().sum() == 0.75


def test_kl_of_the_dense_architecture_has_no_map_and_that_of_another_model_is_refused():
    config = VAEConfig(architecture="dense", latents=5)
    assert len(plot_kl([0.1] * 5, config).axes) == 1
    with pytest.raises(ValueError, match=r"this model has \(5,\)"):
        plot_kl([0.1] * 6, config)


def test_rate_and_distortion_are_points_in_order_of_rate():
    table = pandas.DataFrame({"beta": [0.05, 1.0], "kl": [150.0, 40.0], "nll": [42.0, 118.0], "exact": [0.3, 0.0]})
    (ax,) = plot_rate_distortion(table).axes
    assert ax.get_lines()[0].get_xydata().tolist() == [[40.0, 118.0], [150.0, 42.0]]
    assert [text.get_text() for text in ax.texts] == ["beta 1, 0% exact", "beta 0.05, 30% exact"]
    assert ax.get_xscale() == "linear"
    (ax,) = plot_rate_distortion(table.assign(kl=[4000.0, 40.0])).axes  # as without a KL term
    assert ax.get_xscale() == "log"
    with pytest.raises(ValueError, match="without nll"):
        plot_rate_distortion(table.drop(columns="nll"))


def test_bits_of_each_task_are_stacked_with_its_costliest_grid_below():
    grids = np.stack([to_canvas(np.full((2, 2), colour)) for colour in range(3)])
    size = np.full(3, 2, np.uint8)
    split = GridSplit(grids, size, size, np.array(["a", "b", "b"]), np.full(3, "real"))
    nats = np.log(2) * 4  # of four cells: one bit a cell
    evaluated = pandas.DataFrame(
        {"row": [0, 1, 2], "task_id": split.task_ids, "inside": 4, "kl": [nats, nats, 3 * nats], "nll": [0, nats, nats]}
    )
    table = bits_by_task(evaluated.assign(bits_per_cell=(evaluated["kl"] + evaluated["nll"]) / nats))
    assert table["task_id"].tolist() == ["b", "a"]
    for name, expected in {"kl_bits": [2, 1], "nll_bits": [1, 0], "bits_per_cell": [3, 1], "row": [2, 0]}.items():
        assert table[name].tolist() == pytest.approx(expected)
    figure = plot_bits(table, split)
    bars = next(ax for ax in figure.axes if title(ax))
    assert [patch.get_height() for patch in bars.patches] == pytest.approx([2, 1, 1, 0])
    assert len({patch.get_hatch() for patch in bars.patches}) == 2  # told apart without colour
    assert len(figure.axes) == 3
    assert len(plot_bits(table).axes) == 1
    with pytest.raises(ValueError, match="No task to draw"):
        plot_bits(table[:0])
