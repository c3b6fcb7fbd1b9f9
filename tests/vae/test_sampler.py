"""Samplers of z: what they are fitted to comes out again, and every draw is a grid."""

import numpy as np
import pytest
import torch

from utils.arc.grids import from_canvas, to_canvas
from utils.core.config import ConfigError
from utils.vae.config import VAEConfig
from utils.vae.data import GridSplit
from utils.vae.decoded import sizes_of
from utils.vae.model import BetaVAE
from utils.vae.sampler import Autoregressive, Mixture, Normal, SamplerConfig, draw_grids, fit_sampler, posteriors

KINDS = ("normal", "gaussian", "mixture", "autoregressive")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model():
    torch.manual_seed(0)
    settings = {"channels": 2, "overall": 4, "colours": 4, "widths": (8, 8), "blocks": (1, 1), "part": 4}
    return BetaVAE(VAEConfig(**settings)).eval()


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    grids = torch.from_numpy(
        np.stack([to_canvas(rng.integers(10, size=shape).astype(np.uint8)) for shape in rng.integers(1, 31, (24, 2))])
    )
    heights, widths = (side.numpy() for side in sizes_of(grids))
    return GridSplit(grids.numpy(), heights, widths, np.array([""] * 24), np.array(["real"] * 24))


def config(kind, **changes):
    return SamplerConfig(
        **{"kind": kind, "components": 3, "steps": 5, "width": 8, "layers": 1, "batch_size": 8} | changes
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_draw_is_a_grid_and_a_function_of_the_generator(model, split, kind):
    sampler = fit_sampler(config(kind), model, split)
    first, again, other = (draw_grids(model, sampler, 12, generator=generator(seed)) for seed in (0, 0, 1))
    for canvas in first:
        from_canvas(canvas.numpy())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_is_a_function_of_its_seed_and_leaves_the_random_state_alone(model, split, kind):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same = (fit_sampler(config(kind), model, split).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.keys() == same.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_the_normal_sampler_has_unit_variance_times_the_temperature_squared():
    z = Normal(50).draw(4000, temperature=0.5, generator=generator())
    assert z.std().item() == pytest.approx(0.5, rel=0.01)  # 200,000 numbers: 0.2% standard error


def test_one_gaussian_has_the_mean_and_covariance_of_the_latents():
    true = torch.linalg.cholesky(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    mu = torch.randn(50_000, 2, generator=generator()) @ true.T + torch.tensor([5.0, -1.0])
    logvar = torch.full_like(mu, np.log(0.5))
    z = Mixture(1, 2).fit(mu, logvar).draw(50_000, generator=generator(1))
    torch.testing.assert_close(z.mean(0), torch.tensor([5.0, -1.0]), rtol=0, atol=0.05)
    torch.testing.assert_close(z.T.cov(), torch.tensor([[2.5, 1.0], [1.0, 3.5]]), rtol=0, atol=0.1)


def test_a_mixture_finds_clusters_that_one_gaussian_would_fill_in_between():
    centres = torch.tensor([[-10.0, 0.0], [10.0, 0.0], [0.0, 20.0]])
    mu = centres.repeat(500, 1) + 0.1 * torch.randn(1500, 2, generator=generator())
    sampler = Mixture(3, 2).fit(mu, torch.full_like(mu, -10.0), seed=0)
    z = sampler.draw(600, generator=generator(1))
    distance, nearest = torch.cdist(z, centres).min(1)
    assert distance.max() < 1
    assert (nearest.bincount(minlength=3) > 150).all()  # 200 are expected, with a standard deviation of 12
    assert torch.equal(
        sampler.draw(9, temperature=0.0, generator=generator()).unique(dim=0), sampler.means.unique(dim=0)
    )


def test_whole_grid_latents_of_the_autoregressive_sampler_are_those_of_training_grids(model, split):
    sampler = fit_sampler(config("autoregressive"), model, split)
    z = sampler.draw(200, generator=generator())
    mu, logvar, _, _ = posteriors(model, split)
    apart = (z[:, None, :8] - mu[None, :, :8]) / (0.5 * logvar[None, :, :8]).exp()
    assert apart.abs().amax(2).min(1).values.max() < 6  # standard deviations from the nearest grid's mean


def test_no_place_tells_an_earlier_one_anything(model):
    torch.manual_seed(0)
    sampler = Autoregressive(model, 4, config("autoregressive")).eval()
    for parameter in sampler.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    whole, maps = torch.randn(1, 8), torch.randn(1, 64, 2)
    sides = torch.tensor([30])
    before = sampler(whole, sides, sides, maps)
    maps[:, 20] += 1
    for one, other in zip(before, sampler(whole, sides, sides, maps)):
        changed = (one != other).flatten(2).any(2)[0]
        assert not changed[:21].any()
        assert changed[21:].all()


def test_the_autoregressive_sampler_learns_which_latents_follow_one_another(model):
    # Maps whose places all hold the same number, 1 or -1, in the first channel; the second is noise.
    settings = config("autoregressive", steps=150, lr=1e-2, width=16, batch_size=32)
    torch.manual_seed(0)
    signs = torch.randint(2, (256, 1), generator=generator()) * 2.0 - 1
    maps = torch.stack((signs.expand(-1, 64), torch.randn(256, 64, generator=generator())), 1)
    mu = torch.cat((torch.zeros(256, 8), maps.flatten(1)), 1)
    sides = torch.full((256,), 12)
    sampler = Autoregressive(model, 256, settings).fit(mu, torch.full_like(mu, -6.0), sides, sides, settings)
    drawn = torch.zeros(64, 64, 2)
    for place in range(3):  # of the first row
        _, means, _ = sampler(torch.zeros(64, 8), sides[:64], sides[:64], drawn[:, : place + 1] / sampler.scale)
        if place == 0:
            drawn[:, 0, 0] = signs[:64, 0]
            continue
        guess = means[:, -1, :, 0].mean(1) * sampler.scale[0]
        assert (guess.sign() == signs[:64, 0]).float().mean() > 0.95
        drawn[:, place, 0] = signs[:64, 0]


def test_dense_latents_have_no_map_to_go_through(split):
    model = BetaVAE(VAEConfig(architecture="dense", latents=4)).eval()
    with pytest.raises(ConfigError, match="kind: mixture"):
        fit_sampler(config("autoregressive"), model, split)
    assert draw_grids(model, fit_sampler(config("mixture"), model, split), 3).shape == (3, 30, 30)
