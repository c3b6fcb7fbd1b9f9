"""Counts are those of the programs written; a policy's are those of its programs, drawn and judged one by one."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch

from utils.core.config import ConfigError
from utils.core.device import choose, make_fabric
from utils.rl.draws import Drawn, portions, seed_of
from utils.rl.evaluate import EvaluationConfig, evaluate_policy, evaluate_writer, pass_rates
from utils.rl.evaluation import ending
from utils.rl.reward import RewardConfig
from utils.rl.rollout import judge
from utils.rl.sampling import pad_left

RIGHT = "def solve(grid):\n    return [row[::-1] for row in grid]\n"
LONGER = "def solve(grid):\n    turned = [row[::-1] for row in grid]\n    return turned\n"
WRONG = "def solve(grid):\n    return grid[::-1]\n"
SAME = "def solve(grid):\n    return grid\n"
BROKEN = "def solve(grid)\n"
CHILD = """
import json, sys, torch
from utils.core.device import choose, leave_processes, make_fabric
from utils.rl.evaluate import evaluate_policy, pass_rates
from utils.rl.recipes import open_trained
from utils.rl.sandbox import Sandbox

trained = open_trained(sys.argv[1])
recipe, setting = trained.recipe, trained.setting
fabric = make_fabric(choose("cpu", "fp32"))
with Sandbox(recipe.sandbox, 1) as sandbox:
    rates = pass_rates(
        trained.policy, setting.test, 4, recipe.ppo.sample, game=setting.game(sandbox), fabric=fabric, seed=3,
        at_once=12,
    )
    found = evaluate_policy(
        trained.policy, setting.test, read=setting.dialogue.read, sandbox=sandbox, reward=recipe.reward,
        config=recipe.evaluation.replace(at_once=24), sample=recipe.ppo.sample, fabric=fabric,
    )
told = {"world": fabric.world_size, "rates": rates, "correct": [one.correct for one in found.records],
        "tokens": list(found.tokens)}
