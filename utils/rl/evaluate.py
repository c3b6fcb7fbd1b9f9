"""Evaluation of what writes programs on tasks it never saw: counts by task, rates with intervals.

A policy and a baseline go the same way: programs are drawn for each task, run in the sandbox and scored on the hidden
pairs, where a trick passes nothing. Leaves out what is made of the counts (`rl.evaluation`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from pydantic import Field, model_validator

from utils.core.config import Config
from utils.rl.draws import Drawn, draw_programs, portions, seed_of
from utils.rl.evaluation import Evaluation, Record, ending
from utils.rl.policy import CodePolicy
from utils.rl.reward import RewardConfig, Scored
from utils.rl.rollout import Problem, judge
from utils.rl.sampling import SampleConfig
from utils.rl.sandbox import Sandbox

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from utils.rl.game import Game

AT_ONCE = 256  # programs drawn at a time, unless told otherwise
T = TypeVar("T")


class EvaluationConfig(Config):
    """How a policy is judged."""

    samples: int = Field(16, ge=1)
    """programs drawn a task, beside the greedy one"""
    ks: tuple[int, ...] = (1, 8)
    """the k of each pass@k that is reported"""
    temperature: float = Field(1.0, gt=0)
    """that programs are drawn at; all else is as in training (ppo.sample)"""
    tasks: int | None = Field(None, ge=1)
    """at most so many tasks of a split, the first ones; null: all of them"""
    at_once: int = Field(AT_ONCE, ge=1)
    """programs drawn at a time on one process, a task's always together: as many as memory holds"""
    bootstrap: int = Field(2000, ge=1)
    """draws of tasks for the intervals"""
    arc: int = Field(0, ge=0)
    """at most so many real ARC tasks tried without any training on them, of those whose prompt fits; 0: none"""
    seed: int = Field(0, ge=0)
    """of the programs drawn and of the bootstrap"""

    @model_validator(mode="after")
    def _consistent(self):
        if 1 not in self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise ValueError(f"ks {self.ks}: expected different whole numbers of at least 1, and 1 among them")
        if max(self.ks) > self.samples:
            raise ValueError(f"ks {self.ks} need samples of at least {max(self.ks)}, not {self.samples}; change either")
        return self


class Writer(Protocol):
    """What writes programs."""

    def __call__(self, problems: Sequence[Problem], samples: int | None, *, seed: int) -> Drawn | None:
        """`samples` programs for each problem; for None the likeliest one, or None where there is no such thing."""


def evaluate_policy(
    policy: CodePolicy,
    problems: Sequence[Problem],
    *,
    read: Callable[[str], str],
    sandbox: Sandbox,
    reward: RewardConfig,
    config: EvaluationConfig = EvaluationConfig(),
    sample: SampleConfig = SampleConfig(),
    name: str = "policy",
    seen: Sequence[bool] | None = None,
    fabric: Fabric | None = None,
) -> Evaluation:
    """Judge a policy, where it is and as it is, on hidden pairs; `read` makes a program of an answer's text.

    `sample` is how it is trained to write, the temperature apart. `seen` and `fabric` are as in `evaluate_writer`.
    """
    drawing = sample.replace(temperature=config.temperature)

    def write(problems: Sequence[Problem], samples: int | None, *, seed: int) -> Drawn:
        how = drawing if samples else drawing.replace(temperature=0.0)
        return draw_programs(policy, problems, samples or 1, how, read=read, seed=seed, fabric=fabric)

    return evaluate_writer(
        write, problems, sandbox=sandbox, reward=reward, config=config, name=name, seen=seen, fabric=fabric
    )


def pass_rates(
    policy: CodePolicy,
    problems: Sequence[Problem],
    samples: int,
    config: SampleConfig,
    *,
    game: Game,
    fabric: Fabric,
    seed: int,
    at_once: int | None = None,
) -> dict[str, float]:
    """The loop's quick look, `evaluate_policy` without intervals: shares over tasks, from whole numbers.

    pass@1 of `samples` programs drawn, the greedy one's, and solved by any of those drawn.
    """
    how = EvaluationConfig(
        samples=samples, ks=(1,), temperature=config.temperature, at_once=at_once or AT_ONCE, seed=seed
    )
    common = {"read": game.read, "sandbox": game.sandbox, "reward": game.reward, "fabric": fabric}
    found = evaluate_policy(policy, problems, config=how, sample=config, **common).records
    return {
        "pass@1": sum(one.correct for one in found) / (samples * len(found)),
        "greedy": sum(one.greedy is True for one in found) / len(found),
        f"solved@{samples}": sum(one.correct > 0 for one in found) / len(found),
    }


