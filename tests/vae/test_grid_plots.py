"""Figures of grids: what each panel holds, marks that need no colour, and that pyplot holds no figure afterwards."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from utils.arc.grids import to_canvas  # noqa: E402
from utils.vae.completion import complete  # noqa: E402
from utils.vae.config import VAEConfig  # noqa: E402
from utils.vae.data import GridSplit  # noqa: E402
from utils.vae.explore import reconstructions  # noqa: E402
from utils.vae.grid_plots import plot_completion, plot_reconstructions, plot_samples  # noqa: E402
from utils.vae.model import BetaVAE  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def model():
    torch.manual_seed(0)
    return BetaVAE(VAEConfig(channels=1, overall=3, colours=4, widths=(8, 8), blocks=(0, 0))).eval()


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    grids = np.stack([to_canvas(rng.integers(10, size=(4, 5))) for _ in range(12)])
    height, width = np.full(12, 4, np.uint8), np.full(12, 5, np.uint8)
    return GridSplit(grids, height, width, np.arange(12).astype(str), np.full(12, "real"))


def crosses(ax):
    return [point for collection in ax.collections for point in collection.get_offsets().tolist() if point != [0, 0]]


def test_every_wrong_cell_has_a_cross(model, split):
    found = reconstructions(model, split.grids[[3, 5]])
    figure = plot_reconstructions(model, split, [3, 5])
    panels = np.array(figure.axes[:8]).reshape(4, 2)
    for column in range(2):
        expected = [[c + 0.5, r + 0.5] for r, c in np.argwhere(found.wrong[column])]
        assert crosses(panels[2, column]) == expected
        assert panels[0, column].get_title(loc="left") == f"{len(expected)} wrong"
    assert [ax.get_ylabel() for ax in panels[:, 0]] == ["input", "reconstruction", "wrong cells", "confidence"]


def test_a_single_grid_has_its_panels_abreast_and_a_scale_beside_them(model, split):
    figure = plot_reconstructions(model, split, [3])
    wrong = int(reconstructions(model, split.grids[[3]]).wrong.sum())
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["input", "reconstruction", f"wrong cells: {wrong} wrong", "confidence", ""]


def test_groups_stand_below_one_another_ten_abreast(model, split):
    figure = plot_reconstructions(model, split, {"worst": range(11), "best": [2]})
    assert len(figure.axes) == 4 * 3 * 10 + 1  # ten worst, the eleventh, one best; and the scale of confidence
    named = [ax.get_ylabel().split("\n")[0] for ax in figure.axes if ax.get_ylabel().endswith("\ninput")]
    assert named == ["worst", "worst", "best"]
    with pytest.raises(ValueError, match="No rows to draw"):
        plot_reconstructions(model, split, [])


def test_samples_that_are_no_grid_are_crossed_out_and_counted(split):
    canvases = torch.from_numpy(split.grids[:4].copy())
    canvases[1, 1, 1] = 10  # a hole
    figure = plot_samples({"prior": canvases, "mixture": canvases[:1]}, {"prior": np.array([0, 7, 8, 9])})
    panels = np.array(figure.axes).reshape(2, 4)
    titles = [ax.get_title(loc="left") for ax in panels.flat]
    assert titles == ["4x5, 0 away", "not valid, 7 away", "4x5, 8 away", "4x5, 9 away", "4x5", "", "", ""]
    assert [len(ax.get_lines()) for ax in panels[0]] == [0, 4, 0, 0]  # a cross: two lines, each on a white one
    assert panels[0, 0].get_ylabel() == "prior\n75% of 4 valid"
    assert [ax.axison for ax in panels[1]] == [True, False, False, False]
    with pytest.raises(ValueError, match="No samples to draw"):
        plot_samples({})


def test_hidden_cells_are_hatched_and_wrong_ones_crossed(model, split):
    mask = np.zeros((30, 30), bool)
    mask[1:3, 1:3] = True
    given, completed, confidence, wrong, _ = plot_completion(complete(model, split.grids[0], mask, steps=2)).axes
    assert sum(bool(patch.get_hatch()) for patch in given.patches) == 4
    assert wrong.get_title(loc="left") == f"{len(crosses(wrong))} of 4 hidden cells wrong"
    assert set(map(tuple, crosses(wrong))) <= {(1.5, 1.5), (1.5, 2.5), (2.5, 1.5), (2.5, 2.5)}
    assert np.isfinite(confidence.get_images()[-1].get_array().filled(np.nan)).sum() == 4
