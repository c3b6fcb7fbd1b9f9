"""ARC grids: what is one, its symmetric images, its canonical form, its canvas."""

import itertools

import numpy as np
import pytest

from utils.arc.grids import (
    GridError,
    canonical,
    canonical_keys,
    check_grid,
    d4,
    from_canvas,
    keys,
    sizes,
    to_canvas,
)

L = np.array([[1, 1, 1], [1, 0, 0]], np.uint8)


def test_the_images_of_a_grid_are_eight_ways_of_reading_it():
    """By the corner that is read first and the side along which: written out by hand."""
    images = {"/".join("".join(map(str, row)) for row in image) for image in d4(np.array([[1, 2, 3], [4, 5, 6]]))}
    lying, standing = {"123/456", "321/654", "456/123", "654/321"}, {"14/25/36", "41/52/63", "36/25/14", "63/52/41"}
    assert images == lying | standing


def test_the_canonical_form_is_the_least_of_every_image_under_every_renaming():
    """Against a search over 8 images and the 6 renamings of 3 colours, and so over all that begin with 0, 1, 2."""
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (2, 3), (3, 2), (3, 3), (1, 5)]:
        grid = rng.integers(3, size=(height, width))
        found = min(
            (image.shape, np.array(names)[image].ravel().tolist())
            for image in d4(grid)
            for names in itertools.permutations(range(3))
        )
        form = canonical(grid)
        assert (form.shape, form.ravel().tolist()) == found


def test_the_canonical_form_is_shared_by_images_in_any_colours_and_by_nothing_else():
    rng = np.random.default_rng(1)
    grid = rng.integers(10, size=(4, 7))
    for image in d4(grid):
        np.testing.assert_array_equal(canonical(rng.permutation(10)[image]), canonical(grid))
    other = grid.copy()
    other[0, 0] = (other[0, 0] + 1) % 10
    assert canonical(other).tobytes() != canonical(grid).tobytes()


def test_keys_are_equal_exactly_for_equal_forms_whatever_the_order_and_shapes():
    rng = np.random.default_rng(2)
    grids = [rng.integers(2, size=rng.integers(1, 4, 2)) for _ in range(200)]
    canvases = np.stack([to_canvas(grid) for grid in grids])
    forms = [(canonical(grid).shape, canonical(grid).tobytes()) for grid in grids]
    found = canonical_keys(canvases, *sizes(canvases))
    assert len(set(found)) == len(set(forms)) == len(set(zip(found, forms))) > 10
    exact = [(grid.shape, grid.tobytes()) for grid in grids]
    assert len(set(keys(canvases))) == len(set(exact)) == len(set(zip(keys(canvases), exact)))
    assert canonical_keys(canvases[:0], *sizes(canvases[:0])) == keys(canvases[:0]) == []


def test_a_canvas_gives_its_grid_back():
    canvas = to_canvas(L)
    assert canvas.shape == (30, 30)
    assert (canvas == 10).sum() == 900 - 6
    np.testing.assert_array_equal(from_canvas(canvas), L)
    full = np.random.default_rng(0).integers(10, size=(30, 30), dtype=np.uint8)
    np.testing.assert_array_equal(from_canvas(to_canvas(full)), full)


def test_a_canvas_without_a_rectangle_at_its_corner_is_refused():
    hole, moved = to_canvas(L), np.roll(to_canvas(L), 1, axis=0)
    hole[0, 1] = 10
    for canvas in (hole, moved, np.full((30, 30), 10)):
        with pytest.raises(GridError, match="no rectangle at the top left"):
            from_canvas(canvas)
    with pytest.raises(GridError, match=r"shape \(2, 3\); expected \(30, 30\)"):
        from_canvas(L)


def test_rows_become_a_grid_of_their_own():
    grid = check_grid([[0, 9], [1, 2]])
    assert grid.dtype == np.uint8
    assert grid.tolist() == [[0, 9], [1, 2]]
    given = np.array([[3]], np.int64)
    check_grid(given)[0, 0] = 4
    assert given[0, 0] == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2], [3]], "row 1 has 1 cells and row 0 has 2; expected a rectangle"),
        ([[1, 10]], "colour 10 at row 0, column 1; expected 0 to 9"),
        ([[1], [-1]], "colour -1 at row 1, column 0"),
        ([[1, 2.0]], "row 0 holds .*; expected whole numbers"),
        ([[True, 1]], "row 0 holds .*; expected whole numbers"),
        ([[None]], "row 0 holds .*; expected whole numbers"),
        ([], "is no grid; expected a list of rows"),
        ([[]], "row 0 has 0 cells"),
        ([1, 2], "is no grid"),
        ("01", "is no grid"),
        ([[0] * 31], "1x31 cells; expected sides of 1 to 30"),
        (np.zeros((2, 2)), "type float64; expected .* integers"),
        (np.zeros(2, int), r"shape \(2,\)"),
        (np.zeros((0, 3), int), "0x3 cells"),
    ],
)
def test_what_is_no_grid_is_refused_with_its_fault(rows, message):
    with pytest.raises(GridError, match=message):
        check_grid(rows)
