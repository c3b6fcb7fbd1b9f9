"""Procedural grids: valid canvases of the sizes asked for, and what each kind is named after."""

import numpy as np
import pytest

from utils.arc.grids import from_canvas
from utils.vae.generators import KINDS, generate


def drawn(kind, count=300, seed=0, least=1):
    rng = np.random.default_rng(seed)
    heights, widths = rng.integers(least, 31, (2, count))
    return generate(kind, heights, widths, rng=rng), heights, widths


def grids(kind, **settings):
    return [from_canvas(canvas) for canvas in drawn(kind, **settings)[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_every_canvas_is_valid_and_has_the_size_asked_for(kind):
    canvases, heights, widths = drawn(kind)
    assert canvases.dtype == np.uint8
    for canvas, height, width in zip(canvases, heights, widths):
        assert from_canvas(canvas).shape == (height, width)


@pytest.mark.parametrize("kind", KINDS)
def test_grids_are_a_function_of_the_generator_and_nearly_all_distinct(kind):
    first, again, other = (drawn(kind, seed=seed, least=5)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(np.unique(first.reshape(300, -1), axis=0)) > 270


@pytest.mark.parametrize("kind", KINDS)
def test_at_most_six_colours_are_used_every_colour_somewhere_and_the_background_is_often_black(kind):
    colours = [set(grid.ravel().tolist()) for grid in grids(kind)]
    assert max(map(len, colours)) <= 6
    assert set().union(*colours) == set(range(10))
    assert sum(0 in own for own in colours) > 150  # the background is black in 0.8 of them


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_sizes_and_no_grids_at_all_are_drawn(kind):
    one = np.ones(8, int)
    assert generate(kind, one, one, rng=np.random.default_rng(0)).shape == (8, 30, 30)
    assert generate(kind, one[:0], one[:0], rng=np.random.default_rng(0)).shape == (0, 30, 30)


def test_symmetric_grids_have_a_symmetry():
    def symmetric(grid):
        images = [grid[::-1], grid[:, ::-1], grid[::-1, ::-1], grid.T]
        return any(image.shape == grid.shape and (image == grid).all() for image in images)

    assert all(map(symmetric, grids("symmetric")))
    assert sum(map(symmetric, grids("noise", least=5))) < 30


def test_tiled_grids_repeat_with_a_period():
    """A tile of up to 8, a line, and every other one mirrored: shifted by twice 9 or less, a grid is itself."""

    def repeats(grid):
        tall, wide = grid.shape
        return any(
            (grid[r:] == grid[: tall - r]).all() and (grid[:, c:] == grid[:, : wide - c]).all()
            for r in range(1, min(tall, 18) + 1)
            for c in range(1, min(wide, 18) + 1)
        )

    assert all(map(repeats, grids("tiled", least=19)))
    assert sum(map(repeats, grids("noise", least=19))) < 30
