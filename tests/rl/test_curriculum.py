"""The curriculum: shares by what there is to learn, tasks in turn, all a function of the seed and what was told."""

from collections import Counter

import numpy as np
import pytest

from utils.rl.curriculum import FLOOR, PACE, Curriculum

LEVELS = [1] * 10 + [2] * 6 + [5] * 3


def test_at_first_all_levels_have_equal_shares():
    assert Curriculum(LEVELS, seed=0).shares() == pytest.approx({1: 1 / 3, 2: 1 / 3, 5: 1 / 3})


def test_shares_are_as_the_variance_of_passing_but_no_level_is_forgotten():
    curriculum = Curriculum(LEVELS, seed=0)
    for _ in range(2000):
        curriculum.update([1, 2, 5], [1.0, 0.3, 0.0])
    weights = np.array([FLOOR, 0.3 * 0.7, FLOOR])  # p (1 - p) of 1 and of 0 is 0
    assert list(curriculum.shares().values()) == pytest.approx(list(weights / weights.sum()))


def test_a_rate_is_the_moving_average_of_what_was_told_task_by_task():
    curriculum = Curriculum(LEVELS, seed=0)
    curriculum.update([2, 1, 2], [1.0, 0.25, 0.5])
    # Two tasks of mean 0.75 count as 0.75 told twice: each time PACE of the way there.
    two = 0.5
    for _ in range(2):
        two += PACE * (0.75 - two)
    assert curriculum.rates == pytest.approx({1: 0.5 + PACE * (0.25 - 0.5), 2: two, 5: 0.5})


def test_draws_follow_the_shares():
    curriculum = Curriculum(LEVELS, seed=0)
    for _ in range(2000):
        curriculum.update([1, 2, 5], [0.5, 0.1, 0.0])
    shares, drawn = curriculum.shares(), Counter()
    for step in range(100):
        drawn.update(LEVELS[at] for at in curriculum.draw(50, step=step))
    for level, share in shares.items():
        deviation = (share * (1 - share) / 5000) ** 0.5
        assert abs(drawn[level] / 5000 - share) < 4 * deviation


def test_each_task_of_a_level_comes_once_before_any_comes_again_in_another_order():
    curriculum = Curriculum([3] * 7, seed=0)
    drawn = np.concatenate([curriculum.draw(count, step=step) for step, count in enumerate((5, 2, 9, 5))])
    rounds = drawn.reshape(3, 7)
    assert (np.sort(rounds, axis=1) == np.arange(7)).all()
    assert len({tuple(one) for one in rounds.tolist()}) == 3


def test_draws_are_a_function_of_seed_and_step():
    def draws(seed):
        curriculum = Curriculum(LEVELS, seed=seed)
        return [curriculum.draw(8, step=step).tolist() for step in range(4)]

    assert draws(0) == draws(0)
    assert draws(0) != draws(1)


def test_one_that_is_put_back_draws_what_the_other_would_have():
    whole, fresh = Curriculum(LEVELS, seed=4), Curriculum(LEVELS, seed=4)
    for step in range(3):
        whole.draw(8, step=step)
        whole.update([1, 2, 5], [0.9, 0.4, 0.1])
    fresh.restore(whole.state())
    assert fresh.shares() == whole.shares()
    assert fresh.draw(8, step=3).tolist() == whole.draw(8, step=3).tolist()
