"""Latent use and collapse of models whose use of latents is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from utils.vae.collapse import collapse_check
from utils.vae.latents import LatentUse, latent_use


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
    # 24 nats in the latents of 100: they help, and most of each grid is made up without them.
    small = replace(use, kl=24.0, nll=76.0)
    assert small.share == 0.24
    assert "24.0 of the 100.0 nats" in collapse_check(small, foreground=0.9).summary
    assert collapse_check(replace(use, kl=26.0, nll=74.0), foreground=0.9).status == "pass"


def test_the_classical_preset_is_collapsed_late_in_its_training_and_the_default_is_not():
    """Measured on validation grids: vae_classic after 1.4 million grids and at its last beta of 2; vae at its end."""
    classic = (
        LatentUse(128, 92, 35.6, 189.7, 10216.6, 194.8, 747.0),
        LatentUse(128, 64, 27.8, 198.7, 9118.4, 204.0, 667.0),
    )
    for use, foreground in zip(classic, (0.264, 0.237)):
        settings = {"architecture": "dense", "beta": 1.0, "schedule": "classical"}
        check = collapse_check(use, foreground=foreground, settings=settings)
        assert check.status == "fail"
        assert "Lower beta (now 1, and twice that" in check.summary
        assert "architecture: palette" in check.summary
    default = LatentUse(1072, 984, 360.0, 16.2, 2753.8, 17.0, 3544.5)
    assert collapse_check(default, foreground=0.929).status == "pass"


def test_where_no_two_grids_share_a_size_content_is_not_judged():
    canvases = torch.full((3, 30, 30), 10)
    for row in range(3):
        canvases[row, : row + 1, : row + 1] = row
    side = torch.arange(1, 4)
    use = use_of(Coder(cells), {"grids": canvases, "heights": side, "widths": side})
    assert math.isnan(use.content)
    assert collapse_check(use, foreground=0.9).status == "pass"


def test_latents_that_no_grid_reaches_raise_no_alarm(grids):
    class Far(Coder):
        """Codes the sides, and 98 numbers that are always those of the prior."""

        def encode(self, grids):
            mu, logvar = super().encode(grids)
            return nn.functional.pad(mu, (0, 98)), nn.functional.pad(logvar, (0, 98))

        def decode(self, z):
            return z[:, :2]

    model = Far(sides)
    mu, logvar = model.encode(grids["grids"])
    every = latent_use(model, grids, mu, logvar, model.nll)
    assert (every.active, every.dimensions) == (2, 100)
    assert "2 of 100 latent dimensions" in collapse_check(every, foreground=0.9).summary
    near = latent_use(model, grids, mu, logvar, model.nll, reached=torch.arange(100) < 2)
    assert (near.active, near.dimensions) == (2, 2)
    assert collapse_check(near, foreground=0.9).status == "pass"


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


@pytest.mark.parametrize(
    ("settings", "said", "unsaid"),
    [
        (
            {"beta": 0.0, "schedule": "linear", "rise": 0.2},
            "holds the latents back: train longer",
            ("ower beta", "rise over"),
        ),
        ({"beta": 0.05, "schedule": "linear", "rise": 0.2}, "Keep beta (now 0.05) and train longer", ("rise over",)),
        ({"beta": 0.05, "schedule": "constant"}, "let it rise over the first fifth", ("Lower",)),
        ({"beta": 1.0, "schedule": "linear", "rise": 0.2}, "Lower beta (now 1) to about 0.05", ("rise over",)),
    ],
)
def test_what_to_change_is_not_what_is_so_already(settings, said, unsaid, grids):
    use = use_of(Coder(cells, deaf=True), grids)
    summary = collapse_check(use, foreground=0.01, settings=settings).summary
    assert said in summary
    assert not [part for part in unsaid if part in summary]
