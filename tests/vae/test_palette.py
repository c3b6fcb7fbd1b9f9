"""Slots and palette against a count by hand, and what they do not depend on."""

import numpy as np
import pytest
import torch

from utils.arc.grids import to_canvas
from utils.vae.palette import distinct, factor


def canvases(*grids):
    return torch.from_numpy(np.stack([to_canvas(np.array(grid, np.uint8)) for grid in grids]))


@pytest.fixture
def random_grids():
    rng = np.random.default_rng(0)
    return canvases(*(rng.integers(0, 10, rng.integers(1, 31, 2)) for _ in range(20)))


def test_the_most_frequent_colour_is_slot_0_and_ties_go_by_reading_order():
    # 7 five times; 3 and 1 twice each, 3 first; 0 once
    slots, palette = factor(canvases([[7, 7, 3], [1, 7, 3], [1, 7, 7], [0, 7, 7]]))
    assert palette[0].tolist() == [7, 3, 1, 0, -1, -1, -1, -1, -1, -1]
    assert slots[0, :4, :3].tolist() == [[0, 0, 1], [2, 0, 1], [2, 0, 0], [3, 0, 0]]
    assert (slots[0, 4:] == 10).all()
    assert (slots[0, :, 3:] == 10).all()


def test_slots_and_palette_together_are_the_grid(random_grids):
    slots, palette = factor(random_grids)
    named = torch.cat((palette, torch.full((20, 1), 10)), 1)
    assert torch.equal(named.gather(1, slots.flatten(1)).view_as(slots).to(torch.uint8), random_grids)


def test_renaming_colours_changes_the_palette_alone(random_grids):
    names = torch.cat((torch.randperm(10, generator=torch.Generator().manual_seed(0)), torch.tensor([10])))
    slots, palette = factor(random_grids)
    renamed, other = factor(names[random_grids.long()].to(torch.uint8))
    assert torch.equal(renamed, slots)
    assert torch.equal(other, torch.where(palette < 0, -1, names[palette]))


def test_the_slot_of_a_cell_counts_the_colours_that_are_more_frequent(random_grids):
    slots, palette = factor(random_grids)
    for grid, used in zip(random_grids, palette):
        counts = np.bincount(grid.flatten().numpy(), minlength=11)[:10]
        found = counts[used[used >= 0].numpy()]
        assert (np.diff(found) <= 0).all()
        assert len(found) == (counts > 0).sum()


def test_distinct_gives_every_slot_another_colour_and_takes_the_surest_first():
    scores = torch.randn(50, 10, 10, generator=torch.Generator().manual_seed(0))
    colours = distinct(scores, torch.ones(50, 10, dtype=torch.bool))
    assert (colours.sort(1).values == torch.arange(10)).all()
    best = scores.flatten(1).argmax(1)
    assert torch.equal(colours[torch.arange(50), best // 10], best % 10)


def test_distinct_leaves_a_palette_that_has_no_colour_twice_as_it_is():
    palette = torch.stack([torch.randperm(10, generator=torch.Generator().manual_seed(seed)) for seed in range(9)])
    scores = torch.nn.functional.one_hot(palette, 10).float()
    assert torch.equal(distinct(scores, torch.ones(9, 10, dtype=torch.bool)), palette)


def test_distinct_serves_the_slots_that_are_shown_first():
    # Slot 1 is not shown, and surest of all that it is red; slot 0 is shown, and takes red all the same.
    scores, shown = torch.zeros(1, 10, 10), torch.zeros(1, 10, dtype=torch.bool)
    scores[0, 1, 2], scores[0, 0, 2], shown[0, 0] = 9.0, 1.0, True
    colours = distinct(scores, shown)
    assert colours[0, 0] == 2
    assert (colours.sort(1).values == torch.arange(10)).all()
