"""The objective against hand-computed grids, torch's own KL, and the scaling that it must have."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from utils.arc.grids import to_canvas
from utils.core.run import Run
from utils.training.config import TrainConfig
from utils.training.fit import fit
from utils.vae.augment import AugmentConfig
from utils.vae.config import VAEConfig, readable
from utils.vae.data import GridSplit
from utils.vae.decoded import Decoded, sizes_of
from utils.vae.metrics import grid_counts, rates
from utils.vae.model import BetaVAE, gaussian_kl
from utils.vae.objective import loss_terms, make_elbo, nll


def batch_of(*grids):
    canvases = torch.from_numpy(np.stack([to_canvas(np.asarray(grid, np.uint8)) for grid in grids]))
    heights, widths = sizes_of(canvases)
    return {"grids": canvases, "heights": heights, "widths": widths}


def decoded_from(logits, sizes=None):
    rows = len(logits)
    return Decoded(lambda heights, widths: logits, torch.zeros(rows, 60) if sizes is None else sizes)


def test_the_loss_of_two_cells_is_as_computed_by_hand():
    # Cells 0 and 1 of a 1x2 grid. At the first, logits ln 3 for colour 0 and 0 for the nine others: p = 3 / 12.
    # At the second all are 0: p = 1 / 10. Sizes: all 30 alike, but the width 2 with logit ln 2: p = 1 / 30, 2 / 31.
    logits, sizes = torch.zeros(1, 30, 30, 10), torch.zeros(1, 60)
    logits[0, 0, 0, 0], sizes[0, 30 + 1] = math.log(3), math.log(2)
    terms = decoded_from(logits, sizes).terms(**batch_of([[0, 1]]))
    assert terms.cells.item() == pytest.approx(math.log(4) + math.log(10))
    assert terms.size.item() == pytest.approx(math.log(30) + math.log(31 / 2))
    # KL of N(1, 1) is 1/2, and of N(0, 4) it is (4 - 1 - ln 4) / 2.
    kl = gaussian_kl(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4)]]))
    found = loss_terms(VAEConfig(beta=0.5, schedule="constant"), terms, kl, 0.0)
    assert found["kl"].item() == pytest.approx(0.5 + (3 - math.log(4)) / 2)
    assert found["nll"].item() == pytest.approx(math.log(4 * 10 * 30 * 31 / 2))
    assert found["loss"].item() == pytest.approx(math.log(4 * 10 * 30 * 31 / 2) + 0.5 * (0.5 + (3 - math.log(4)) / 2))


def test_kl_is_that_of_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(5, 7, generator=generator), torch.randn(5, 7, generator=generator)
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl(mu, logvar), expected)


def test_doubling_the_latents_doubles_kl_and_leaves_the_rest():
    terms = decoded_from(torch.zeros(1, 30, 30, 10)).terms(**batch_of([[0, 1]]))
    kl = torch.rand(1, 7, generator=torch.Generator().manual_seed(0))
    once, twice = (loss_terms(VAEConfig(), terms, part, 1.0) for part in (kl, torch.cat((kl, kl), 1)))
    assert twice["kl"].item() == pytest.approx(2 * once["kl"].item())
    assert twice["nll"] == once["nll"]


def test_a_batch_of_the_same_grid_twice_has_the_loss_of_one():
    logits = torch.randn(1, 30, 30, 10, generator=torch.Generator().manual_seed(0))
    grid = [[0, 1, 2], [3, 4, 5]]
    kl = torch.rand(1, 7)
    one = loss_terms(VAEConfig(), decoded_from(logits).terms(**batch_of(grid)), kl, 1.0)
    two = loss_terms(
        VAEConfig(), decoded_from(logits.expand(2, -1, -1, -1)).terms(**batch_of(grid, grid)), kl.expand(2, -1), 1.0
    )
    assert one["loss"].item() == pytest.approx(two["loss"].item())


def test_padding_weight_0_ignores_padding_exactly():
    batch, config = batch_of([[0, 1]]), VAEConfig(architecture="dense", padding_weight=0.0)
    logits = torch.randn(1, 30, 30, 11, generator=torch.Generator().manual_seed(0))
    other = logits.clone()
    other[:, 1:], other[:, :, 2:] = 7.0, -3.0
    other[0, :, 2:, 4] = 99.0
    first, second = (
        loss_terms(config, decoded_from(one).terms(**batch), torch.zeros(1, 5), 1.0) for one in (logits, other)
    )
    assert first["loss"] == second["loss"]
    weighted = config.replace(padding_weight=1.0)
    first, second = (
        loss_terms(weighted, decoded_from(one).terms(**batch), torch.zeros(1, 5), 1.0) for one in (logits, other)
    )
    assert first["loss"] != second["loss"]


def test_padding_counts_by_its_weight():
    # 898 cells of padding at 11 equal logits cost ln 11 each.
    terms = decoded_from(torch.zeros(1, 30, 30, 11)).terms(**batch_of([[0, 1]]))
    losses = [
        loss_terms(VAEConfig(architecture="dense", padding_weight=weight), terms, torch.zeros(1, 5), 1.0)["nll"].item()
        for weight in (0.0, 0.25, 1.0)
    ]
    assert losses[1] - losses[0] == pytest.approx(0.25 * 898 * math.log(11), rel=1e-5)
    assert losses[2] - losses[0] == pytest.approx(898 * math.log(11), rel=1e-5)


def test_free_bits_are_per_latent_on_the_batch_s_mean():
    terms = decoded_from(torch.zeros(2, 30, 30, 10)).terms(**batch_of([[0, 1]], [[2, 2]]))
    kl = torch.tensor([[0.0, 0.1, 1.0], [0.4, 0.1, 3.0]])  # means 0.2, 0.1, 2
    found = loss_terms(VAEConfig(beta=1.0, free_bits=0.15, schedule="constant"), terms, kl, 1.0)
    assert (found["loss"] - found["nll"]).item() == pytest.approx(0.2 + 0.15 + 2)
    assert found["kl"].item() == pytest.approx(2.3)


@pytest.mark.parametrize(("progress", "penalty"), [(0.0, 2.0), (0.1, 3.0), (1.0, 8.0)])
def test_capacity_weighs_the_distance_from_a_rising_kl(progress, penalty):
    # KL 2 against a capacity that rises from 0 to 10 over the first fifth: |2 - 0|, |2 - 5|, |2 - 10|.
    terms = decoded_from(torch.zeros(1, 30, 30, 10)).terms(**batch_of([[0, 1]]))
    config = VAEConfig(beta=3.0, capacity=10.0, schedule="linear", rise=0.2)
    found = loss_terms(config, terms, torch.tensor([[0.5, 1.5]]), progress)
    assert (found["loss"] - found["nll"]).item() == pytest.approx(3 * penalty)


def small(**changes):
    settings = {"channels": 2, "overall": 4, "colours": 4, "widths": (8, 8), "blocks": (1, 1), "part": 4}
    return VAEConfig(**readable(settings | changes))


def test_beta_follows_the_schedule_in_training_and_is_full_in_evaluation():
    config = small(beta=0.4, schedule="linear", rise=0.5)
    model, batch, objective = BetaVAE(config), batch_of([[0, 1]], [[2], [2]]), make_elbo(config, 100)
    assert [objective(model, batch, step)["beta"].item() for step in (0, 25, 50, 99)] == pytest.approx(
        [0, 0.2, 0.4, 0.4]
    )
    model.eval()
    assert objective(model, batch, 0)["beta"].item() == pytest.approx(0.4)


def test_every_value_is_a_finite_scalar_and_the_elbo_is_their_sum():
    for architecture in ("palette", "spatial", "dense"):
        config = small(architecture=architecture, latents=4)
        batch = batch_of([[0, 1]], [[2], [2]], np.arange(9).reshape(3, 3))
        values = make_elbo(config, 10)(BetaVAE(config).eval(), batch, 0)
        assert all(value.shape == () and value.isfinite() for value in values.values())
        assert values["elbo"].item() == pytest.approx(-(values["nll"] + values["kl"]).item(), rel=1e-5)
        nats = -values["elbo"].item()
        assert values["bits_per_cell"].item() == pytest.approx(nats * 3 / (2 + 2 + 9) / math.log(2), rel=1e-5)


def test_nll_is_minus_the_log_probability_of_each_grid():
    model, batch = BetaVAE(small()).eval(), batch_of([[0, 1]], [[2], [2]])
    decoded = model.decode(torch.randn(2, model.config.latent_size))
    torch.testing.assert_close(nll(decoded, batch), -decoded.log_prob(batch["grids"]))


@pytest.mark.parametrize("architecture", ["palette", "spatial", "dense"])
def test_every_weight_learns(architecture):
    config = small(architecture=architecture, latents=4)
    torch.manual_seed(0)
    model, rng = BetaVAE(config), np.random.default_rng(0)
    batch = batch_of(*(rng.integers(10, size=shape) for shape in rng.integers(1, 31, (6, 2))))
    for name, parameter in model.named_parameters():
        if name.endswith("gain"):  # at 0, what is behind it would have no gradient
            torch.nn.init.ones_(parameter)
    make_elbo(config, 10)(model, batch, 9)["loss"].backward()
    assert [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()] == []


class Few:
    """A few grids as `fit`'s data; validation is training."""

    fingerprint = "few"

    def __init__(self, split):
        self.train = self.validation = split


