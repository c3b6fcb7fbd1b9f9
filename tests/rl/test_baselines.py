"""Baselines write what they say, and the judge sees through them."""

import numpy as np
import pytest

from utils.arc.tasks import Pair, Task
from utils.rl.baselines import (
    CONSTANT,
    IDENTITY,
    RANDOM,
    always,
    constant,
    evaluate_baselines,
    identity,
    random_programs,
)
from utils.rl.evaluate import EvaluationConfig
from utils.rl.reward import RewardConfig
from utils.rl.sandbox import Job


def grid(*rows):
    return np.array(rows, np.uint8)


def run(sandbox, program, given):
    (outcome,) = sandbox.run([Job(program, (given,))])
    return outcome.outputs[0]


def test_identity_gives_its_input(open_sandbox, flip_problems):
    given = grid([1, 2, 3])
    assert np.array_equal(run(open_sandbox, identity(flip_problems[0].task), given), given)


def test_constant_gives_the_most_frequent_train_output(open_sandbox):
    often, once = grid([1, 2], [3, 4]), grid([5])
    pairs = tuple(Pair(grid([at]), output) for at, output in enumerate((once, often, often)))
    task = Task("most", pairs, pairs[:1], "made up")
    assert np.array_equal(run(open_sandbox, constant(task), grid([0])), often)
    tied = Task("tied", pairs[:2], pairs[:1], "made up")
    assert np.array_equal(run(open_sandbox, constant(tied), grid([0])), once)
    # As many bytes in another shape are another output.
    turned = tuple(
        Pair(grid([at]), output) for at, output in enumerate((once, often.reshape(1, 4), often.reshape(4, 1)))
    )
    assert np.array_equal(run(open_sandbox, constant(Task("turned", turned, pairs, "made up")), grid([0])), once)


def test_the_judge_counts_identity_and_constant_as_tricks(flip_problems, open_sandbox, ppo_trained):
    config = EvaluationConfig(samples=3, ks=(1, 2), bootstrap=50)
    found = evaluate_baselines(
        flip_problems, ppo_trained.setting.pool.train, sandbox=open_sandbox, reward=RewardConfig(), config=config
    )
    assert list(found) == [IDENTITY, CONSTANT, RANDOM]
    assert found[IDENTITY].endings["identity"] == 1
    assert found[CONSTANT].endings["constant"] == 1
    for name in (IDENTITY, CONSTANT):
        assert found[name].rates["pass@1"].value == found[name].rates["greedy"].value == 0
    assert found[RANDOM].metrics == ["pass@1", "pass@2"]  # nothing is likeliest


def test_random_programs_solve_as_many_tasks_as_there_are_programs_that_do(open_sandbox, ppo_trained):
    """Against running every training program on every test task: the mean share is what random draws pass."""
    setting = ppo_trained.setting
    problems = setting.test[:4]
    examples = list({one.program: one for one in setting.pool.train[:40]}.values())
    hits = np.array([
        [
            all(np.array_equal(made, pair.output) for made, pair in zip(outcome.outputs, one.task.test))
            for outcome in open_sandbox.run(
                [Job(each.program, tuple(pair.input for pair in one.task.test)) for each in examples]
            )
        ]
        for one in problems
    ])  # fmt: skip
    assert hits.any()
    config = EvaluationConfig(samples=400, ks=(1,), at_once=2000, bootstrap=50)
    found = evaluate_baselines(problems, examples, sandbox=open_sandbox, reward=RewardConfig(), config=config)[RANDOM]
    shares = hits.mean(1)
    deviations = np.sqrt(shares * (1 - shares) / 400)
    assert np.all(np.abs(found.values("pass@1") - shares) <= 4.5 * deviations)


def test_writers_write_one_row_a_problem(flip_problems, ppo_trained):
    examples = ppo_trained.setting.pool.train
    write = random_programs(examples)
    drawn = write(flip_problems, 5, seed=1)
    assert len(drawn.programs) == 30
    assert set(drawn.programs) <= {one.program for one in examples}
    assert drawn.programs == write(flip_problems, 5, seed=1).programs != write(flip_problems, 5, seed=2).programs
    assert write(flip_problems, None, seed=1) is None
    named = always(lambda task: task.id)(flip_problems, 2, seed=0)
    assert named.programs == [one.task.id for one in flip_problems for _ in range(2)]
    assert len(always(identity)(flip_problems, None, seed=0).programs) == 6


def test_each_different_program_is_drawn_as_often_as_any_other(flip_problems, ppo_trained):
    """However many examples it made: of two programs, one of 1 and one of 19 examples, half the draws each."""
    one, other = [next(x for x in ppo_trained.setting.pool.train if name in x.program) for name in ("flip", "fall")]
    drawn = random_programs([one, *[other] * 19])(flip_problems[:1], 1000, seed=0).programs
    assert abs(drawn.count(one.program) - 500) < 4.5 * 1000**0.5 / 2


def test_random_programs_need_an_example():
    with pytest.raises(ValueError, match="at least one"):
        random_programs([])
