"""Samplers are fitted by their seed alone, draw nothing but grids, and are kept with the run."""

import pytest
import torch

from utils.arc.grids import from_canvas
from utils.core.config import ConfigError
from utils.vae.config import VAEConfig
from utils.vae.model import BetaVAE
from utils.vae.sampler import SamplerConfig
from utils.vae.sampling import draw_grids, fit_sampler, posteriors, sampler_of

KINDS = ("normal", "gaussian", "mixture", "autoregressive")
pytestmark = pytest.mark.usefixtures("one_thread")


def config(kind, **changes):
    return SamplerConfig(
        **{"kind": kind, "components": 3, "steps": 5, "width": 8, "layers": 1, "batch_size": 8} | changes
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_draw_is_a_grid_and_a_function_of_the_generator(small_vae, any_grids, kind):
    sampler = fit_sampler(config(kind), small_vae, any_grids)
    first, again, other = (draw_grids(small_vae, sampler, 12, generator=generator(seed)) for seed in (0, 0, 1))
    for canvas in first:
        from_canvas(canvas.numpy())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_is_a_function_of_its_seed_and_leaves_the_random_state_alone(small_vae, any_grids, kind):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same = (fit_sampler(config(kind), small_vae, any_grids).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.keys() == same.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_dense_latents_have_no_map_to_go_through(any_grids):
    model = BetaVAE(VAEConfig(architecture="dense", latents=4)).eval()
    with pytest.raises(ConfigError, match="kind: mixture"):
        fit_sampler(config("autoregressive"), model, any_grids)
    assert draw_grids(model, fit_sampler(config("mixture"), model, any_grids), 3).shape == (3, 30, 30)


def test_posteriors_are_those_of_the_model_with_the_sizes_of_the_grids(small_vae, any_grids):
    mu, logvar, heights, widths = posteriors(small_vae, any_grids, batch_size=7)
    with torch.no_grad():
        expected = small_vae.encode(torch.from_numpy(any_grids.grids))
    torch.testing.assert_close((mu, logvar), expected)
    assert heights.tolist() == any_grids.heights.tolist()
    assert widths.tolist() == any_grids.widths.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kept_sampler_draws_what_it_drew(kind, vae_trained, monkeypatch):
    config, data = vae_trained.recipe.sampler.replace(kind=kind, seed=7), vae_trained.data()
    arguments = vae_trained.run, vae_trained.step, vae_trained.model, data, config
    first = sampler_of(*arguments)
    monkeypatch.setattr("utils.vae.sampling.fit_sampler", None)  # it is not fitted again
    kept = sampler_of(*arguments)
    drawn = [one.draw(5, generator=torch.Generator().manual_seed(0)) for one in (first, kept)]
    assert torch.equal(*drawn)
