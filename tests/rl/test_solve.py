"""Pass rates are those of the programs drawn, by however many processes; a task's candidates fit its train pairs."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from utils.arc.tasks import Pair, Task, TaskError
from utils.core.device import choose, make_fabric
from utils.rl import solve as module
from utils.rl.draws import Drawn
from utils.rl.evaluate import EvaluationConfig, evaluate_policy
from utils.rl.solve import find_task, pass_rates, solve

RIGHT = "def solve(grid):\n    return [row[::-1] for row in grid]\n"
SAME_RULE = "def solve(grid):\n    return [list(reversed(row)) for row in grid]\n"
HALF = "def solve(grid):\n    return [row[::-1] for row in grid] if grid[0][0] > 4 else grid\n"
WRONG = "def solve(grid):\n    return grid[::-1]\n"
CHILD = """
import json, sys, torch
from utils.core.device import choose, leave_processes, make_fabric
from utils.rl.evaluate import evaluate_policy
from utils.rl.recipes import open_trained
from utils.rl.sandbox import Sandbox
from utils.rl.solve import pass_rates
import utils.rl.solve as module

module.AT_ONCE = 12
trained = open_trained(sys.argv[1])
recipe, setting = trained.recipe, trained.setting
fabric = make_fabric(choose("cpu", "fp32"))
with Sandbox(recipe.sandbox, 1) as sandbox:
    rates = pass_rates(
        trained.policy, setting.test, 4, recipe.ppo.sample, game=setting.game(sandbox), fabric=fabric, seed=3
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


def test_pass_rates_are_those_of_an_evaluation_of_the_same_draws(ppo_trained, open_sandbox):
    """The same portions and seeds, so the same programs: pass@1 and pass@n of the evaluation's counts."""
    trained, setting, recipe = ppo_trained, ppo_trained.setting, ppo_trained.recipe
    fabric = make_fabric(choose("cpu", "fp32"))
    found = pass_rates(
        trained.policy, setting.test, 8, recipe.ppo.sample, game=setting.game(open_sandbox), fabric=fabric, seed=5
    )
    config = EvaluationConfig(samples=8, ks=(1, 8), seed=5, at_once=module.AT_ONCE)
    whole = evaluate_policy(
        trained.policy, setting.test, read=setting.dialogue.read, sandbox=open_sandbox, reward=recipe.reward,
        config=config, sample=recipe.ppo.sample,
    )  # fmt: skip
    expected = {"pass@1": "pass@1", "greedy": "greedy", "solved@8": "pass@8"}
    assert found == pytest.approx({ours: whole.rates[theirs].value for ours, theirs in expected.items()})
    assert 0 < found["solved@8"] < 1


def test_no_problem_is_refused(ppo_trained):
    with pytest.raises(ValueError, match="expected at least one"):
        pass_rates(ppo_trained.policy, [], 4, None, game=None, fabric=None, seed=0)


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


@pytest.fixture
def drawing(monkeypatch, ppo_trained, open_sandbox):
    """`solve` for a policy that draws the given programs; one that is in `cut` was cut off."""

    def given(task, programs, cut=(), samples=None):
        def draw(policy, problems, samples, config, *, read, seed):
            return Drawn(list(programs), [text not in cut for text in programs], [1] * len(programs))

        monkeypatch.setattr(module, "draw_programs", draw)
        return solve(task, ppo_trained, samples or len(programs), sandbox=open_sandbox)

    return given


@pytest.fixture
def flip_task():
    """Small enough for the tiny policy's prompt, whose first pair alone `HALF` gets wrong."""
    grids = [np.array(rows, np.uint8) for rows in ([[1, 2]], [[5, 6]], [[7, 8]], [[9, 0]], [[6, 1]])]
    pairs = [Pair(grid, grid[:, ::-1].copy()) for grid in grids]
    return Task("flip", tuple(pairs[:3]), tuple(pairs[3:]), "made up")


def test_candidates_fit_every_train_pair_and_those_drawn_most_often_come_first(drawing, flip_task):
    found = drawing(flip_task, [RIGHT, WRONG, SAME_RULE, HALF, SAME_RULE, SAME_RULE, RIGHT, WRONG])
    assert [(one.program, one.count) for one in found.candidates] == [(SAME_RULE, 3), (RIGHT, 2)]
    assert found.correct
    assert [grid.tolist() for grid in found.best.outputs] == [[[0, 9]], [[1, 6]]]
    assert list(found.table["drawn"]) == [3, 2]
    assert list(found.table["correct"]) == [True, True]
    assert "5 of 8 programs drawn are right on its 3 train pairs, 2 of them different" in str(found)
    assert "09\n\n16" in str(found)


def test_without_a_candidate_the_nearest_program_is_told(drawing, flip_task):
    found = drawing(flip_task, [WRONG, WRONG, HALF])
    assert found.candidates == []
    assert (found.best.program, found.best.right) == (HALF, 2)
    assert not found.correct
    assert len(found.table) == 0
    assert "none of 3 programs drawn" in str(found)


def test_programs_that_were_cut_off_or_fail_on_a_test_input_are_no_candidates(drawing, flip_task):
    fails = "def solve(grid):\n    assert grid[0][0] != 9\n    return [row[::-1] for row in grid]\n"
    found = drawing(flip_task, [RIGHT, fails, SAME_RULE], cut=(RIGHT,))
    assert [one.program for one in found.candidates] == [SAME_RULE]


def test_test_outputs_choose_nothing(drawing, flip_task):
    """The same candidates for a task whose test outputs are others; they are only told to be wrong."""
    other = Task("flip", flip_task.train, tuple(Pair(one.input, one.input) for one in flip_task.test), "made up")
    programs = [RIGHT, SAME_RULE, SAME_RULE, HALF]
    one, two = drawing(flip_task, programs), drawing(other, programs)
    assert [each.program for each in one.candidates] == [each.program for each in two.candidates]
    assert (one.correct, two.correct) == (True, False)
    assert "is wrong on the test pairs" in str(two)


def test_a_policy_solves_tasks_of_its_kind(ppo_trained, open_sandbox):
    """On some of its test tasks; equal seeds give equal answers."""
    tasks = [problem.task for problem in ppo_trained.setting.test]
    found = [solve(task, ppo_trained, 64, sandbox=open_sandbox) for task in tasks[:6]]
    assert any(one.correct for one in found)
    again = solve(tasks[0], ppo_trained, 64, sandbox=open_sandbox)
    assert [one.program for one in again.candidates] == [one.program for one in found[0].candidates]
    for one in found:
        assert all(each.right == len(one.task.train) for each in one.candidates)


def test_less_than_one_sample_is_refused(ppo_trained, flip_task):
    with pytest.raises(ValueError, match="samples is 0"):
        solve(flip_task, ppo_trained, 0)


def test_tasks_are_found_by_file_or_id(tmp_path, flip_task):
    content = {
        part: [{"input": one.input.tolist(), "output": one.output.tolist()} for one in getattr(flip_task, part)]
        for part in ("train", "test")
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert find_task(path).id == "mine"
    assert find_task("00576224").source == "arcagi/evaluation"
    assert find_task("arcagi2/00576224").source.startswith("arcagi2/")


@pytest.mark.parametrize("name", ["nothing", "nothing.json", "arcagi3/00576224", "arcagi/nothing"])
def test_unknown_tasks_are_refused_with_what_was_expected(name):
    with pytest.raises(TaskError, match=f"No task '{name}'.*expected a task's JSON file, or an id"):
        find_task(name)


def test_files_of_several_tasks_are_refused(tmp_path):
    pair = [{"input": [[1]], "output": [[2]]}]
    path = tmp_path / "two.json"
    path.write_text(json.dumps({name: {"train": pair, "test": pair} for name in "ab"}), encoding="utf-8")
    with pytest.raises(TaskError, match=r"two.json holds 2 tasks"):
        find_task(path)
