"""Groups of tasks by union-find, and their split."""

import random
from collections import Counter

import pytest

from utils.arc.groups import group, split_groups


def test_tasks_that_share_a_key_are_joined_also_through_others():
    shared = [("a", 1), ("b", 1), ("b", 2), ("c", 2), ("d", 3), ("e", 4), ("f", 4)]
    assert group("fedcbag", shared) == [["a", "b", "c"], ["d"], ["e", "f"], ["g"]]


def test_groups_are_the_components_of_the_graph_in_any_order():
    """Against a search from each task over a random graph of tasks and keys."""
    rng = random.Random(0)
    tasks = [f"{number:03}" for number in range(200)]
    shared = [(rng.choice(tasks), rng.randrange(150)) for _ in range(220)]
    expected = set()
    for task in tasks:
        reached, size = {task}, 0
        while len(reached) > size:
            size = len(reached)
            found = {key for other, key in shared if other in reached}
            reached |= {other for other, key in shared if key in found}
        expected.add(tuple(sorted(reached)))
    groups = group(tasks, shared)
    assert groups == [list(component) for component in sorted(expected)]
    rng.shuffle(tasks)
    rng.shuffle(shared)
    assert group(tasks, shared) == groups


def test_groups_are_split_whole_at_the_shares_of_their_number_by_the_seed():
    groups = [[f"{number}a", f"{number}b"] for number in range(100)]
    split = split_groups(groups, (0.8, 0.1, 0.1), seed=0)
    assert Counter(split[first] for first, _ in groups) == {"train": 80, "validation": 10, "test": 10}
    assert all(split[first] == split[second] for first, second in groups)
    assert split == split_groups(groups, (0.8, 0.1, 0.1), seed=0)
    assert split != split_groups(groups, (0.8, 0.1, 0.1), seed=1)


def test_too_few_groups_for_three_splits_say_so():
    with pytest.raises(ValueError, match=r"3 groups of tasks .* leave a split empty \(train 2, validation 1, test 0\)"):
        split_groups([["a"], ["b"], ["c"]], (0.8, 0.1, 0.1), seed=0)
