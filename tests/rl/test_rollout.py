"""A rollout: programs drawn for tasks, run once each in the sandbox, and scored on the hidden pairs alone."""

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.rl.policy import CodePolicy
from utils.rl.reward import RewardConfig, normalise
from utils.rl.rollout import collect, judge
from utils.rl.sampling import SampleConfig
from utils.rl.sandbox import Sandbox
from utils.rl.vocabulary import PieceTokenizer

FABRIC = Fabric(accelerator="cpu", devices=1)
SAMPLE = SampleConfig(max_new_tokens=2)
RIGHT, WRONG = (f"def solve(grid):\n    return {name}(grid)\n" for name in ("flip_columns", "flip_rows"))


class TwoNames(PieceTokenizer):
    """Bans everything but flip_columns, which solves the tasks, flip_rows, and the end."""

    @property
    def banned(self):
        kept = {self.eos_id, *(self.pieces[name] for name in self.names)}
        return tuple(one for one in range(self.vocab_size) if one not in kept)


class Listening(Sandbox):
    """A sandbox that keeps the jobs it was given."""

    jobs = ()

    def run(self, jobs):
        self.jobs = [*self.jobs, *jobs]
        return super().run(jobs)


@pytest.fixture
def listening(open_sandbox):
    with Listening(open_sandbox.config, workers=1) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    tokenizer = TwoNames(["flip_columns", "flip_rows"])
    shape = {"num_layers": 1, "num_heads": 2, "width": 16, "context_length": 20}
    return CodePolicy(GPT(TransformerConfig(vocab_size=tokenizer.vocab_size, **shape)), tokenizer)


def read(text):
    return f"def solve(grid):\n    return {text}(grid)\n"


def rollout_of(policy, problems, sandbox, seed=0, samples=8, at_once=None, **reward):
    return collect(
        policy, problems, samples, SAMPLE, read=read, sandbox=sandbox, reward=RewardConfig(**reward), fabric=FABRIC,
        seed=seed, at_once=at_once,
    )  # fmt: skip


def test_programs_lie_beside_their_tasks_and_earn_what_they_deserve(policy, flip_problems, open_sandbox):
    rollout = rollout_of(policy, flip_problems, open_sandbox)
    assert len(rollout.programs) == len(rollout.scored) == 48
    assert {RIGHT, WRONG} < set(rollout.programs)
    whole = rollout.responses.finished.tolist()
    for program, one, ended in zip(rollout.programs, rollout.scored, whole):
        assert (one.passed == 1) == (program == RIGHT and ended)
        assert (one.fault == "truncated") == (not ended)
    assert rollout.passed.shape == (6, 8)
    assert rollout.passed.flatten().tolist() == [one.passed == 1 for one in rollout.scored]
    assert rollout.scores.tolist() == pytest.approx([one.reward for one in rollout.scored])
    assert rollout.prompts.shape == rollout.prompt_mask.shape == (6, 6)  # the longest prompt
    assert rollout.prompt_mask.sum(1).tolist() == [1, 2, 3, 4, 5, 6]
    assert rollout.judge_seconds > 0
    assert rollout.restarts == 0


@pytest.mark.parametrize(("at_once", "sizes"), [(None, [6]), (48, [6]), (20, [2, 2, 2]), (39, [4, 2]), (3, [1] * 6)])
def test_programs_drawn_a_few_tasks_at_a_time_lie_beside_their_tasks(
    policy, flip_problems, open_sandbox, at_once, sizes, monkeypatch
):
    drawn, sample = [], policy.sample
    monkeypatch.setattr(policy, "sample", lambda prompts, *rest: drawn.append(len(prompts)) or sample(prompts, *rest))
    problems = flip_problems[::-1]  # the longest prompt first
    rollout = rollout_of(policy, problems, open_sandbox, at_once=at_once)
    assert drawn == sizes
    whole = rollout.responses
    with torch.no_grad():  # each program is one that the policy draws for the prompt it lies beside
        scores = policy(rollout.prompts, rollout.prompt_mask, whole.ids, whole.mask, SAMPLE)
    torch.testing.assert_close(scores.logprobs, whole.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.values, whole.values, rtol=0, atol=1e-5)
    for program, one, ended in zip(rollout.programs, rollout.scored, whole.finished.tolist()):
        assert (one.passed == 1) == (program == RIGHT and ended)
    if len(sizes) == 1:
        assert torch.equal(whole.ids, rollout_of(policy, problems, open_sandbox).responses.ids)


def test_equal_seeds_draw_equal_programs_and_leave_every_other_generator_alone(policy, flip_problems, open_sandbox):
    before = torch.get_rng_state()
    first, again, other = (rollout_of(policy, flip_problems, open_sandbox, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.responses.ids, again.responses.ids)
    assert first.scored == again.scored
    assert first.programs != other.programs
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_cut_off_is_not_run_and_equal_programs_run_once_a_task(flip_problems, listening):
    tasks = [flip_problems[at].task for at in (0, 0, 0, 1, 1)]
    programs = [RIGHT, RIGHT, WRONG, RIGHT, "while True: pass"]
    scored = judge(programs, tasks, [True, True, True, True, False], listening, RewardConfig())
    assert [one.passed for one in scored] == [1, 1, 0, 1, 0]
    assert scored[4].fault == "truncated"
    assert [job.program for job in listening.jobs] == [RIGHT, WRONG, RIGHT]


def test_inputs_alone_go_into_the_sandbox_and_no_output_of_a_task(policy, flip_problems, listening):
    rollout_of(policy, flip_problems, listening, samples=2)
    pairs = [pair for problem in flip_problems for pair in (*problem.task.test, *problem.task.train)]
    inputs, outputs = ({getattr(pair, side).tobytes() for pair in pairs} for side in ("input", "output"))
    given = {np.asarray(grid, np.uint8).tobytes() for job in listening.jobs for grid in job.inputs}
    assert given <= inputs
    assert len(given & outputs) == 1  # a grid that is its own mirror image


def test_rewards_are_normalised_task_by_task_where_the_reward_says_so(policy, flip_problems, open_sandbox):
    plain = rollout_of(policy, flip_problems, open_sandbox)
    shifted = rollout_of(policy, flip_problems, open_sandbox, per_task=0.2)
    config = RewardConfig(per_task=0.2)
    rows = [plain.scored[start : start + 8] for start in range(0, 48, 8)]
    assert shifted.scored == [one for row in rows for one in normalise(row, [0] * 8, config)]
    assert shifted.scored != plain.scored


def test_a_task_drawn_twice_is_scored_twice(policy, flip_problems, open_sandbox):
    rollout = rollout_of(policy, [flip_problems[0]] * 2, open_sandbox, samples=16)
    assert rollout.passed.shape == (2, 16)
    assert rollout.programs[:16] != rollout.programs[16:]
