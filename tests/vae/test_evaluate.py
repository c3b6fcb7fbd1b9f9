"""An evaluation agrees with its parts, changes nothing, and is written as strict JSON."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from utils.arc.grids import to_canvas
from utils.core import repro
from utils.vae.config import VAEConfig, readable
from utils.vae.data import GridSplit
from utils.vae.evaluate import EvaluationConfig, evaluate_vae
from utils.vae.evaluation import write_metrics
from utils.vae.metrics import GATE, grid_counts, rates
from utils.vae.model import BetaVAE
from utils.vae.objective import make_elbo

SMALL = EvaluationConfig(iwae_samples=4, iwae_grids=10, bootstrap=50, factor_grids=100, batch_size=16)
CONFIG = VAEConfig(architecture="dense", latents=6)


def split_of(count, seed=0):
    """Grids of mostly one colour, three to a task."""
    generator = np.random.default_rng(seed)
    grids = []
    for _ in range(count):
        grid = np.full(generator.integers(2, 7, 2), generator.integers(10))
        noisy = generator.random(grid.shape) < 0.3
        grid[noisy] = generator.integers(10, size=noisy.sum())
        grids.append(to_canvas(grid))
    grids = np.stack(grids)
    heights, widths = ((grids != 10)[:, :, 0].sum(1), (grids != 10)[:, 0, :].sum(1))
    tasks = np.array([f"task{row // 3}" for row in range(count)])
    return GridSplit(grids, heights.astype(np.uint8), widths.astype(np.uint8), tasks, np.full(count, "real"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return BetaVAE(CONFIG)


@pytest.fixture(scope="module")
def found(model):
    return evaluate_vae(model, split_of(40), SMALL, train=split_of(60, seed=1), settings=CONFIG.model_dump())


def test_counts_and_rates_are_those_of_the_reconstructions(model, found):
    split = split_of(40)
    (batch,) = split.batches(40)
    expected = rates(grid_counts(model.reconstruct(batch), split.grids))
    shown = {name: one.value for name, one in found.reconstruction.items() if name in expected}
    assert shown == pytest.approx(expected, nan_ok=True)
    assert found.counts["grids"] == 40
    assert found.counts["tasks"] == 14  # 40 grids, three to a task
    assert found.counts["cells"] == 40 * 900
    assert found.counts["inside"] == (split.grids != 10).sum()
    assert found.counts["iwae_grids"] == 10


def test_the_bounds_are_those_of_the_objective_and_of_one_another(model, found):
    (batch,) = split_of(40).batches(40)
    model.eval()
    with torch.no_grad():  # one draw of z each, so the means agree within its noise
        draws = [make_elbo(CONFIG, 1)(model, batch, 1) for _ in range(20)]
    nll = np.array([draw["nll"].item() for draw in draws])
    assert found.bounds["kl"].value == pytest.approx(draws[0]["kl"].item(), rel=1e-4)
    assert abs(found.bounds["nll"].value - nll.mean()) < 6 * nll.std() + 1e-3
    assert found.bounds["elbo"].value == pytest.approx(-found.bounds["nll"].value - found.bounds["kl"].value)
    bits = -found.bounds["elbo"].value * 40 / found.counts["inside"] / math.log(2)
    assert found.bounds["bits_per_cell"].value == pytest.approx(bits)
    assert found.bounds["iwae_4"].value >= found.bounds["iwae_elbo"].value
    assert sum(found.kl_per_dimension) == pytest.approx(found.bounds["kl"].value)


def test_every_baseline_is_there_and_the_modal_colour_has_no_foreground(found):
    assert list(found.baselines) == ["modal colour at true size", "modal image", "nearest training grid"]
    assert found.baselines["modal colour at true size"]["foreground"].value == 0
    assert found._repr_html_().count("modal colour at true size") == 1


def test_an_untrained_model_fails_gate_and_collapse_check(found):
    statuses = {check.name: check.status for check in found.checks}
    assert statuses == {GATE: "fail", "latents in use": "fail"}
    assert "beta (now 0.05)" in found.checks[1].summary


def test_rows_of_grids_add_up(found):
    grids = found.grids
    assert grids["row"].tolist() == list(range(40))
    assert grids["inside_right"].sum() / grids["inside"].sum() == found.reconstruction["non_padding"].value
    assert (grids["nll"] + grids["kl"]).mean() == pytest.approx(-found.bounds["elbo"].value)


def test_what_is_not_asked_for_is_left_out(model):
    few = SMALL.replace(iwae_samples=0, factor_grids=0, probes=False, grids=12)
    result = evaluate_vae(model, split_of(40), few)
    assert list(result.baselines) == ["modal colour at true size"]
    assert set(result.bounds) == {"nll", "kl", "elbo", "bits_per_cell"}
    assert result.probes == []
    assert result.disentanglement is None
    rows = result.grids["row"].to_numpy()
    assert len(rows) == len(set(rows)) == 12
    assert (rows[0], rows[-1]) == (0, 39)


def test_other_models_stand_among_the_baselines(model):
    few = SMALL.replace(iwae_samples=0, factor_grids=0, probes=False)
    other = BetaVAE(CONFIG)
    result = evaluate_vae(model, split_of(20), few, others={"autoencoder (beta 0)": other})
    alone = evaluate_vae(other, split_of(20), few)
    assert result.baselines["autoencoder (beta 0)"] == alone.reconstruction


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_generators_are_left_as_found(model, training):
    model.train(training)
    model.decoder.eval()
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    repro.seed_everything(3)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, two = (evaluate_vae(model, split_of(20), SMALL).content() for _ in range(2))
    assert one == two
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state[0], torch.get_rng_state())
    assert (state[1] == np.random.get_state()[1]).all()
    assert all(parameter.grad is None for parameter in model.parameters())


class Copier(nn.Module):
    """Its latents are the canvas, and it decodes them without fault."""

    def encode(self, grids):
        mu = grids.flatten(1).float()
        return mu, torch.full_like(mu, -16.0)

    def decode(self, z):
        return z

    def reconstruct(self, batch):
        return batch["grids"]


def copier_nll(decoded, batch):
    return (decoded - batch["grids"].flatten(1)).square().sum(1)


def test_a_model_that_copies_passes_with_rates_of_one():
    result = evaluate_vae(Copier(), split_of(200), SMALL.replace(factor_grids=0), nll=copier_nll)
    assert {one.value for one in result.reconstruction.values()} == {1.0}
    assert [check.status for check in result.checks] == ["pass", "pass"]
    sides = {probe.name: probe for probe in result.probes}
    assert sides["height"].score > sides["height"].chance + 0.7  # the canvas tells it linearly: 10 outside


@pytest.mark.parametrize("architecture", ["palette", "spatial"])
def test_every_architecture_can_be_evaluated(architecture):
    torch.manual_seed(0)
    sizes = {"channels": 1, "overall": 2, "colours": 2, "widths": (4, 4), "blocks": (0, 0)}
    config = VAEConfig(**readable({"architecture": architecture, **sizes}))
    result = evaluate_vae(BetaVAE(config), split_of(12), SMALL.replace(iwae_grids=4))
    assert result.active["dimensions"] == config.latent_size
    assert result.bounds["iwae_4"].value >= result.bounds["iwae_elbo"].value


def test_places_that_no_grid_reaches_count_neither_for_nor_against_the_latents():
    torch.manual_seed(0)
    config = VAEConfig(channels=2, overall=3, colours=4, widths=(4, 4), blocks=(0, 0))
    split = split_of(12)
    found = evaluate_vae(BetaVAE(config), split, SMALL)
    across, down = (-(-int(sides.max()) // 4) for sides in (split.widths, split.heights))  # places of 4x4 cells
    assert (across, down) == (2, 2)
    assert found.latents.dimensions == found.active["reached"] == 3 + 4 + 2 * across * down
    assert found.active["dimensions"] == config.latent_size == 3 + 4 + 2 * 64
    kl = np.array(found.kl_per_dimension[7:]).reshape(2, 8, 8)
    assert (kl[:, :2, :2] > 0).all()
    assert kl[:, 2:].sum() == kl[:, :, 2:].sum() == 0


def test_metrics_are_written_as_strict_json_with_config_counts_and_intervals(tmp_path, found):
    path = write_metrics(tmp_path / "results" / "metrics.json", [found], model=CONFIG, evaluation=SMALL, note={"x": 1})

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=no_constant)
    assert content["config"] == {
        "model": CONFIG.model_dump(mode="json"),
        "evaluation": SMALL.model_dump(),
        "note": {"x": 1},
    }
    results = content["results"]["validation"]
    assert results["counts"] == found.counts
    assert set(results["reconstruction"]["non_padding"]) == {"value", "low", "high"}
    assert results["baselines"]["modal colour at true size"]["foreground"]["value"] == 0
    assert len(results["kl_per_dimension"]) == 6
    assert {"gain", "share", "content"} <= set(results["latents"])
    assert [one["name"] for one in results["probes"]] == ["height", "width", "colours", "background", "symmetric"]
    assert set(results["disentanglement"]["mig_by_factor"]) >= {"height", "colour"}
    assert "grids" not in results


def test_an_empty_split_is_refused(model):
    with pytest.raises(ValueError, match="holds no grid"):
        evaluate_vae(model, split_of(3).subset(slice(0, 0)), SMALL)
