"""Probes find what is linear in the latents and no more, on tasks they did not see."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils.arc.grids import d4, to_canvas
from utils.vae.probes import logistic, probe, probe_latents, probes_table, properties, ridge, symmetric


def grids(count, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(3, size=generator.integers(1, 5, 2)) for _ in range(count)]


def test_properties_are_those_counted_by_hand():
    canvases = np.stack([to_canvas(np.array(rows)) for rows in ([[1, 2, 1]], [[7, 7], [7, 3], [0, 7]])])
    found = {name: (measure, values.tolist()) for name, (measure, values) in properties(canvases).items()}
    assert found == {
        "height": ("R2", [1, 3]),
        "width": ("R2", [3, 2]),
        "colours": ("R2", [2, 3]),
        "background": ("accuracy", [1, 7]),
        "symmetric": ("accuracy", [1, 0]),
    }


def test_symmetric_is_equal_to_one_of_the_seven_other_images():
    some = grids(300)
    expected = [any(np.array_equal(grid, image) for image in d4(grid)[1:]) for grid in some]
    assert 20 < sum(expected) < 280
    assert symmetric(np.stack([to_canvas(grid) for grid in some])).tolist() == expected


@pytest.mark.parametrize(("rows", "dimensions"), [(50, 8), (8, 50)])
def test_ridge_has_no_gradient_left_and_is_least_squares_without_a_penalty(rows, dimensions):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(rows, dimensions, generator=draw, dtype=torch.float64) + 1
    y = torch.randn(rows, generator=draw, dtype=torch.float64) + 5
    w, b = (part.requires_grad_() for part in ridge(x, y, 0.1))
    ((x @ w + b - y).square().sum() + 0.1 * rows * w.square().sum()).backward()
    assert w.grad.abs().max() < 1e-9
    assert b.grad.abs() < 1e-9
    if rows > dimensions:
        w, b = ridge(x, y, 0.0)
        ones = torch.cat((x, torch.ones(rows, 1, dtype=torch.float64)), 1)
        torch.testing.assert_close(torch.cat((w, b[None])), torch.linalg.lstsq(ones, y[:, None]).solution[:, 0])


def test_logistic_has_hardly_a_gradient_left():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=draw, dtype=torch.float64)
    y = torch.randint(3, (200,), generator=draw)
    w, b = (part.requires_grad_() for part in logistic(x, y, 0.1))
    (F.cross_entropy(x @ w + b, y) + 0.05 * w.square().sum()).backward()
    assert w.grad.abs().max() < 1e-4
    assert b.grad.abs().max() < 1e-4


def test_what_is_linear_in_the_latents_is_read_off_and_what_is_not_there_scores_chance():
    generator = np.random.default_rng(0)
    tasks, amount, kind = np.arange(600) // 3, generator.normal(size=600), generator.integers(3, size=600)
    told = torch.from_numpy(np.stack([amount, kind == 0, kind == 1, kind == 2, *generator.normal(size=(4, 600))], 1))
    told = told @ torch.linalg.qr(torch.randn(8, 8, dtype=told.dtype, generator=torch.Generator().manual_seed(0)))[0]
    silent = torch.from_numpy(generator.normal(size=(600, 8)))
    assert probe("amount", "R2", told, amount, tasks).score > 0.99
    assert probe("kind", "accuracy", told, kind, tasks).score > 0.99
    nothing = probe("amount", "R2", silent, amount, tasks)
    assert nothing.score == pytest.approx(nothing.chance, abs=0.05)
    assert nothing.chance == pytest.approx(0, abs=0.05)
    nothing = probe("kind", "accuracy", silent, kind, tasks)
    assert nothing.score == pytest.approx(1 / 3, abs=0.1)
    assert nothing.chance == pytest.approx(1 / 3, abs=0.1)


def test_a_probe_is_scored_on_other_tasks():
    # The value is the task's own, and so are the latents: learnt by heart, it is worth nothing on other tasks.
    tasks = np.repeat(np.arange(40), 10)
    generator = np.random.default_rng(0)
    codes = torch.from_numpy(generator.normal(size=(40, 60)))[torch.from_numpy(tasks)]
    found = probe("own", "R2", codes, generator.normal(size=40)[tasks], tasks)
    assert found.score < 0.2
    assert found.fitted == found.scored == 200


def test_dimensions_that_hardly_move_do_not_drown_those_that_do():
    generator = np.random.default_rng(0)
    amount = generator.normal(size=200)
    quiet = 0.01 * generator.normal(size=(200, 400))
    codes = torch.from_numpy(np.concatenate([amount[:, None], quiet], 1))
    assert probe("amount", "R2", codes, amount, np.arange(200)).score > 0.95


def test_latents_that_never_move_and_values_that_never_vary_raise_nothing():
    silent = torch.zeros(40, 3)
    constant = probe("x", "R2", silent, np.ones(40), np.arange(40))
    assert np.isnan(constant.score)
    found = probe("x", "accuracy", silent, np.r_[np.zeros(30), np.ones(10)], np.arange(40))
    assert found.score == found.chance


def test_every_property_is_probed_and_too_few_tasks_are_refused():
    canvases = np.stack([to_canvas(grid) for grid in grids(60)])
    inside = torch.from_numpy((canvases != 10).sum((1, 2), keepdims=True)[:, :, 0].astype(float))
    found = probe_latents(inside, canvases, np.arange(60))
    assert probes_table(found)["name"].tolist() == ["height", "width", "colours", "background", "symmetric"]
    with pytest.raises(ValueError, match="at least 4"):
        probe_latents(inside, canvases, np.arange(60) % 3)
