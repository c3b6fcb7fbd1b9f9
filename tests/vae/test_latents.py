"""KL, bounds and latent use, against torch.distributions, closed forms, and models whose use of latents is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from utils.vae import latents
from utils.vae.latents import (
    active_by_kl,
    active_by_variance,
    bits_per_cell,
    collapse_check,
    gaussian_kl,
    importance_bound,
    latent_use,
    partners,
)


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
    monkeypatch.setattr(latents, "ROWS", rows)
    found = importance_bound(Gaussian(), batch_of(VALUES), Gaussian.nll, samples=samples)
    assert found.iwae == pytest.approx(log_evidence(VALUES), abs=1e-5)
    assert found.elbo == pytest.approx(log_evidence(VALUES), abs=1e-5)


def test_with_a_wrong_posterior_iwae_lies_between_the_elbo_and_the_evidence_and_rises_with_the_samples():
    model, copies = Gaussian(shift=0.5, stretch=0.7), 500
    generator = torch.Generator().manual_seed(0)
    bounds = [
        importance_bound(model, batch_of(VALUES, copies), model.nll, samples=k, generator=generator) for k in (1, 8, 64)
    ]
    means = [bound.iwae.mean() for bound in bounds]
    assert means[0] < means[1] < means[2] < log_evidence(VALUES).mean()
    assert log_evidence(VALUES).mean() - means[2] < 0.02
    assert all((bound.iwae >= bound.elbo - 1e-9).all() for bound in bounds)
    assert (bounds[0].iwae == bounds[0].elbo).all()


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


class Coder(nn.Module):
    """Codes what `facts` says of a canvas, and decodes it; a wrong fact costs a nat, and every grid `base` nats.

    Deaf, it codes nothing and hears nothing.
    """

    def __init__(self, facts, *, deaf=False, base=0.0):
        super().__init__()
        self.facts, self.deaf, self.base = facts, deaf, base

    def encode(self, grids):
        mu = self.facts(grids)
        return (mu * 0, mu * 0) if self.deaf else (mu, torch.full_like(mu, -8.0))

    def decode(self, z):
        return z * 0 if self.deaf else z

    def nll(self, decoded, batch):
        return (decoded - self.facts(batch["grids"])).abs().sum(1) + self.base


def sides(grids):
    inside = grids != 10
    return torch.stack((inside[:, :, 0].sum(1), inside[:, 0, :].sum(1)), 1).float()


def cells(grids):
    return grids.flatten(1).float()


@pytest.fixture
def grids():
    """40 grids of 4 sizes in random colours, as one batch."""
    generator = np.random.default_rng(0)
    canvases = np.full((40, 30, 30), 10)
    for row in range(40):
        side = 2 + row % 4
        canvases[row, :side, :side] = generator.integers(1, 10, (side, side))
    side = torch.arange(40) % 4 + 2
    return {"grids": torch.from_numpy(canvases), "heights": side, "widths": side}


def use_of(model, batch):
    return latent_use(model, batch, *model.encode(batch["grids"]), model.nll)


def test_own_latents_save_nats_where_the_decoder_listens(grids):
    use = use_of(Coder(cells), grids)
    assert use.nll == use.nll_own_of_size == 0
    assert use.gain > 0
    assert use.content == 1
    assert collapse_check(use, foreground=0.9).status == "pass"


def test_a_decoder_that_does_not_listen_gains_nothing_and_is_collapsed(grids):
    use = use_of(Coder(cells, deaf=True), grids)
    assert use.gain == pytest.approx(0)
    assert use.content == pytest.approx(0)
    assert collapse_check(use, foreground=0.0).status == "fail"


def test_latents_that_tell_the_size_alone_gain_and_are_collapsed_all_the_same(grids):
    use = use_of(Coder(sides, base=50.0), grids)
    assert use.gain > 1
    assert use.active == use.dimensions == 2
    assert use.content == 0
    check = collapse_check(use, foreground=0.4)
    assert check.status == "fail"
    assert "another of its size" in check.summary


def test_latents_that_carry_a_small_part_of_the_nats_are_collapsed(grids):
    use = use_of(Coder(cells), grids)
    assert use.share == 1  # nothing is left to tell
    # 4 nats in the latents of 100: they help, and most of each grid is made up without them.
    small = replace(use, kl=4.0, nll=96.0)
    assert small.share == 0.04
    assert "4.0 of the 100.0 nats" in collapse_check(small, foreground=0.9).summary
    assert collapse_check(replace(use, kl=30.0, nll=70.0), foreground=0.9).status == "pass"


def test_where_no_two_grids_share_a_size_content_is_not_judged():
    canvases = torch.full((3, 30, 30), 10)
    for row in range(3):
        canvases[row, : row + 1, : row + 1] = row
    side = torch.arange(1, 4)
    use = use_of(Coder(cells), {"grids": canvases, "heights": side, "widths": side})
    assert math.isnan(use.content)
    assert collapse_check(use, foreground=0.9).status == "pass"


def test_each_sign_of_collapse_is_named_with_what_to_change(grids):
    use = use_of(Coder(cells, deaf=True), grids)
    check = collapse_check(use, foreground=0.01, settings={"beta": 2.0, "architecture": "dense"})
    for part in (
        "of 900 latent dimensions",
        "another of its size",
        "1.0% of the foreground",
        "beta (now 2)",
        "palette",
    ):
        assert part in check.summary
    classical = {"beta": 1.0, "schedule": "classical"}
    assert "now 1, and twice that" in collapse_check(use, foreground=0.01, settings=classical).summary
    assert "palette" not in collapse_check(use, foreground=0.01, settings={"architecture": "spatial"}).summary