def evaluate_writer(
    write: Writer,
    problems: Sequence[Problem],
    *,
    sandbox: Sandbox,
    reward: RewardConfig,
    config: EvaluationConfig = EvaluationConfig(),
    name: str,
    seen: Sequence[bool] | None = None,
    fabric: Fabric | None = None,
) -> Evaluation:
    """Judge whatever writes programs on the first `config.tasks` problems.

    `seen` tells of each problem whether the program that made it made a training task, too. With `fabric` its processes
    share the problems, and all get the result. Raises ValueError where there is no problem.
    """
    problems = problems[: config.tasks]
    flags: Sequence[bool | None] = [None] * len(problems) if seen is None else seen[: config.tasks]
    if not problems or len(flags) != len(problems):
        raise ValueError(f"{len(problems)} problems and {len(flags)} flags `seen`; expected as many, and at least one.")
    found = []
    for part in portions(problems, max(1, config.at_once // config.samples), fabric):
        some, seed = [problems[at] for at in part], seed_of(config.seed, part[0])
        drawn = _written(write, some, config.samples, seed, sandbox, reward)
        greedy = _written(write, some, None, seed, sandbox, reward) or [None] * len(part)
        found += [(at, _One(problems[at], flags[at], *both)) for at, both in zip(part, zip(drawn, greedy))]
    ordered = [one for _, one in sorted(_gathered(found, fabric), key=lambda item: item[0])]
    return Evaluation(
        name,
        [one.record() for one in ordered],
        config.ks,
        config.bootstrap,
        config.seed,
        tokens=[length for one in ordered for length in one.drawn.tokens],
        characters=[len(program) for one in ordered for program in one.drawn.programs],
    )


@dataclass(frozen=True)
class _Judged:
    """n programs for one problem, and what each earned."""

    programs: list[str]
    tokens: list[int]
    scored: list[Scored]


@dataclass(frozen=True)
class _One:
    """One problem, and the programs for it."""

    problem: Problem
    seen: bool | None
    drawn: _Judged
    greedy: _Judged | None

    def record(self) -> Record:
        drawn, greedy, task = self.drawn, self.greedy, self.problem.task
        programs, scored = drawn.programs, drawn.scored
        if greedy is not None:
            programs, scored = [*programs, *greedy.programs], [*scored, *greedy.scored]
        often = Counter(drawn.programs)
        best = max(range(len(programs)), key=lambda at: (scored[at].reward, often[programs[at]], -at))
        return Record(
            task_id=task.id,
            level=self.problem.level,
            seen=self.seen,
            samples=len(drawn.programs),
            correct=sum(one.passed == 1 for one in drawn.scored),
            greedy=None if greedy is None else greedy.scored[0].passed == 1,
            program=programs[best],
            passed=scored[best].passed,
            drawn=often[programs[best]],
            distinct=len(often),
            endings=dict(Counter(map(ending, drawn.scored))),
        )


def _written(
    write: Writer, problems: Sequence[Problem], samples: int | None, seed: int, sandbox: Sandbox, reward: RewardConfig
) -> list[_Judged] | None:
    """The programs for each problem, judged."""
    drawn, n = write(problems, samples, seed=seed), samples or 1
    if drawn is None:
        return None
    tasks = [one.task for one in problems for _ in range(n)]
    scored = judge(drawn.programs, tasks, drawn.finished, sandbox, reward)
    places = [slice(at * n, (at + 1) * n) for at in range(len(problems))]
    return [_Judged(drawn.programs[at], drawn.tokens[at], scored[at]) for at in places]


def _gathered(found: list[T], fabric: Fabric | None) -> list[T]:
    """What every process found."""
    if fabric is None or fabric.world_size == 1:
        return found
    parts: list[list[T]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(parts, found)
    return [one for part in parts for one in part]
