"""One task solved with a policy: of the programs drawn for it, those that its train pairs bear out.

Leaves out the drawing (`rl.draws`), and how often a policy solves tasks (`rl.evaluate`).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.arc.prompts import PromptError
from utils.arc.tasks import Pair, Task, find_task
from utils.rl.draws import draw_programs, seed_of
from utils.rl.rollout import Problem
from utils.rl.sandbox import Job, Sandbox

if TYPE_CHECKING:
    import pandas

    from utils.rl.dialogue import Dialogue
    from utils.rl.recipes import Trained


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
    shown: int
    """train pairs that the policy was shown; all of them choose among its programs"""

    @property
    def best(self) -> Candidate:
        return self.candidates[0] if self.candidates else self.nearest

    @property
    def correct(self) -> bool | None:
        """Whether the first candidate's outputs are those of the task's test pairs; None where those are unknown."""
        return bool(self.candidates) and self._right(self.best) if self.task.answered else None

    @property
    def table(self) -> pandas.DataFrame:
        """A row a candidate: how often it was drawn, whether its test outputs are right (None: unknown), its text."""
        import pandas

        known = self.task.answered
        rows = [(one.count, self._right(one) if known else None, one.program) for one in self.candidates]
        return pandas.DataFrame(rows, columns=["drawn", "correct", "program"])

    def _right(self, candidate: Candidate) -> bool:
        return _right(candidate.outputs, self.task.test) == len(self.task.test)

    def __str__(self) -> str:
        pairs = len(self.task.train)
        cut = f" The policy was shown {self.shown} of these pairs: more do not fit its prompt." * (self.shown < pairs)
        if not self.candidates:
            return (
                f"Task {self.task.id}: none of {self.samples} programs drawn is right on its {pairs} train pairs; the"
                f" nearest is right on {self.nearest.right}.{cut}\n\n{self.nearest.program}"
            )
        fitting, different = sum(one.count for one in self.candidates), len(self.candidates)
        if fitting == 1:
            kinds = " is right on its {} train pairs"
        elif different == 1:
            kinds = " are right on its {} train pairs, all the same program"
        else:
            kinds = (
                f" are right on its {{}} train pairs, {different} different ones, the first drawn {self.best.count}x"
            )
        told = {True: "is right on the test pairs", False: "is wrong on the test pairs", None: "gives"}[self.correct]
        return (
            f"Task {self.task.id}: {fitting} of {self.samples} programs drawn{kinds.format(pairs)}.{cut}"
            f" {'It' if different == 1 else 'The first'} {told}:\n\n{self.best.program}\n{self._answers()}"
        )

    def _answers(self) -> str:
        """The grids that the first candidate makes of the test inputs."""
        beside = "" if self.task.answered else " (nothing to compare with)"
        grids = ["\n".join("".join(map(str, row)) for row in grid) for grid in self.best.outputs]
        return "\n\n".join(f"answer for test {number}{beside}:\n{grid}" for number, grid in enumerate(grids, 1))


def asked_task(name: str) -> Task | None:
    """The task that a form's field asks for (`find_task`); None where it is empty, and none is to be tried."""
    return find_task(name, answered=False) if name.strip() else None


def told(task: Task | None, dialogue: Dialogue) -> str:
    """How much of a task its prompt holds; or why it cannot be tried."""
    if task is None:
        return "None is to be tried at the end: the field `task` is empty."
    try:
        return f"To be tried at the end: {dialogue.prompt(task)}"
    except PromptError as error:
        return f"Not to be tried at the end: {error}"


def attempt(
    task: Task | None, trained: Trained, samples: int = 64, *, seed: int = 0, sandbox: Sandbox
) -> Solution | str:
    """`solve`; or, where there is no task or it does not fit the prompt, that none was tried, and why."""
    if task is None:
        return "Not tried: the field `task` is empty."
    try:
        return solve(task, trained, samples, seed=seed, sandbox=sandbox)
    except PromptError as error:
        return f"Not tried: {error}"


def solve(
    task: Task, trained: Trained, samples: int = 64, *, seed: int = 0, sandbox: Sandbox | None = None
) -> Solution:
    """Draw programs for a task, run them on its train and test inputs, and keep those that its train pairs bear out.

    The task's test outputs may be unknown: answers are compared with them, and nothing else. `sandbox` is an open one;
    without it one is opened as the run's recipe says. Raises `PromptError` where the task does not fit the prompt,
    ValueError for less than one sample.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; expected at least 1")
    recipe, dialogue = trained.recipe, trained.setting.dialogue
    problem, shown = Problem(task, tuple(dialogue.encode(task))), len(dialogue.prompt(task).kept)
    counts: Counter[str] = Counter()
    at_once = recipe.evaluation.at_once
    for start in range(0, samples, at_once):
        n = min(at_once, samples - start)
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
    return Solution(task, samples, fitting, tried[0], shown)


def _tried(task: Task, counts: Counter[str], sandbox: Any) -> list[Candidate]:
    inputs = tuple(pair.input for pair in (*task.train, *task.test))
    outcomes = sandbox.run([Job(program, inputs) for program in counts])
    pairs = len(task.train)
    return [
        Candidate(program, count, one.outputs[:pairs], one.outputs[pairs:], _right(one.outputs[:pairs], task.train))
        for (program, count), one in zip(counts.items(), outcomes)
    ]


def _right(outputs: Sequence[np.ndarray | None], pairs: Sequence[Pair]) -> int:
    """How many outputs are those of the pairs; all their outputs are known."""
    return sum(output is not None and np.array_equal(output, pair.output) for output, pair in zip(outputs, pairs))
