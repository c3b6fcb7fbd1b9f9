"""A rollout: programs drawn for tasks, run in the sandbox, and scored on pairs that the prompt did not show."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from utils.arc.tasks import Task
from utils.rl.policy import CodePolicy
from utils.rl.reward import RewardConfig, Scored, normalise, score, truncated
from utils.rl.sampling import Responses, SampleConfig, joined, pad_left
from utils.rl.sandbox import Job, Sandbox

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Problem:
    """A task as a policy meets it."""

    task: Task
    prompt: tuple[int, ...]
    """ids of what it is shown"""
    level: int = 0
    """of the curriculum"""


@dataclass(frozen=True)
class Rollout:
    """P problems and n programs for each, row by row side by side."""

    problems: Sequence[Problem]
    prompts: Tensor
    """(P, L) ids, padded on the left"""
    prompt_mask: Tensor
    """(P, L), 1 for a token"""
    responses: Responses
    programs: list[str]
    scored: list[Scored]
    draw_seconds: float = 0.0
    judge_seconds: float = 0.0
    restarts: int = 0
    """of the sandbox's workers, meanwhile"""

    @property
    def scores(self) -> Tensor:
        """(N,) what each program earned."""
        return torch.tensor([one.reward for one in self.scored])

    @property
    def passed(self) -> Tensor:
        """(P, n) whether each program solved its task."""
        return torch.tensor([one.passed == 1 for one in self.scored]).view(len(self.problems), -1)


def collect(
    policy: CodePolicy,
    problems: Sequence[Problem],
    samples: int,
    config: SampleConfig,
    *,
    read: Callable[[str], str],
    sandbox: Sandbox,
    reward: RewardConfig,
    fabric: Fabric,
    seed: int,
    at_once: int | None = None,
) -> Rollout:
    """Draw `samples` programs a problem and score them, normalised within a problem's where `reward` says so.

    `read` makes a program of a response's text. `at_once` programs are drawn at a time, at least one problem's; None:
    all of them. Equal seeds draw equal programs from equal weights, so many at a time.
    """
    rows = pad_left([one.prompt for one in problems], policy.tokenizer.pad_id)
    prompts, prompt_mask = (part.to(fabric.device) for part in rows)
    generator = torch.Generator(fabric.device).manual_seed(seed)
    restarts, begun = sandbox.restarts, time.perf_counter()
    with fabric.autocast():
        responses = _drawn(policy, prompts, prompt_mask, samples, config, generator, at_once)
    programs, finished = [read(text) for text in policy.programs(responses)], responses.finished.tolist()
    drawn = time.perf_counter()
    numbers = [number for number in range(len(problems)) for _ in range(samples)]
    scored = judge(programs, [problems[number].task for number in numbers], finished, sandbox, reward)
    judged = time.perf_counter()
    return Rollout(
        problems,
        prompts,
        prompt_mask,
        responses,
        programs,
        normalise(scored, numbers, reward),
        draw_seconds=drawn - begun,
        judge_seconds=judged - drawn,
        restarts=sandbox.restarts - restarts,
    )


def _drawn(policy, prompts, prompt_mask, samples, config, generator, at_once: int | None) -> Responses:
    """Responses to all prompts, drawn for a few at a time: those of like length, so that little is padding."""
    P, L = prompts.shape
    size = P if at_once is None else max(1, at_once // samples)
    if size >= P:
        return policy.sample(prompts, prompt_mask, samples, config, generator)
    lengths = prompt_mask.sum(1)
    parts, order = [], []
    for some in lengths.argsort(stable=True).split(size):
        start = L - int(lengths[some].max())
        parts.append(policy.sample(prompts[some, start:], prompt_mask[some, start:], samples, config, generator))
        order.append((some[:, None] * samples + torch.arange(samples, device=some.device)).flatten())
    return joined(parts, torch.cat(order), policy.tokenizer.pad_id)


def judge(
    programs: Sequence[str], tasks: Sequence[Task], finished: Sequence[bool], sandbox: Sandbox, reward: RewardConfig
) -> list[Scored]:
    """Score each program on its task's hidden pairs. One that was cut off is not run; equal ones are run once.

    The shown inputs are run, too, after the hidden ones: by what comes of them tricks are told.
    """
    wanted = {}
    for program, task, whole in zip(programs, tasks, finished):
        if whole:
            wanted.setdefault((program, id(task)), (program, task))
    jobs = [Job(program, tuple(pair.input for pair in (*task.test, *task.train))) for program, task in wanted.values()]
    scores = {
        key: score(outcome, program, task.test, reward, shown=task.train)
        for (key, (program, task)), outcome in zip(wanted.items(), sandbox.run(jobs))
    }
    return [
        scores[program, id(task)] if whole else truncated(program, reward)
        for program, task, whole in zip(programs, tasks, finished)
    ]
