"""Completion leaves what is seen, never reads what is hidden, and finds what the seen cells imply."""

import numpy as np
import pytest
import torch

from utils.arc.grids import to_canvas
from utils.vae.completion import complete, hide_middle
from utils.vae.config import VAEConfig, readable
from utils.vae.model import BetaVAE


def model_of(architecture="palette"):
    torch.manual_seed(0)
    sizes = {"channels": 1, "overall": 3, "colours": 4, "latents": 5, "widths": (8, 8), "blocks": (1, 1)}
    return BetaVAE(VAEConfig(**readable({"architecture": architecture, **sizes}))).eval()


def grid_and_mask():
    grid = np.random.default_rng(0).integers(10, size=(6, 9))
    return grid, hide_middle(grid)[:6, :9]


def test_the_middle_is_hidden():
    _, mask = grid_and_mask()
    assert np.argwhere(mask).min(0).tolist() == [2, 2]  # 0.4 of 6 and 9 cells: 2 and 4, in the middle
    assert mask.sum() == 8
    assert hide_middle(np.array([[3]])).sum() == 1


@pytest.mark.parametrize("architecture", ["palette", "spatial", "dense"])
def test_cells_that_are_seen_stay_and_hidden_ones_are_never_read(architecture):
    model, (grid, mask) = model_of(architecture), grid_and_mask()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = complete(model, grid, mask, steps=3)
    assert (found.completed[:6, :9][~mask] == grid[~mask]).all()
    assert (found.hidden == to_canvas(mask.astype(int)) * (found.true != 10)).all()
    assert (np.isfinite(found.confidence) == found.hidden).all()
    other = np.where(mask, (grid + 1) % 10, grid)
    assert (complete(model, other, mask, steps=3).completed == found.completed).all()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_search_makes_what_is_seen_likelier():
    model, (grid, mask) = model_of("dense"), grid_and_mask()
    grid[:] = 7
    before, after = (complete(model, grid, mask, steps=steps).confidence[2:4, 2:6].mean() for steps in (1, 60))
    assert after > before  # all that is seen is 7, so the hidden cells become surer to be


def test_a_mask_that_hides_nothing_or_all_or_does_not_fit_is_refused():
    model, (grid, mask) = model_of(), grid_and_mask()
    with pytest.raises(ValueError, match="0 cells are hidden and 54 seen"):
        complete(model, grid, np.zeros_like(mask))
    with pytest.raises(ValueError, match="54 cells are hidden and 0 seen"):
        complete(model, grid, np.ones_like(mask))
    with pytest.raises(ValueError, match="same shape"):
        complete(model, grid, mask[:3])
