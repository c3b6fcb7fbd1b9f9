"""KL and active dimensions, against torch.distributions and by hand. What latents save a decoder: test_collapse."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from utils.vae.latents import active_by_kl, active_by_variance, bits_per_cell, partners
from utils.vae.model import gaussian_kl


def test_kl_is_that_of_torch_distributions_and_doubles_with_the_dimensions():
    draw = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(5, 7, generator=draw), torch.randn(5, 7, generator=draw)
    kl = gaussian_kl(mu, logvar)
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(torch.tensor(0.0), torch.tensor(1.0)))
    torch.testing.assert_close(kl, expected)
    assert gaussian_kl(torch.zeros(1, 3), torch.zeros(1, 3)).sum() == 0
    twice = gaussian_kl(mu.repeat(1, 2), logvar.repeat(1, 2)).sum(1)
    torch.testing.assert_close(twice, 2 * kl.sum(1))


def test_a_unit_is_active_by_its_kl_and_by_its_variance_and_the_two_differ():
    # Means of +-a have variance a^2, and with the prior's width they cost a^2 / 2 nats.
    size = torch.tensor([0.0, 0.2, 0.4])  # variance 0, 0.04, 0.16; 0, 0.02, 0.08 nats
    mu = torch.stack((size, -size)).repeat(10, 1)
    logvar = torch.zeros_like(mu)
    assert active_by_kl(mu, logvar).tolist() == [False, False, True]
    assert active_by_variance(mu).tolist() == [False, True, True]
    # A narrow posterior about one constant mean: it costs nats and tells nothing.
    assert active_by_kl(mu * 0, logvar - 4).all()
    assert not active_by_variance(mu * 0 + 1).any()


def test_bits_per_cell():
    assert bits_per_cell(8 * math.log(2), 4) == pytest.approx(2)  # 8 bits over 4 cells


def test_partners_are_others_of_the_same_group_each_once():
    groups = np.array([3, 1, 3, 2, 1, 3, 1, 9, 1])
    for seed in range(5):
        found = partners(groups, seed=seed)
        assert found[[3, 7]].tolist() == [-1, -1]
        rest = np.flatnonzero(found >= 0)
        assert sorted(found[rest].tolist()) == rest.tolist()
        assert (found[rest] != rest).all()
        assert (groups[found[rest]] == groups[rest]).all()
    assert len(partners(np.array([], int))) == 0
