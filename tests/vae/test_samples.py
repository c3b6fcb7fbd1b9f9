"""Samples are described by counts that can be made by hand, and samplers are kept with the run."""

import numpy as np
import pytest
import torch

from utils.arc.grids import to_canvas
from utils.vae.samples import described, draw_samples, sampler_of, samplers_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_four_canvases_are_described_as_counted_by_hand():
    striped = to_canvas(np.array([[1, 1, 1], [2, 2, 2]]))  # 6 cells, 7 pairs of neighbours, 3 of which differ
    plain = to_canvas(np.array([[3, 3]]))  # 2 cells, 1 pair
    broken = np.full((30, 30), 10, np.uint8)
    broken[5, 5] = 1  # no grid: away from the corner; no pair
    found = described(torch.from_numpy(np.stack([striped, striped, plain, broken])), np.array([0, 3, 1, 2]))
    assert found["valid"] == 0.75
    assert found["distinct"] == 0.75
    assert found["copies"] == 0.25
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
    again = draw_samples(vae_trained.model, samplers, data, n=3)
    assert all(torch.equal(samples.canvases[name], again.canvases[name]) for name in again.canvases)


@pytest.mark.parametrize("kind", ["normal", "gaussian", "mixture", "autoregressive"])
def test_a_kept_sampler_draws_what_it_drew(kind, vae_trained, monkeypatch):
    config, data = vae_trained.recipe.sampler.replace(kind=kind, seed=7), vae_trained.data()
    arguments = vae_trained.run, vae_trained.step, vae_trained.model, data, config
    first = sampler_of(*arguments)
    monkeypatch.setattr("utils.vae.samples.fit_sampler", None)  # it is not fitted again
    kept = sampler_of(*arguments)
    drawn = [one.draw(5, generator=torch.Generator().manual_seed(0)) for one in (first, kept)]
    assert torch.equal(*drawn)
