"""A task's candidates are the programs drawn that fit its train pairs, and nothing else chooses them."""

from dataclasses import replace

import numpy as np
import pytest

from utils.arc.tasks import Pair, Task
from utils.rl import solve as module
from utils.rl.draws import Drawn
from utils.rl.solve import asked_task, attempt, solve, told

RIGHT = "def solve(grid):\n    return [row[::-1] for row in grid]\n"
SAME_RULE = "def solve(grid):\n    return [list(reversed(row)) for row in grid]\n"
HALF = "def solve(grid):\n    return [row[::-1] for row in grid] if grid[0][0] > 4 else grid\n"
WRONG = "def solve(grid):\n    return grid[::-1]\n"


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
    told = "5 of 8 programs drawn are right on its 3 train pairs, 2 different ones, the first drawn 3x. The first is"
    assert told in str(found)
    assert str(found).endswith("answer for test 1:\n09\n\nanswer for test 2:\n16")


def test_one_program_drawn_several_times_is_told_to_be_one(drawing, flip_task):
    assert "2 of 3 programs drawn are right on its 3 train pairs, all the same program. It is right" in str(
        drawing(flip_task, [RIGHT, WRONG, RIGHT])
    )
    assert "1 of 2 programs drawn is right on its 3 train pairs. It is right on" in str(
        drawing(flip_task, [RIGHT, WRONG])
    )


def test_unknown_test_outputs_are_answered_with_nothing_to_compare_with(drawing, flip_task):
    asked = Task("flip", flip_task.train, tuple(Pair(one.input, None) for one in flip_task.test), "made up")
    found = drawing(asked, [RIGHT, RIGHT, WRONG])
    assert found.correct is None
    assert list(found.table["correct"]) == [None]
    assert str(found).endswith(
        f" It gives:\n\n{RIGHT}\nanswer for test 1 (nothing to compare with):\n09\n\n"
        "answer for test 2 (nothing to compare with):\n16"
    )
    assert "none of 1 programs drawn" in str(drawing(asked, [WRONG]))


def test_pairs_that_the_prompt_has_no_room_for_are_counted(drawing, ppo_trained):
    """Each pair is 2 (1 + 3 (9 + 1)) = 62 tokens of the tiny policy's 150, so two of three are shown."""
    pairs = [Pair(grid, grid[:, ::-1].copy()) for grid in np.random.default_rng(0).integers(0, 10, (4, 3, 9), np.uint8)]
    found = drawing(Task("wide", tuple(pairs[:3]), tuple(pairs[3:]), "made up"), [RIGHT, WRONG])
    assert found.shown == len(ppo_trained.setting.dialogue.prompt(found.task).kept) == 2
    assert "The policy was shown 2 of these pairs" in str(found)
    assert "The policy was shown" not in str(drawing(ppo_trained.setting.test[0].task, [RIGHT]))


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


def test_an_empty_field_asks_for_no_task_and_that_is_said(ppo_trained, open_sandbox, tmp_path):
    assert asked_task("") is asked_task("  ") is None
    assert "the field `task` is empty" in told(None, ppo_trained.setting.dialogue)
    assert "the field `task` is empty" in attempt(None, ppo_trained, sandbox=open_sandbox)
    file = tmp_path / "mine.json"
    file.write_text('{"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[1]], "output": [[2]]}]}')
    assert asked_task(str(file)).id == "mine"


def test_less_than_one_sample_is_refused(ppo_trained, flip_task):
    with pytest.raises(ValueError, match="samples is 0"):
        solve(flip_task, ppo_trained, 0)


def test_programs_are_drawn_as_many_at_a_time_as_the_recipe_says(ppo_trained, flip_task, open_sandbox, monkeypatch):
    sizes, draw = [], module.draw_programs

    def counted(policy, problems, samples, *rest, **options):
        sizes.append(samples)
        return draw(policy, problems, samples, *rest, **options)

    monkeypatch.setattr(module, "draw_programs", counted)
    few = replace(ppo_trained, recipe=ppo_trained.recipe.replace(evaluation={"at_once": 8}))
    found = solve(flip_task, few, 20, sandbox=open_sandbox)
    assert sizes == [8, 8, 4]
    assert found.samples == 20
