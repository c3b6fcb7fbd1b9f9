"""Figures of latents: their panels and labels, points in the plane, and that pyplot holds no figure afterwards."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from utils.arc.grids import to_canvas  # noqa: E402
from utils.vae.config import VAEConfig, readable  # noqa: E402
from utils.vae.data import GridSplit  # noqa: E402
from utils.vae.embedding import embed, neighbours, principal  # noqa: E402
from utils.vae.explore import traverse  # noqa: E402
from utils.vae.latent_plots import plot_embedding, plot_interpolation, plot_palette, plot_traversals  # noqa: E402
from utils.vae.model import BetaVAE  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert plt.get_fignums() == []


def model_of(architecture="palette"):
    torch.manual_seed(0)
    sizes = {"channels": 1, "overall": 3, "colours": 4, "latents": 5, "widths": (8, 8), "blocks": (0, 0)}
    return BetaVAE(VAEConfig(**readable({"architecture": architecture, **sizes}))).eval()


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    grids = np.stack([to_canvas(rng.integers(10, size=rng.integers(2, 7, 2))) for _ in range(24)])
    inside = grids != 10
    heights, widths = inside[:, :, 0].sum(1).astype(np.uint8), inside[:, 0].sum(1).astype(np.uint8)
    return GridSplit(grids, heights, widths, np.array([f"t{row // 2}" for row in range(24)]), np.full(24, "real"))


def test_a_traversal_has_a_line_a_dimension_and_says_its_nats(split):
    figure = plot_traversals(model_of(), split, 1, count=2, steps=3)
    panels = np.array(figure.axes).reshape(2, 5)
    assert [ax.get_title(loc="left") for ax in panels[0]] == ["the grid", "decoded", "-3", "0", "+3"]
    assert all(ax.get_ylabel().endswith(" nats") for ax in panels[:, 1])
    assert [ax.axison for ax in panels[:, 0]] == [True, False]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes if ax.axison}) == 1  # one scale


def test_lines_of_other_values_have_headings_of_their_own(split):
    model = model_of()
    dimensions = traverse(model, split.grids[1], count=3).dimensions
    encode = model.encode

    def pushed(grids):
        mu, logvar = encode(grids)
        mu[:, dimensions] = torch.tensor([0.0, 1.0, 5.0])
        return mu, logvar

    model.encode = pushed
    moved = np.array(plot_traversals(model, split, 1, count=3, steps=3).axes).reshape(3, 5)
    titles = {tuple(ax.get_title(loc="left") for ax in line[2:]) for line in moved}
    assert titles <= {("-3", "0", "+3"), ("-3", "+1", "+5"), ("", "", "")}
    assert ("-3", "+1", "+5") in titles


def test_the_palette_moves_in_the_palette_architecture_alone(split):
    panels = np.array(plot_palette(model_of(), split, 0, others=[1, 2, 3], count=2).axes).reshape(3, 9)
    assert panels[0, 1].get_ylabel() == "palettes of\nother grids"
    assert [ax.axison for ax in panels[0]] == [True] * 5 + [False] * 4
    assert all(ax.get_ylabel().startswith("colours ") for ax in panels[1:, 1])
    assert len(plot_palette(model_of(), split).axes) == 9 * 4
    with pytest.raises(ValueError, match="no palette to move"):
        plot_palette(model_of("spatial"), split)


def test_an_interpolation_stands_between_its_grids(split):
    figure = plot_interpolation(model_of("dense"), split.grids[0], np.array([[1, 2]]), steps=3)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a", "0%", "50%", "100%", "b"]


def test_principal_components_are_those_of_the_covariance():
    points = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([5, 3, 1, 1, 1, 0.5])
    found, shares = principal(points, 2)
    values = torch.linalg.eigvalsh(points.double().T.cov()).flip(0)
    assert found.var(0, ddof=1) == pytest.approx(values[:2].numpy())
    assert shares == pytest.approx((values[:2] / values.sum()).numpy())
    with pytest.raises(ValueError, match="at least 3"):
        principal(points[:2], 2)


def test_grids_are_put_in_the_plane_with_their_task_and_properties(split):
    points = embed(model_of(), split, grids=20)
    assert points.groupby("method").size().to_dict() == {"PCA": 20, "t-SNE": 20}
    assert np.isfinite(points[["x", "y"]].to_numpy()).all()
    few = points[points["method"] == "PCA"]
    assert (few["height"].iloc[0], few["height"].iloc[-1]) == (split.heights[0], split.heights[-1])
    again = embed(model_of(), split, grids=20)
    assert (again == points).all(axis=None)
    with pytest.raises(ValueError, match="expected some of PCA, t-SNE"):
        embed(model_of(), split, methods=["UMAP"])


def test_equal_latents_and_a_single_one_have_their_place_in_the_plane():
    assert (neighbours(torch.ones(5, 4)) == 0).all()
    assert neighbours(torch.tensor([[0.0], [1.0], [5.0]])).shape == (3, 2)


def test_every_method_and_property_has_a_panel_with_all_points(split):
    points = embed(model_of(), split, methods=["PCA"])
    figure = plot_embedding(points, by=["task_id", "width", "background", "symmetric"])
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in panels] == [
        "PCA: task", "PCA: width", "PCA: background colour", "PCA: symmetric",
    ]  # fmt: skip
    drawn = [sum(len(part.get_offsets()) for part in ax.collections) for ax in panels]
    assert drawn == [24 + 8 * 2, 24, 24, 24]  # eight tasks of two grids stand out from the grey points
    with pytest.raises(ValueError, match="without nonsense"):
        plot_embedding(points, by=["nonsense"])
