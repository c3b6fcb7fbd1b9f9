"""Objects of grids, checked against scipy's labelling of one colour at a time."""

import numpy as np
import pytest
from scipy import ndimage

from utils.arc.grids import d4
from utils.arc.objects import background, count_objects, find_objects, label, stacked


def spiral():
    """A path one cell wide that winds to the middle of 13x13, and so needs many steps to be seen as one region."""
    grid, row, column, turns = np.zeros((13, 13), np.uint8), 0, 0, [(0, 1), (1, 0), (0, -1), (-1, 0)]
    grid[0, 0] = 1
    for turn, length in enumerate([12, 12, 12, 10, 10, 8, 8, 6, 6, 4, 4, 2, 2]):
        for _ in range(length):
            row, column = row + turns[turn % 4][0], column + turns[turn % 4][1]
            grid[row, column] = 1
    return grid


@pytest.fixture(scope="module")
def grids():
    rng = np.random.default_rng(0)
    drawn = [rng.integers(rng.integers(1, 5), size=rng.integers(1, 31, 2), dtype=np.uint8) for _ in range(200)]
    checks = np.indices((30, 30)).sum(0).astype(np.uint8) % 2
    return [*drawn, spiral(), checks, np.full((30, 30), 7, np.uint8), np.array([[3]], np.uint8)]


def regions(grid):
    """{(colour, places of its cells)} by scipy, whose default is that sides touch and corners do not."""
    found = set()
    for colour in np.unique(grid):
        numbers, count = ndimage.label(grid == colour)
        found |= {(int(colour), tuple(np.flatnonzero(numbers == number))) for number in range(1, count + 1)}
    return found


def test_labels_are_one_number_a_region_and_that_of_its_first_cell(grids):
    stack = stacked(grids)
    labels = label(stack)
    area = stack[0].size
    for number, grid in enumerate(grids):
        own = labels[number, : grid.shape[0], : grid.shape[1]]
        found = {(int(grid[own == name][0]), tuple(np.flatnonzero(own == name))) for name in np.unique(own)}
        assert found == regions(grid)
        for name in np.unique(own):
            row, column = np.argwhere(own == name)[0]
            assert name == number * area + row * stack.shape[2] + column


def test_objects_are_the_regions_that_are_not_of_the_background(grids):
    counts = count_objects(stacked(grids))
    for grid, count in zip(grids, counts):
        below = background(grid)
        expected = sorted((colour, len(cells)) for colour, cells in regions(grid) if colour != below)
        found = find_objects(grid)
        assert sorted((one.colour, one.cells) for one in found) == expected
        assert count == len(expected)
        assert [one.cells for one in found] == sorted((one.cells for one in found), reverse=True)


def test_a_box_is_that_of_the_cells(grids):
    for grid in grids[::10]:
        numbers = {(colour, cells): cells for colour, cells in regions(grid) if colour != background(grid)}
        boxes = set()
        for colour, cells in numbers:
            rows, columns = np.divmod(cells, grid.shape[1])
            boxes.add((colour, len(cells), rows.min(), columns.min(), rows.max(), columns.max()))
        found = find_objects(grid)
        assert {(o.colour, o.cells, o.top, o.left, o.bottom, o.right) for o in found} == boxes


def test_the_background_is_black_else_the_colour_of_most_cells_else_in_fewest_regions():
    assert background(np.array([[7, 7, 0]])) == 0
    assert background(np.array([[7, 7, 2]])) == 7
    assert background(np.array([[2, 7, 7, 2]])) == 7  # two cells each; 7 in one region, 2 in two
    assert background(np.array([[7, 2]])) == 2


def test_the_count_is_the_same_for_every_image_and_renaming_that_keeps_black(grids):
    rng = np.random.default_rng(1)
    for grid in grids[::5]:
        names = np.concatenate(([0], rng.permutation(9) + 1)).astype(np.uint8)
        counts = count_objects(stacked([names[image] for image in d4(grid)]))
        assert set(counts) == {count_objects(grid[None])[0]}
