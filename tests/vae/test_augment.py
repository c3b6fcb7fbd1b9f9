"""Augmentation: D4 about the grid itself, and renaming of colours, checked against numpy one grid at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils.arc.grids import canonical_keys, d4, from_canvas, to_canvas
from utils.vae.augment import INVERSE, AugmentConfig, augment, draw_names, rename, turn


@pytest.fixture
def batch():
    """64 grids of every shape that matters: 1x1, 1xn, square, oblong, full."""
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 30), (30, 1), (30, 30), (5, 5), *rng.integers(1, 31, (59, 2))]
    grids = [rng.integers(10, size=shape, dtype=np.uint8) for shape in shapes]
    return {
        "grids": torch.from_numpy(np.stack([to_canvas(grid) for grid in grids])),
        "heights": torch.tensor([grid.shape[0] for grid in grids]),
        "widths": torch.tensor([grid.shape[1] for grid in grids]),
    }


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def all_of(element, batch):
    return torch.full((len(batch["grids"]),), element)


@pytest.mark.parametrize("element", range(8))
def test_each_element_is_the_image_that_numpy_makes_kept_at_the_top_left(batch, element):
    turned = turn(batch, all_of(element, batch))
    for before, after, height, width in zip(batch["grids"], turned["grids"], turned["heights"], turned["widths"]):
        grid = from_canvas(after.numpy())  # raises where the rectangle or the padding is broken
        np.testing.assert_array_equal(grid, d4(from_canvas(before.numpy()))[element])
        assert grid.shape == (height, width)
    assert turned["grids"].dtype == batch["grids"].dtype


def test_every_element_is_undone_by_its_inverse(batch):
    elements = torch.arange(64) % 8
    assert not same(turn(batch, elements), batch)
    assert same(turn(turn(batch, elements), INVERSE[elements]), batch)


def test_four_quarter_turns_are_the_identity(batch):
    turned = batch
    for _ in range(4):
        turned = turn(turned, all_of(1, batch))
    assert same(turned, batch)


def test_a_renaming_is_undone_by_its_inverse_and_keeps_the_padding(batch):
    names = draw_names(64, keep_black=False, generator=generator())
    renamed = rename(batch["grids"], names)
    assert torch.equal(renamed == 10, batch["grids"] == 10)
    assert not torch.equal(renamed, batch["grids"])
    assert torch.equal(rename(renamed, names.argsort(1)), batch["grids"])


def test_renaming_commutes_with_d4(batch):
    names, elements = draw_names(64, keep_black=False, generator=generator()), torch.arange(64) % 8
    renamed_first = turn({**batch, "grids": rename(batch["grids"], names)}, elements)
    turned_first = turn(batch, elements)
    assert torch.equal(renamed_first["grids"], rename(turned_first["grids"], names))


def test_drawn_names_are_permutations_that_fix_the_outside_and_black_where_asked():
    free, kept = (draw_names(2000, keep_black=keep, generator=generator()) for keep in (False, True))
    for names in (free, kept):
        assert torch.equal(names.sort(1).values, torch.arange(11).expand(2000, 11))
        assert (names[:, 10] == 10).all()
    assert (kept[:, 0] == 0).all()
    # Of 2000 uniform draws, colour 0 gets each of 10 names 200 times, give or take 5 standard deviations of 13.4.
    assert (free[:, 0].bincount(minlength=10) - 200).abs().max() < 67


def test_augmented_grids_have_the_canonical_form_they_had(batch):
    changed = augment(batch, AugmentConfig(keep_black=False), generator=generator())
    forms = [
        canonical_keys(*(part[name].numpy() for name in ("grids", "heights", "widths"))) for part in (batch, changed)
    ]
    assert forms[0] == forms[1]
    assert not torch.equal(changed["grids"], batch["grids"])


def test_settings_say_what_may_change_and_the_generator_decides_the_rest(batch):
    assert same(augment(batch, AugmentConfig(d4=False, colours=False), generator=generator()), batch)
    only_turned = augment(batch, AugmentConfig(colours=False), generator=generator())
    before, after = (F.one_hot(part["grids"].long(), 11).sum((1, 2)) for part in (batch, only_turned))
    assert torch.equal(before, after)  # as many cells of each colour in each grid
    only_renamed = augment(batch, AugmentConfig(d4=False), generator=generator())
    assert torch.equal(only_renamed["grids"] == 0, batch["grids"] == 0)
    first, again, other = (augment(batch, AugmentConfig(), generator=generator(seed)) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_long_grids_stay_long(batch):
    long = {**batch, "grids": batch["grids"].long()}
    changed = augment(long, AugmentConfig(), generator=generator())
    assert changed["grids"].dtype == torch.int64
    assert torch.equal(changed["grids"], augment(batch, AugmentConfig(), generator=generator())["grids"].long())
