"""Gaussian samplers of z: what they are fitted to comes out again."""

import math

import pytest
import torch

from utils.vae.sampler import Mixture, Normal


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_normal_sampler_has_unit_variance_times_the_temperature_squared():
    z = Normal(50).draw(4000, temperature=0.5, generator=generator())
    assert z.std().item() == pytest.approx(0.5, rel=0.01)  # 200,000 numbers: 0.2% standard error


def test_one_gaussian_has_the_mean_and_covariance_of_the_latents():
    true = torch.linalg.cholesky(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    mu = torch.randn(50_000, 2, generator=generator()) @ true.T + torch.tensor([5.0, -1.0])
    logvar = torch.full_like(mu, math.log(0.5))
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
