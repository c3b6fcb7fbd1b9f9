"""Baselines against slow and plain computations of the same thing."""

import numpy as np
import pytest

from utils.arc.grids import to_canvas
from utils.vae.baselines import modal_colour_at_true_size, modal_image, nearest, predictions


def random_grids(count, seed, colours=4, most=12):
    generator = np.random.default_rng(seed)
    return np.stack(
        [to_canvas(generator.integers(colours, size=generator.integers(1, most + 1, 2))) for _ in range(count)]
    )


def test_each_grid_is_filled_with_its_own_most_frequent_colour():
    grids = random_grids(30, 0)
    for grid, filled in zip(grids, modal_colour_at_true_size(grids)):
        inside = grid != 10
        assert (filled[~inside] == 10).all()
        assert set(filled[inside].tolist()) == {int(np.bincount(grid[inside]).argmax())}


def test_the_modal_image_has_the_most_frequent_value_of_each_cell():
    train = random_grids(101, 1)
    image = modal_image(train)
    for row, column in ((0, 0), (3, 5), (11, 11), (29, 29)):
        assert image[row, column] == np.bincount(train[:, row, column]).argmax()


@pytest.mark.parametrize("colours", [2, 9])
def test_the_nearest_training_grid_is_the_one_a_search_of_all_finds(colours):
    queries, train = random_grids(40, 2, colours), random_grids(500, 3, colours)
    apart = (queries[:, None] != train[None]).sum((2, 3))  # (40, 500)
    found = nearest(queries, train)
    assert found.distance.tolist() == apart.min(1).tolist()
    assert found.index.tolist() == apart.argmin(1).tolist()


def test_a_training_grid_is_its_own_nearest_and_canvases_that_are_no_grids_have_one_too():
    train = random_grids(200, 4)
    assert not nearest(train[:50], train).distance.any()
    broken = train[:1].copy()
    broken[0, 0, 0] = 10
    assert nearest(broken, train).distance.tolist() == [1]


def test_few_training_grids_are_enough_and_none_are_an_error():
    train = random_grids(3, 5)
    assert nearest(train[::-1], train).index.tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="No training grid"):
        nearest(train, train[:0])


def test_every_baseline_predicts_every_grid_and_training_grids_are_needed_for_two():
    queries, train = random_grids(7, 8), random_grids(20, 9)
    found = dict(predictions(queries, train))
    assert {name: canvases.shape for name, canvases in found.items()} == dict.fromkeys(
        ["modal colour at true size", "modal image", "nearest training grid"], (7, 30, 30)
    )
    assert list(dict(predictions(queries))) == ["modal colour at true size"]
    assert len(dict(predictions(queries, train, neighbours=False))) == 2
