"""Samples are described by counts that can be made by hand, and samplers are kept with the run."""

import numpy as np
import pytest
import torch

from utils.arc.grids import canonical_keys, sizes, to_canvas
from utils.vae.samples import described, draw_samples
from utils.vae.sampling import samplers_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_four_canvases_are_described_as_counted_by_hand():
    striped = to_canvas(np.array([[1, 1, 1], [2, 2, 2]]))  # 6 cells, 7 pairs of neighbours, 3 of which differ
    plain = to_canvas(np.array([[3, 3]]))  # 2 cells, 1 pair
    broken = np.full((30, 30), 10, np.uint8)
    broken[5, 5] = 1  # no grid: away from the corner; no pair
    canvases = torch.from_numpy(np.stack([striped, striped, plain, broken]))
    known = to_canvas(np.array([[7, 5], [7, 5], [7, 5]]))[None]  # the stripes upright, in other colours
    found = described(canvases, np.array([0, 3, 1, 2]), set(canonical_keys(known, *sizes(known))))
    assert found["valid"] == 0.75
    assert found["distinct"] == 0.75
    assert found["copies"] == 0.25
    assert found["copies_turned"] == 0.5
    assert found["nearest"] == 0.5  # the median of 0 / 6, 3 / 6, 1 / 2 and 2 / 1
    assert found["colours"] == (2 + 2 + 1 + 1) / 4
    assert found["one_colour"] == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)
    assert found["changes"] == pytest.approx(6 / 15)


def test_every_sampler_is_judged_beside_real_grids(vae_trained):
    data = vae_trained.data()
    samplers = samplers_of(vae_trained.run, vae_trained.step, vae_trained.model, data, vae_trained.recipe.sampler)
    assert list(samplers) == ["autoregressive", "normal", "gaussian", "mixture"]  # the recipe's first
    samples = draw_samples(vae_trained.model, samplers, data, n=3)
    assert list(samples.table["sampler"]) == [*samples.canvases, "real validation grids"]
    assert len(samples.canvases) == 4 * 2
    assert (samples.table["valid"] == 1).all()  # by construction
    assert (samples.table["copies_turned"] >= samples.table["copies"]).all()
    assert samples.table["copies_turned"].iloc[-1] == 0  # no canonical grid is in two splits
    again = draw_samples(vae_trained.model, samplers, data, n=3)
    assert all(torch.equal(samples.canvases[name], again.canvases[name]) for name in again.canvases)