def split_of(*grids, online=None):
    canvases = batch_of(*grids)
    return GridSplit(
        canvases["grids"].numpy(),
        canvases["heights"].numpy(),
        canvases["widths"].numpy(),
        np.array([""] * len(grids)),
        np.array(["real"] * len(grids)),
        online or AugmentConfig(d4=False, colours=False),
    )


def test_fit_trains_it_on_the_batches_of_a_split(tmp_path):
    rng = np.random.default_rng(0)
    data = Few(
        split_of(*(rng.integers(3, size=shape) for shape in rng.integers(1, 9, (16, 2))), online=AugmentConfig())
    )
    train = TrainConfig(
        max_steps=40, batch_size=8, lr=1e-2, warmup_steps=2, eval_every=40, log_every=1, device="cpu", precision="bf16",
        checkpoint_minutes=None, trackers=(),
    )  # fmt: skip
    torch.manual_seed(0)
    model, config = BetaVAE(small()), small()
    result = fit(model, make_elbo(config, 40), data, Run.create(tmp_path, "vae", train), train)
    losses = result.run.metrics()["train/loss"].dropna()
    assert losses.iloc[-10:].mean() < 0.8 * losses.iloc[:10].mean()


def test_shares_in_evaluation_are_those_of_the_canvases_at_the_true_sizes():
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    model = BetaVAE(small(architecture="spatial")).eval()
    batch = batch_of(*(generator.integers(0, 3, size) for size in ((3, 5), (7, 2), (10, 10))))
    found = make_elbo(model.config, 1)(model, batch, 0)
    decoded = model.decode(model.encode(batch["grids"])[0])
    predicted = decoded.cells(batch["heights"], batch["widths"]).argmax(1)
    wanted = rates(grid_counts(predicted, batch["grids"]))
    for name in ("all", "non_padding", "foreground"):
        assert float(found[name]) == pytest.approx(wanted[name], abs=1e-6)


def test_64_grids_can_be_learned_by_heart():
    rng = np.random.default_rng(0)
    batch = batch_of(*(rng.integers(4, size=shape) for shape in rng.integers(3, 9, (64, 2))))
    config = VAEConfig(widths=(32, 64), blocks=(1, 1), part=64)
    torch.manual_seed(0)
    model, objective = BetaVAE(config), make_elbo(config, 250)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    for step in range(250):
        for group in optimizer.param_groups:
            group["lr"] = 6e-3 * min(1, step / 20) * (1 - step / 250)
        optimizer.zero_grad()
        objective(model, batch, step)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    right = model.eval().reconstruct(batch) == batch["grids"]
    inside = batch["grids"] != 10
    assert right[inside].float().mean() >= 0.99
    assert right.flatten(1).all(1).float().mean() >= 0.9
