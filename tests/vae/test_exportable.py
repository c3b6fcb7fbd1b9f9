"""The VAE's graphs give the numbers of the VAE, whatever the sizes of the grids beside each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.vae.config import VAEConfig, readable
from utils.vae.exportable import GridDecoder, GridEncoder, exportable_of, factored, grid_parts, random_grids
from utils.vae.model import BetaVAE
from utils.vae.palette import factor


@pytest.fixture(params=["palette", "spatial", "dense"])
def model(request):
    """With gains that are not 0, as after some training."""
    settings = {"channels": 2, "overall": 3, "colours": 4, "latents": 5, "widths": (8, 8), "blocks": (1, 1), "part": 4}
    torch.manual_seed(0)
    model = BetaVAE(VAEConfig(**readable({"architecture": request.param, **settings})))
    for name, parameter in model.named_parameters():
        if name.endswith("gain"):
            nn.init.normal_(parameter)
    return model.eval()


def grids_of_any_size():
    """(12, 30, 30), some of 1x1 and 30x30 among them."""
    grids = random_grids(12)
    grids[0], grids[1] = 10, torch.arange(900).view(30, 30) % 10
    grids[0, 0, 0] = 7
    return grids


@torch.no_grad()
def test_the_encoder_s_graph_gives_the_posterior_of_the_model(model):
    grids = grids_of_any_size()
    found, (mu, logvar) = GridEncoder(model)(grids), model.encode(grids)
    assert found.shape == (12, 2, model.config.latent_size)
    torch.testing.assert_close(found, torch.stack((mu, logvar), 1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_decoder_s_graph_gives_the_cells_of_the_model_at_the_likeliest_size(model):
    z = torch.randn(9, model.config.latent_size, generator=torch.Generator().manual_seed(0))
    found, decoded = GridDecoder(model)(z), model.decode(z)
    torch.testing.assert_close(found, decoded.cells(), rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argmax(1) == 10, decoded.mode == 10)


def test_slots_and_palette_by_comparisons_are_those_by_sorting():
    grids = grids_of_any_size()
    plain = torch.full_like(grids[:1], 4)  # one colour alone: all others are equally unused
    for ours, theirs in zip(factored(torch.cat((grids, plain))), factor(torch.cat((grids, plain)))):
        assert torch.equal(ours, theirs)


def test_parts_have_other_batches_than_they_are_exported_with_and_the_decoder_reads_what_the_encoder_says(model):
    encoder, decoder = grid_parts(model)
    assert [one["grids"].shape[0] for one in (encoder.inputs, *encoder.others)] == [2, 1, 5, 3]
    assert all(set(part.axes) == {*part.inputs, part.output} for part in (encoder, decoder))
    with torch.no_grad():
        for grids, z in zip(encoder.others, decoder.others):
            assert torch.equal(encoder.module(**grids)[:, 0], z["latents"])


@torch.no_grad()
def test_torch_export_and_a_trace_take_any_number_of_grids(model):
    for part in grid_parts(model):
        (given,) = part.inputs.values()
        program = torch.export.export(part.module, (given,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
        traced = torch.jit.trace(part.module, (given,), check_trace=False)
        for (other,) in (one.values() for one in part.others):
            torch.testing.assert_close(program(other), part.module(other))
            torch.testing.assert_close(traced(other), part.module(other))


def test_what_was_judged_of_the_run_s_weights_comes_with_its_intervals(vae_trained, one_thread):
    from utils.vae.report import judge, write_results

    path = vae_trained.run.path / "results" / "metrics.json"
    found = judge(vae_trained.model, vae_trained.data(), vae_trained.recipe, splits=["validation"])
    try:
        write_results(path, found, vae_trained.recipe, vae_trained.step)
        exact, elbo = found["validation"].reconstruction["exact"], found["validation"].bounds["elbo"]
        metrics = exportable_of(vae_trained.run).metrics
        for name, one in (("exact", exact), ("elbo", elbo)):
            assert metrics[f"validation/{name}"] == {"value": one.value, "low": one.low, "high": one.high}
        path.unlink()
        write_results(path, found, vae_trained.recipe, vae_trained.step + 1)  # of other weights
        logged = vae_trained.run.metrics()["validation/exact"][vae_trained.step]
        assert exportable_of(vae_trained.run).metrics["validation/exact"] == logged
    finally:
        path.unlink()


def test_the_last_weights_are_not_told_to_be_the_best(vae_recipe, tmp_path, one_thread):
    from utils.core.checkpoints import Checkpoints
    from utils.core.run import Run

    recipe = vae_recipe.replace(train={"restore_best": False})
    run, model = Run.create(tmp_path, "last", recipe), BetaVAE(recipe.model)
    checkpoints = Checkpoints(run.path / "checkpoints")
    for step, loss in ((5, 1.0), (9, 2.0)):
        checkpoints.save(step, {"model": model.state_dict(), "data": "d"}, loss)
    found = exportable_of(run)
    assert (found.step, found.data) == (9, "d")
    assert "those of step 5 have the lowest validation loss" in found.note
    recipe.replace(train={"restore_best": True}).save(run.path / "config.yaml")
    assert (exportable_of(run).step, exportable_of(run).note) == (5, "")


def test_a_run_is_exported_with_the_weights_and_the_metrics_of_its_best_step(vae_trained, one_thread):
    found = exportable_of(vae_trained.run)
    assert (found.kind, found.loader, found.step) == ("vae", "ours", vae_trained.step)
    assert found.metrics["validation/loss"] == vae_trained.run.metrics()["validation/loss"][vae_trained.step]
    for name, value in vae_trained.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)
    assert found.tokenizer is None
