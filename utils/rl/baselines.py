"""Baselines: programs that are written without a look at what they should do, judged as a policy's are.

By the rules of `rl.reward` a program that returns its input or one grid for all is a trick and passes nothing, so the
first two baselines measure the tasks (none should be solved by them) and the judge (it should count them as tricks).
What PPO adds is seen beside the policy it started from, which is an evaluation like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.arc.programs import Example
from utils.arc.tasks import Task
from utils.rl.draws import Drawn
from utils.rl.evaluate import EvaluationConfig, Writer, evaluate_writer
from utils.rl.evaluation import Evaluation
from utils.rl.reward import RewardConfig
from utils.rl.rollout import Problem
from utils.rl.sandbox import Sandbox

if TYPE_CHECKING:
    from lightning_fabric import Fabric

IDENTITY, CONSTANT, RANDOM = "identity", "constant", "random program"


def identity(task: Task) -> str:
    """Returns the input."""
    return "def solve(grid):\n    return grid\n"


def constant(task: Task) -> str:
    """Returns the output that the train pairs have most often, the first of those that are equally frequent."""
    counts = Counter((pair.output.shape, pair.output.tobytes()) for pair in task.train)
    (key, _) = counts.most_common(1)[0]
    grid = next(pair.output for pair in task.train if (pair.output.shape, pair.output.tobytes()) == key)
    return f"def solve(grid):\n    return {grid.tolist()}\n"


def always(rule: Callable[[Task], str]) -> Writer:
    """Writes the one program that a rule gives for a task."""

    def write(problems: Sequence[Problem], samples: int | None, *, seed: int) -> Drawn:
        return _drawn([rule(one.task) for one in problems for _ in range(samples or 1)])

    return write


def random_programs(examples: Sequence[Example]) -> Writer:
    """Writes programs of examples, each different one as often as any other, however many examples it made."""
    if not examples:
        raise ValueError("No example to draw programs from; expected at least one.")
    programs = list(dict.fromkeys(example.program for example in examples))

    def write(problems: Sequence[Problem], samples: int | None, *, seed: int) -> Drawn | None:
        if samples is None:
            return None
        chosen = np.random.default_rng(seed).integers(len(programs), size=len(problems) * samples)
        return _drawn([programs[at] for at in chosen])

    return write


def _drawn(programs: list[str]) -> Drawn:
    return Drawn(programs, [True] * len(programs), [])


def evaluate_baselines(
    problems: Sequence[Problem],
    examples: Sequence[Example],
    *,
    sandbox: Sandbox,
    reward: RewardConfig,
    config: EvaluationConfig = EvaluationConfig(),
    seen: Sequence[bool] | None = None,
    fabric: Fabric | None = None,
) -> dict[str, Evaluation]:
    """The evaluation of each baseline by its name; `examples` are those whose programs are drawn at random.

    `seen` and `fabric` are as in `evaluate_writer`.
    """
    common = {"sandbox": sandbox, "reward": reward, "config": config, "seen": seen, "fabric": fabric}
    writers = {IDENTITY: always(identity), CONSTANT: always(constant), RANDOM: random_programs(examples)}
    return {name: evaluate_writer(write, problems, name=name, **common) for name, write in writers.items()}
