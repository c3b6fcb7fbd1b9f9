"""The autoregressive sampler learns which latents follow one another, and looks at none that come later."""

import pytest
import torch

from utils.vae.autoregressive import Autoregressive
from utils.vae.sampler import SamplerConfig
from utils.vae.sampling import fit_sampler, posteriors

pytestmark = pytest.mark.usefixtures("one_thread")


def config(**changes):
    return SamplerConfig(**{"kind": "autoregressive", "steps": 5, "width": 8, "layers": 1, "batch_size": 8} | changes)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_whole_grid_latents_of_the_autoregressive_sampler_are_those_of_training_grids(small_vae, any_grids):
    sampler = fit_sampler(config(), small_vae, any_grids)
    z = sampler.draw(200, generator=generator())
    mu, logvar, _, _ = posteriors(small_vae, any_grids)
    apart = (z[:, None, :8] - mu[None, :, :8]) / (0.5 * logvar[None, :, :8]).exp()
    assert apart.abs().amax(2).min(1).values.max() < 6  # standard deviations from the nearest grid's mean


def test_no_place_tells_an_earlier_one_anything(small_vae):
    torch.manual_seed(0)
    sampler = Autoregressive(small_vae, 4, config()).eval()
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


def test_the_autoregressive_sampler_learns_which_latents_follow_one_another(small_vae):
    # Maps whose places all hold the same number, 1 or -1, in the first channel; the second is noise.
    settings = config(steps=150, lr=1e-2, width=16, batch_size=32)
    torch.manual_seed(0)
    signs = torch.randint(2, (256, 1), generator=generator()) * 2.0 - 1
    maps = torch.stack((signs.expand(-1, 64), torch.randn(256, 64, generator=generator())), 1)
    mu = torch.cat((torch.zeros(256, 8), maps.flatten(1)), 1)
    sides = torch.full((256,), 12)
    sampler = Autoregressive(small_vae, 256, settings).fit(mu, torch.full_like(mu, -6.0), sides, sides, settings)
    drawn = torch.zeros(64, 64, 2)
    for place in range(3):  # of the first row
        _, means, _ = sampler(torch.zeros(64, 8), sides[:64], sides[:64], drawn[:, : place + 1] / sampler.scale)
        if place == 0:
            drawn[:, 0, 0] = signs[:64, 0]
            continue
        guess = means[:, -1, :, 0].mean(1) * sampler.scale[0]
        assert (guess.sign() == signs[:64, 0]).float().mean() > 0.95
        drawn[:, place, 0] = signs[:64, 0]
