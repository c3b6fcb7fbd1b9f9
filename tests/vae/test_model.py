"""The beta-VAE's parts: shapes, what they do not depend on, and that what it draws is a grid."""

import numpy as np
import pytest
import torch
from torch import nn

from utils.arc.grids import from_canvas, to_canvas
from utils.vae.augment import draw_names, rename
from utils.vae.config import VAEConfig, readable
from utils.vae.decoded import rectangles, sizes_of
from utils.vae.model import BetaVAE, gaussian_kl
from utils.vae.palette import factor
from utils.vae.spatial import SpatialEncoder, edges, parts

ARCHITECTURES = ("palette", "spatial", "dense")


def small(architecture="palette", **changes):
    settings = {"channels": 2, "overall": 3, "colours": 4, "latents": 5, "widths": (8, 8), "blocks": (1, 1), "part": 4}
    return VAEConfig(**readable({"architecture": architecture, **settings | changes}))


def awake(model):
    """With gains that are not 0, as after some training."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("gain"):
            nn.init.normal_(parameter)
    return model.eval()


@pytest.fixture(params=ARCHITECTURES)
def model(request):
    torch.manual_seed(0)
    return awake(BetaVAE(small(request.param)))


@pytest.fixture
def palette_model():
    torch.manual_seed(0)
    return awake(BetaVAE(small()))


def batch_of(*grids):
    canvases = torch.from_numpy(np.stack([to_canvas(np.asarray(grid, np.uint8)) for grid in grids]))
    heights, widths = sizes_of(canvases)
    return {"grids": canvases, "heights": heights, "widths": widths}


@pytest.fixture
def batch():
    """Grids of every shape that matters, and more than one part of them."""
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 30), (30, 1), (30, 30), (4, 4), (5, 3), *rng.integers(1, 31, (5, 2))]
    return batch_of(*(rng.integers(10, size=shape) for shape in shapes))


def test_latents_are_as_many_as_the_groups_say(model, batch):
    config = model.config
    mu, logvar = model.encode(batch["grids"])
    assert mu.shape == logvar.shape == (11, config.latent_size)
    assert sum(group.stop - group.start for group in config.groups.values()) == config.latent_size
    expected = {"palette": 3 + 4 + 2 * 64, "spatial": 3 + 2 * 64, "dense": 5}
    assert config.latent_size == expected[config.architecture]


def test_cells_are_probabilities_at_every_cell_and_say_the_padding_for_certain(model, batch):
    decoded = model.decode(model.encode(batch["grids"])[0])
    log_probabilities = decoded.cells(batch["heights"], batch["widths"])
    assert log_probabilities.shape == (11, 11, 30, 30)
    torch.testing.assert_close(log_probabilities.exp().sum(1), torch.ones(11, 30, 30))
    assert torch.equal(log_probabilities.argmax(1) == 10, batch["grids"] == 10)
    for sides in (decoded.heights, decoded.widths):
        torch.testing.assert_close(sides.exp().sum(1), torch.ones(11))


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
def test_every_sample_is_a_grid(model, temperature):
    canvases = model.sample(20, temperature=temperature, generator=torch.Generator().manual_seed(0))
    assert canvases.shape == (20, 30, 30)
    assert canvases.dtype == torch.uint8
    for canvas in canvases:
        from_canvas(canvas.numpy())  # raises for what is none


def test_samples_are_a_function_of_the_generator(model):
    first, again, other = (model.sample(8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_reconstructions_are_the_mode_at_the_posterior_mean(model, batch):
    found = model.reconstruct(batch)
    assert torch.equal(found, model.decode(model.encode(batch["grids"])[0]).mode)
    heights, widths = model.decode(model.encode(batch["grids"])[0]).likeliest_sizes()
    assert torch.equal(found != 10, rectangles(heights, widths))


def test_a_grid_s_numbers_do_not_depend_on_the_grids_beside_it(model, batch):
    mu, logvar = model.encode(batch["grids"])
    z = torch.randn(mu.shape, generator=torch.Generator().manual_seed(0))
    together = model.decode(z).terms(**batch)
    for row in range(len(mu)):
        alone = {name: value[row : row + 1] for name, value in batch.items()}
        own = model.encode(alone["grids"])
        torch.testing.assert_close(own[0][0], mu[row], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own[1][0], logvar[row], rtol=1e-4, atol=1e-5)
        terms = model.decode(z[row : row + 1]).terms(**alone)
        torch.testing.assert_close(terms.total[0], together.total[row], rtol=1e-4, atol=1e-3)


def test_a_grid_s_latents_do_not_depend_on_the_canvas_it_is_computed_on(batch):
    torch.manual_seed(0)
    encoder = awake(SpatialEncoder(small(part=1)))
    cells, heights, widths = batch["grids"].long(), batch["heights"], batch["widths"]
    small_canvases = encoder(cells, heights, widths)
    encoder.config = small(part=64)  # all of them at once, on the largest one's canvas
    for one, other in zip(small_canvases, encoder(cells, heights, widths)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["palette", "spatial"])
def test_places_outside_the_grid_have_the_prior_for_a_posterior_and_say_nothing(architecture):
    torch.manual_seed(0)
    model = awake(BetaVAE(small(architecture)))
    one = batch_of(np.arange(45).reshape(5, 9) % 10)  # 2 x 3 of the 8 x 8 places
    mu, logvar = model.encode(one["grids"])
    kl = gaussian_kl(mu, logvar)[0, model.config.groups["map"]].view(2, 8, 8)
    assert (kl[:, :2, :3] > 0).all()
    assert not kl[:, 2:].any()
    assert not kl[:, :, 3:].any()
    noise = torch.zeros(2, 8, 8)
    noise[:, 2:], noise[:, :, 3:] = 5.0, 5.0
    z = mu.clone()
    z[0, model.config.groups["map"]] += noise.flatten()
    assert model.decode(z).terms(**one).total == model.decode(mu).terms(**one).total


def test_renaming_colours_moves_the_palette_s_latents_alone(palette_model, batch):
    names = draw_names(11, keep_black=False, generator=torch.Generator().manual_seed(0))
    mu, _ = palette_model.encode(batch["grids"])
    renamed, _ = palette_model.encode(rename(batch["grids"], names))
    groups = palette_model.config.groups
    for name in ("overall", "map"):
        assert torch.equal(mu[:, groups[name]], renamed[:, groups[name]])
    assert not torch.equal(mu[:, groups["colours"]], renamed[:, groups["colours"]])


def test_the_palette_s_cells_are_the_mixture_over_slots(palette_model):
    one = batch_of([[3, 3], [5, 3]])
    decoded = palette_model.decode(torch.randn(1, palette_model.config.latent_size))
    cells = decoded.cells(one["heights"], one["widths"])[0, :10, 1, 0].exp()
    slots = decoded._draw(one["heights"], one["widths"])[0, 1, 0].softmax(0)
    expected = sum(slots[slot] * decoded.palette[0, slot].exp() for slot in range(10))
    torch.testing.assert_close(cells, expected)


def test_the_likelihood_of_a_palette_model_is_that_of_slots_and_used_colours(palette_model):
    one = batch_of([[3, 3], [5, 3]])
    decoded = palette_model.decode(torch.randn(1, palette_model.config.latent_size))
    slots, _ = factor(one["grids"])
    logits = decoded._draw(one["heights"], one["widths"])[0, :2, :2].log_softmax(-1)
    expected = sum(logits[row, column, slots[0, row, column]] for row in range(2) for column in range(2))
    expected = expected + decoded.palette[0, 0, 3] + decoded.palette[0, 1, 5]
    expected = expected + decoded.heights[0, 1] + decoded.widths[0, 1]
    torch.testing.assert_close(decoded.log_prob(one["grids"])[0], expected)


def test_right_counts_the_cells_that_the_mode_has_where_the_size_is_right(model, batch):
    decoded = model.decode(model.encode(batch["grids"])[0])
    decoded.heights = torch.nn.functional.one_hot(batch["heights"] - 1, 30).float()
    decoded.widths = torch.nn.functional.one_hot(batch["widths"] - 1, 30).float()
    if decoded.palette is not None:  # so that no colour is the likeliest of two slots
        decoded.palette = decoded.palette - 50 * (1 - torch.eye(10))
    terms = decoded.terms(**batch)
    expected = ((decoded.mode == batch["grids"]) & (batch["grids"] != 10)).sum((1, 2))
    assert terms.right.tolist() == expected.tolist()
    assert (terms.shape == 1).all()


def test_a_new_residual_block_is_the_identity():
    from utils.vae.spatial import Residual

    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(Residual(4)(x, torch.ones(2, 1, 6, 6)), x)


def test_parts_cover_the_batch_on_canvases_that_hold_them(batch):
    found = list(parts(batch["heights"], batch["widths"], 4))
    assert torch.cat([part for part, _ in found]).sort().values.tolist() == list(range(11))
    for part, side in found:
        longest = torch.maximum(batch["heights"][part], batch["widths"][part]).max()
        assert side % 4 == 0
        assert longest <= side < longest + 4


def test_edges_count_the_cells_from_both_ends():
    place = edges(torch.tensor([6]), torch.tensor([12]), 12, 1)[0]  # (12, 12, 8)
    assert place[4, 11].tolist() == pytest.approx([4 / 30, -2 / 30, 4 / 8, -2 / 8, 11 / 30, -1 / 30, 1, -1 / 8])


@pytest.mark.parametrize("wrong", [torch.zeros(2, 5, 5, dtype=torch.long), torch.zeros(2, 30, 30)])
def test_what_is_no_canvas_is_refused_with_what_was_expected(model, wrong):
    with pytest.raises(ValueError, match=r"expected integers of \(B, 30, 30\)"):
        model.encode(wrong)


def test_latents_of_another_size_are_refused(model):
    with pytest.raises(ValueError, match=rf"this model has \(B, {model.config.latent_size}\)"):
        model.decode(torch.zeros(2, 7))


def test_settings_that_contradict_one_another_are_refused():
    with pytest.raises(ValueError, match="drop one of them"):
        VAEConfig(capacity=5.0, free_bits=0.1)
    with pytest.raises(ValueError, match="at least 1"):
        VAEConfig(widths=(0, 8))
