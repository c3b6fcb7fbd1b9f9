"""What a person is shown of rewards and of a rollout are the numbers that training goes by."""

import ast

import numpy as np
import pytest
import torch

from utils.rl.closeup import TASKS, explain_reward, hand_made, look_closely
from utils.rl.recipes import open_trained
from utils.rl.reference import reference_of
from utils.rl.reward import RewardConfig, score, truncated
from utils.rl.sandbox import Job

SAMPLES = 6


def scored_alone(program, task, sandbox, reward):
    """One program's score, straight from the sandbox."""
    (outcome,) = sandbox.run([Job(program, tuple(pair.input for pair in (*task.test, *task.train)))])
    return score(outcome, program, task.test, reward, shown=task.train)


@pytest.fixture(scope="module")
def trained(ppo_trained):
    """The run's policy, to be changed by nothing."""
    return open_trained(ppo_trained.run.path)


@pytest.fixture(scope="module")
def close(trained, open_sandbox):
    config = trained.recipe.ppo.replace(samples=SAMPLES)
    return look_closely(
        trained.policy, reference_of(trained.policy), trained.setting.game(open_sandbox), config, seed=5
    )


@pytest.mark.parametrize("number", range(6))
def test_of_four_programs_made_by_hand_only_the_one_that_made_the_task_pays(number, trained, open_sandbox):
    example, reward = trained.setting.pool.train[number], trained.recipe.reward
    solves, *others = explain_reward(example, open_sandbox, reward).values()
    assert solves.passed == 1
    assert solves.reward > 1  # every pair, and a little for brevity
    for one in others:
        assert one.passed == 0
        assert one.reward <= 0
    assert [one.trick for one in others] == ["identity", "literal", ""]
    assert others[-1].fault == "runtime"


def test_explained_rewards_are_those_of_score(trained, open_sandbox):
    example, reward = trained.setting.pool.train[0], RewardConfig(length_bonus=0.1, runtime=-0.7)
    found = explain_reward(example, open_sandbox, reward)
    assert list(found) == list(hand_made(example))
    for name, program in hand_made(example).items():
        assert found[name] == scored_alone(program, example.task, open_sandbox, reward)
    assert found["a program that fails"].reward == pytest.approx(-0.7)


def test_programs_made_by_hand_hold_no_hidden_output(trained):
    for example in trained.setting.pool.train[:20]:
        shown = {pair.output.tobytes() for pair in example.task.train}
        literal = ast.literal_eval(hand_made(example)["a shown output, whatever comes"].partition("return ")[2])
        assert np.array(literal, np.uint8).tobytes() in shown


def test_the_table_says_what_score_says_of_each_program(close, trained, open_sandbox):
    setting, reward = trained.setting, trained.recipe.reward
    table = close.table
    assert len(table) == TASKS * SAMPLES
    assert list(table["task"]) == [one.task.id for one in setting.train[:TASKS] for _ in range(SAMPLES)]
    finished = close.rollout.responses.finished.tolist()
    for at, (row, program, whole) in enumerate(zip(table.to_dict("records"), close.rollout.programs, finished)):
        task = setting.train[at // SAMPLES].task
        one = scored_alone(program, task, open_sandbox, reward) if whole else truncated(program, reward)
        assert row["reward"] == round(one.reward, 3)
        assert row["why"].endswith(f"{one.passed:.0%} of hidden pairs")
        assert [name for name in (one.trick, one.fault) if name] == row["why"].split(", ")[:-1]
        lines = [line for line in row["program"].split("; ") if line]
        assert lines == [line.strip() for line in program.splitlines()[1:] if line.strip()]
    assert 0 < (table["reward"] > 1).sum() < len(table)  # programs of both kinds were met


def test_better_programs_of_a_task_have_the_higher_advantage(close):
    """At lambda 0.95 what a program earns reaches all its tokens, so the one that earned most has the larger mean."""
    told = 0
    for _, rows in close.table.groupby("task", sort=False):
        best, worst = rows["reward"].idxmax(), rows["reward"].idxmin()
        if rows["reward"][best] > 1 > rows["reward"][worst]:
            assert rows["advantage a token"][best] > rows["advantage a token"][worst]
            told += 1
    assert told


def test_the_advantage_of_a_program_is_the_mean_of_its_tokens_and_that_of_the_batch_is_0(close):
    lengths = [len(row) for row in close.tokens]
    means = [one[:n].mean().item() for one, n in zip(close.trajectories.advantages, lengths)]
    assert list(close.table["advantage a token"]) == pytest.approx(means, abs=0.0051)
    assert np.average(means, weights=lengths) == pytest.approx(0, abs=1e-5)


def test_tokens_spell_the_program_and_carry_the_policys_own_numbers(close, trained):
    policy, rollout = trained.policy, close.rollout
    texts = policy.programs(rollout.responses)
    lengths = rollout.responses.mask.sum(1).tolist()
    assert [len(row) for row in close.tokens] == lengths
    assert ["".join(row) for row in close.tokens] == texts
    given = (rollout.prompts, rollout.prompt_mask, rollout.responses.ids, rollout.responses.mask)
    with torch.no_grad():
        scores = policy(*given, trained.recipe.ppo.sample)
    torch.testing.assert_close(close.trajectories.logprobs, scores.logprobs, atol=1e-5, rtol=0)
    torch.testing.assert_close(close.trajectories.values, scores.values, atol=1e-5, rtol=0)


def test_one_program_is_drawn_with_the_numbers_of_its_tokens(close):
    for number in (None, 3):
        at = int(close.rollout.scores.argmax()) if number is None else number
        n, figure = len(close.tokens[at]), close.plot(number)
        (values,) = (line.get_ydata() for line in figure.axes[1].lines if len(line.get_ydata()) == n)
        assert values == pytest.approx(close.trajectories.values[at, :n].tolist())
        for axis, drawn in ((0, close.trajectories.logprobs), (2, close.trajectories.advantages)):
            bars = sorted((bar.get_x(), bar.get_height()) for bar in figure.axes[axis].patches)
            assert [height for _, height in bars] == pytest.approx(drawn[at, :n].tolist())


def test_looking_changes_nothing_and_is_a_function_of_the_seed(close, trained, open_sandbox):
    policy, config = trained.policy, trained.recipe.ppo.replace(samples=SAMPLES)
    before = {name: one.clone() for name, one in policy.state_dict().items()}
    game = trained.setting.game(open_sandbox)
    again, other = (look_closely(policy, reference_of(policy), game, config, seed=seed) for seed in (5, 6))
    assert again.table.equals(close.table)
    assert other.rollout.programs != close.rollout.programs
    assert all(torch.equal(one, before[name]) for name, one in policy.state_dict().items())
    assert all(one.grad is None for one in policy.parameters())


def test_programs_that_were_cut_off_are_told_so(trained, open_sandbox):
    config = trained.recipe.ppo.replace(samples=2, sample={"max_new_tokens": 1})
    found = look_closely(trained.policy, reference_of(trained.policy), trained.setting.game(open_sandbox), config)
    cut = [not whole for whole in found.rollout.responses.finished.tolist()]
    assert any(cut)
    assert [why.startswith("truncated") for why in found.table["why"]] == cut