print("told " + json.dumps(told) + "\\n", end="", flush=True)
leave_processes()
"""


def writer(rows, greedy=None):
    """Writes rows[task id] for each problem, and the likeliest programs `greedy`; a list is one row for all."""

    def write(problems, samples, *, seed):
        chosen = rows if samples else greedy
        if chosen is None:
            return None
        programs = [text for one in problems for text in (chosen[one.task.id] if isinstance(chosen, dict) else chosen)]
        return Drawn(programs, [text != "cut" for text in programs], [len(text) // 4 for text in programs])

    return write


def judged(write, problems, sandbox, **settings):
    seen = settings.pop("seen", None)
    config = EvaluationConfig(**{"samples": 4, "ks": (1, 2), "bootstrap": 100, **settings})
    return evaluate_writer(
        write, problems, sandbox=sandbox, reward=RewardConfig(), config=config, name="made", seen=seen
    )


def test_counts_are_those_of_the_programs_written(flip_problems, open_sandbox):
    rows = {one.task.id: [RIGHT] * at + [WRONG] * (4 - at) for at, one in enumerate(flip_problems[:5])}
    greedy = {one.task.id: [WRONG if at else RIGHT] for at, one in enumerate(flip_problems)}
    found = judged(writer(rows, greedy), flip_problems[:5], open_sandbox)
    assert [one.correct for one in found.records] == [0, 1, 2, 3, 4]
    assert [one.greedy for one in found.records] == [True, False, False, False, False]
    assert [one.distinct for one in found.records] == [1, 2, 2, 2, 1]
    assert [one.level for one in found.records] == [1, 1, 1, 2, 2]
    assert found.rates["pass@1"].value == pytest.approx((0 + 1 + 2 + 3 + 4) / 20)
    # Of the 6 pairs of programs, none correct in: 6, 3, 1, 0, 0.
    assert found.rates["pass@2"].value == pytest.approx((0 + 3 / 6 + 5 / 6 + 1 + 1) / 5)


@pytest.mark.parametrize("at_once", [1, 8, 1000])
def test_records_keep_the_order_of_the_problems_in_whatever_portions(flip_problems, open_sandbox, at_once):
    rows = {one.task.id: [RIGHT] * min(at, 4) + [WRONG] * (4 - min(at, 4)) for at, one in enumerate(flip_problems)}
    found = judged(writer(rows), flip_problems, open_sandbox, at_once=at_once, seen=[True, False] * 3)
    assert [one.task_id for one in found.records] == [one.task.id for one in flip_problems]
    assert [one.correct for one in found.records] == [0, 1, 2, 3, 4, 4]
    assert [one.seen for one in found.records] == [True, False] * 3
    lengths = [len(text) for one in flip_problems for text in rows[one.task.id]]
    assert found.characters == lengths
    assert found.tokens == [length // 4 for length in lengths]


def test_tricks_and_faults_are_counted_and_pass_nothing(flip_problems, open_sandbox):
    found = judged(writer([SAME, BROKEN, "cut", RIGHT]), flip_problems, open_sandbox)
    assert {name: share for name, share in found.endings.items() if share} == dict.fromkeys(
        ("identity", "syntax", "truncated", "solved"), 0.25
    )
    assert found.rates["pass@1"].value == 0.25


def test_the_best_program_is_the_one_that_earned_most(flip_problems, open_sandbox):
    found = judged(writer([BROKEN, LONGER, LONGER, RIGHT], [SAME]), flip_problems, open_sandbox)
    assert {one.program for one in found.records} == {RIGHT}  # of two that are right the shorter earns more
    assert {one.drawn for one in found.records} == {1}
    found = judged(writer([BROKEN, SAME, BROKEN, SAME], [WRONG]), flip_problems, open_sandbox)
    assert {(one.program, one.drawn, one.passed) for one in found.records} == {(WRONG, 0, 0.0)}


def test_tasks_limits_how_many_are_judged(flip_problems, open_sandbox):
    found = judged(writer([RIGHT] * 4), flip_problems, open_sandbox, tasks=2, seen=[True] * 6)
    assert [one.task_id for one in found.records] == ["flip0", "flip1"]


def test_no_problem_or_too_few_flags_are_refused(flip_problems, open_sandbox):
    with pytest.raises(ValueError, match="0 problems"):
        judged(writer([RIGHT] * 4), [], open_sandbox)
    with pytest.raises(ValueError, match="6 problems and 2 flags"):
        judged(writer([RIGHT] * 4), flip_problems, open_sandbox, seen=[True, True])


def test_a_policy_is_judged_by_its_programs(ppo_trained, open_sandbox):
    """Against drawing, reading and judging done here, task by task as the portions say."""
    trained, config = ppo_trained, ppo_trained.recipe.evaluation
    policy, setting, sample = trained.policy, trained.setting, trained.recipe.ppo.sample
    problems = setting.test
    common = {"read": setting.dialogue.read, "sandbox": open_sandbox, "reward": trained.recipe.reward}
    policy.train()
    found = evaluate_policy(policy, problems, config=config, sample=sample, **common)
    assert policy.training
    policy.eval()
    again = evaluate_policy(policy, problems, config=config, sample=sample, **common)
    assert again.records == found.records
    for part in portions(problems, config.at_once // config.samples):
        prompts, mask = pad_left([problems[at].prompt for at in part], policy.tokenizer.pad_id)
        generator = torch.Generator().manual_seed(seed_of(config.seed, part[0]))
        answers = policy.sample(prompts, mask, config.samples, sample, generator)
        programs = [setting.dialogue.read(text) for text in policy.programs(answers)]
        tasks = [problems[at].task for at in part for _ in range(config.samples)]
        scored = judge(programs, tasks, answers.finished.tolist(), open_sandbox, trained.recipe.reward)
        for place, at in enumerate(part):
            mine = slice(place * config.samples, (place + 1) * config.samples)
            assert found.records[at].correct == sum(one.passed == 1 for one in scored[mine])
            assert found.records[at].endings == Counter(map(ending, scored[mine]))
            lengths = answers.mask.sum(1).tolist()[mine]
            assert found.tokens[at * config.samples : (at + 1) * config.samples] == lengths
    assert 0 < found.rates["pass@4"].value < 1  # the policy is worth judging


def test_other_seeds_draw_other_programs_and_the_same_greedy_ones(ppo_trained, open_sandbox):
    trained, setting = ppo_trained, ppo_trained.setting
    one, other = (
        evaluate_policy(
            trained.policy, setting.test, read=setting.dialogue.read, sandbox=open_sandbox,
            reward=trained.recipe.reward, config=trained.recipe.evaluation.replace(seed=seed),
            sample=trained.recipe.ppo.sample,
        )
        for seed in (0, 1)
    )  # fmt: skip
    assert one.tokens != other.tokens
    assert [record.greedy for record in one.records] == [record.greedy for record in other.records]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 4, "ks": (1, 8)}, "need samples of at least 8, not 4"),
        ({"ks": (8,)}, "and 1 among them"),
        ({"ks": (1, 1)}, "different whole numbers"),
        ({"ks": ()}, "different whole numbers"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig.load(**settings)


def test_pass_rates_are_those_of_an_evaluation_of_the_same_draws(ppo_trained, open_sandbox):
    """The same portions and seeds, so the same programs: pass@1 and pass@n of the evaluation's counts."""
    trained, setting, recipe = ppo_trained, ppo_trained.setting, ppo_trained.recipe
    fabric = make_fabric(choose("cpu", "fp32"))
    found = pass_rates(
        trained.policy, setting.test, 8, recipe.ppo.sample, game=setting.game(open_sandbox), fabric=fabric, seed=5,
        at_once=24,
    )  # fmt: skip
    config = EvaluationConfig(samples=8, ks=(1, 8), seed=5, at_once=24)
    whole = evaluate_policy(
        trained.policy, setting.test, read=setting.dialogue.read, sandbox=open_sandbox, reward=recipe.reward,
        config=config, sample=recipe.ppo.sample,
    )  # fmt: skip
    assert found["pass@1"] == whole.counts["correct"] / whole.counts["programs"]
    expected = {"pass@1": "pass@1", "greedy": "greedy", "solved@8": "pass@8"}
    assert found == pytest.approx({ours: whole.rates[theirs].value for ours, theirs in expected.items()})
    assert 0 < found["solved@8"] < 1


def test_no_problem_is_refused(ppo_trained, open_sandbox):
    fabric, sample = make_fabric(choose("cpu", "fp32")), ppo_trained.recipe.ppo.sample
    game = ppo_trained.setting.game(open_sandbox)
    with pytest.raises(ValueError, match="expected as many, and at least one"):
        pass_rates(ppo_trained.policy, [], 4, sample, game=game, fabric=fabric, seed=0)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_find_what_one_finds(ppo_trained, tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD, encoding="utf-8")
    told = []
    for world in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if world == 2 else []
        done = subprocess.run(
            [sys.executable, *launcher, str(script), str(ppo_trained.run.path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told.append([json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("told ")])
    ((one,), two) = told
    assert [each["world"] for each in two] == [2, 2]
    assert 0 < one["rates"]["solved@4"] < 1
    for each in two:
        assert each["rates"] == pytest.approx(one["rates"])
        assert (each["correct"], each["tokens"]) == (one["correct"], one["tokens"])
