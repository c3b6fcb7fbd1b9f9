"""What is decoded from moved latents, read from a field, and listed in tables, against what the model itself says."""

import numpy as np
import pytest
import torch

from utils.arc.grids import GridError, to_canvas
from utils.vae.config import VAEConfig, readable
from utils.vae.explore import (
    as_canvas,
    dimension_label,
    interpolate,
    parse_grid,
    reconstructions,
    repaint,
    traverse,
)
from utils.vae.model import BetaVAE, gaussian_kl

SMALL = {"channels": 1, "overall": 3, "colours": 4, "latents": 5, "widths": (8, 8), "blocks": (1, 1)}


def model_of(architecture="palette"):
    torch.manual_seed(0)
    model = BetaVAE(VAEConfig(**readable({"architecture": architecture, **SMALL}))).eval()
    for parameter in model.parameters():  # large weights, so that what is decoded depends on z
        parameter.data *= 2
    return model


def canvases(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([to_canvas(rng.integers(10, size=rng.integers(2, 12, 2))) for _ in range(count)])


@pytest.mark.parametrize("architecture", ["palette", "spatial", "dense"])
def test_confidence_is_the_probability_of_the_colour_chosen_and_nothing_outside(architecture):
    model, grids = model_of(architecture), canvases(4)
    found = reconstructions(model, grids)
    batch = {"grids": torch.from_numpy(grids)}
    assert (found.predicted == model.reconstruct(batch).numpy()).all()
    assert (np.isnan(found.confidence) == (found.predicted == 10)).all()
    inside = found.predicted != 10
    assert (found.confidence[inside] > 0).all()
    assert (found.confidence[inside] <= 1 + 1e-6).all()
    assert (found.wrong == (found.predicted != grids)).all()


def test_a_traversal_moves_the_dimensions_with_most_kl_from_minus_three_to_three_or_itself_and_no_other():
    model, (grid,) = model_of(), canvases(1)
    moved = traverse(model, grid, count=3, steps=5)
    with torch.no_grad():
        mu, logvar = model.encode(torch.from_numpy(grid)[None])
    kl = gaussian_kl(mu, logvar)[0]
    assert moved.dimensions == kl.argsort(descending=True)[:3].tolist()
    assert moved.nats == pytest.approx(kl[moved.dimensions].detach().numpy())
    for own, at, values in zip(moved.own.tolist(), moved.dimensions, moved.values):
        assert own == mu[0, at]
        assert values == pytest.approx(np.linspace(min(-3, own), max(3, own), 5))
    z = mu.clone()
    z[0, moved.dimensions[1]] = moved.values[1, 1].item()
    assert (moved.canvases[1, 1] == model.decode(z).mode[0].numpy()).all()
    assert (moved.unmoved == model.decode(mu).mode[0].numpy()).all()


def test_a_latent_beyond_three_is_an_end_of_its_own_line_and_of_no_other():
    model, (grid,) = model_of(), canvases(1)
    dimensions = traverse(model, grid, count=3).dimensions
    encode = model.encode

    def pushed(grids):  # the first beyond 3, the second beyond -3, the third between
        mu, logvar = encode(grids)
        mu[:, dimensions] = torch.tensor([5.0, -4.0, 2.0])
        return mu, logvar

    model.encode = pushed
    moved = traverse(model, grid, dimensions=dimensions, steps=3)
    assert moved.own.tolist() == [5, -4, 2]
    assert moved.values.tolist() == [[-3, 1, 5], [-4, -0.5, 3], [-3, 0, 3]]
    assert (moved.canvases[0, 2] == moved.unmoved).all()
    assert (moved.canvases[1, 0] == moved.unmoved).all()


def test_a_group_limits_what_is_traversed_and_labels_name_the_place():
    model, (grid,) = model_of(), canvases(1)
    moved = traverse(model, grid, group="colours", count=9)
    assert sorted(moved.dimensions) == [3, 4, 5, 6]  # after 3 of the whole grid
    config = model.config
    assert dimension_label(config, 0) == "overall 0"
    assert dimension_label(config, 4) == "colours 1"
    assert dimension_label(config.replace(channels=2), 7 + 64 + 8 + 5) == "map 1 at (1, 5)"
    with pytest.raises(ValueError, match="latents are 0 to 70"):
        dimension_label(config, 71)


def test_other_palettes_change_colours_and_leave_which_cells_are_alike():
    model, grids = model_of(), canvases(6)
    own = reconstructions(model, grids[:1]).predicted[0]
    painted = repaint(model, grids[0], grids)
    assert (painted[0] == own).all()
    for other in painted:
        pairs = set(zip(own.ravel().tolist(), other.ravel().tolist()))  # a renaming: one to one
        assert len(pairs) == len(np.unique(own)) == len(np.unique(other))
        assert (10, 10) in pairs
    assert len({other.tobytes() for other in painted}) > 1


@pytest.mark.parametrize("architecture", ["spatial", "dense"])
def test_without_a_palette_there_is_none_to_move(architecture):
    grids = canvases(2)
    with pytest.raises(ValueError, match=f"architecture is {architecture}"):
        repaint(model_of(architecture), grids[0], grids)


def test_an_interpolation_ends_at_the_two_reconstructions():
    model, grids = model_of(), canvases(2)
    between = interpolate(model, grids[0], grids[1], 5)
    assert between.shape == (5, 30, 30)
    ends = reconstructions(model, grids).predicted
    assert (between[[0, -1]] == ends).all()


@pytest.mark.parametrize(
    "text",
    ["012 345", "012,345", "012\n345\n", " 0 1 2 / 3 4 5 ", "0,1,2;3,4,5", "0 1 2\r\n3 4 5", "[[0, 1, 2], [3, 4, 5]]"],
)
def test_rows_of_digits_spell_a_grid(text):
    assert parse_grid(text).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_one_row_with_spaces_is_ended_by_a_slash():
    assert parse_grid("0 1 2 /").tolist() == [[0, 1, 2]]
    assert parse_grid("0 1 2").tolist() == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (" ", "nothing was typed"),
        (" / ", "nothing was typed"),
        ("012 34", "row 1 has 2 cells and row 0 has 3"),
        ("012 3x5", "'x' at row 1, column 1"),
        ("0²", "'²' at row 0, column 1"),
        ("[[0, 1], [2", "no list of rows"),
        ("[[0, 11]]", "colour 11 at row 0, column 1"),
        ("1" * 31, "1x31"),
    ],
)
def test_what_spells_no_grid_is_refused_by_place(text, fault):
    with pytest.raises(GridError, match=fault.replace("[", r"\[")):
        parse_grid(text)


def test_a_grid_becomes_a_canvas_and_a_canvas_stays_one():
    grid = np.array([[1, 2]])
    assert (as_canvas(as_canvas(grid)) == to_canvas(grid)).all()
    with pytest.raises(GridError):
        as_canvas(np.full((30, 30), 10))
