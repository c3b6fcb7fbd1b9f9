"""Bounds on the likelihood, against a model whose evidence and posterior are known in closed form."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from utils.vae import bounds
from utils.vae.bounds import importance_bound


class Gaussian(nn.Module):
    """x is the sum of a canvas; z ~ N(0, 1), x ~ N(z, 1), so that x ~ N(0, 2) and z given x is N(x / 2, 1 / 2).

    Its posterior is N(x / 2 + shift, 1 / 2 * stretch).
    """

    def __init__(self, shift=0.0, stretch=1.0):
        super().__init__()
        self.shift, self.stretch = nn.Parameter(torch.tensor(shift)), stretch

    def encode(self, grids):
        x = grids.float().sum((1, 2))[:, None]
        return x / 2 + self.shift, torch.full_like(x, math.log(self.stretch / 2))

    def decode(self, z):
        return z[:, 0]

    @staticmethod
    def nll(decoded, batch):
        return -Normal(decoded, 1.0).log_prob(batch["grids"].float().sum((1, 2)))


VALUES = torch.tensor([-1.0, 0.0, 0.5, 2.0])


def batch_of(values, copies=1):
    return {"grids": values.repeat(copies)[:, None, None]}


def log_evidence(values):
    return Normal(0.0, math.sqrt(2)).log_prob(values).numpy()


@pytest.mark.parametrize(("samples", "rows"), [(1, 512), (7, 512), (7, 12), (7, 1)])
def test_with_the_exact_posterior_every_bound_is_the_evidence_in_chunks_of_any_size(monkeypatch, samples, rows):
    monkeypatch.setattr(bounds, "ROWS", rows)
    found = importance_bound(Gaussian(), batch_of(VALUES), Gaussian.nll, samples=samples)
    assert found.iwae == pytest.approx(log_evidence(VALUES), abs=1e-5)
    assert found.elbo == pytest.approx(log_evidence(VALUES), abs=1e-5)


def test_with_a_wrong_posterior_iwae_lies_between_the_elbo_and_the_evidence_and_rises_with_the_samples():
    model, copies = Gaussian(shift=0.5, stretch=0.7), 500
    generator = torch.Generator().manual_seed(0)
    found = [
        importance_bound(model, batch_of(VALUES, copies), model.nll, samples=k, generator=generator) for k in (1, 8, 64)
    ]
    means = [bound.iwae.mean() for bound in found]
    assert means[0] < means[1] < means[2] < log_evidence(VALUES).mean()
    assert log_evidence(VALUES).mean() - means[2] < 0.02
    assert all((bound.iwae >= bound.elbo - 1e-9).all() for bound in found)
    assert (found[0].iwae == found[0].elbo).all()


def test_one_importance_sample_is_the_elbo_in_expectation():
    # log p(x) - KL(q || p(z|x)), both Gaussian, is the ELBO in closed form.
    shift, stretch, copies = 0.5, 0.7, 4000
    exact = Normal(0.0, math.sqrt(0.5))
    gap = kl_divergence(Normal(torch.tensor(shift), math.sqrt(stretch / 2)), exact).item()
    found = importance_bound(
        Gaussian(shift, stretch),
        batch_of(VALUES, copies),
        Gaussian.nll,
        samples=1,
        generator=torch.Generator().manual_seed(0),
    ).iwae
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - (log_evidence(VALUES).mean() - gap)) < 4 * error
    assert gap > 20 * error  # so the comparison tells


def test_the_bounds_are_functions_of_the_generator():
    model = Gaussian(shift=0.5)
    one, two, other = (
        importance_bound(model, batch_of(VALUES), model.nll, samples=3, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert (one.iwae == two.iwae).all()
    assert (one.iwae != other.iwae).all()
