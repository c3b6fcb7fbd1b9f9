"""What a program earns on pairs it was not shown: first the share that it gets right, then how short it is.

    perfect                1, and up to `length_bonus` for brevity
    some pairs right       `partial` times their share, and brevity that cannot reach the next share
    none right             0 or below: the mean over pairs of what is wrong with each output
    a trick                0 or below, whatever it gets right, and it counts as passing nothing

So any perfect program beats any other, whatever its length or task, and passing more never earns less. Leaves out the
running of programs (`rl.sandbox`), and what is a trick (`rl.tricks`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator

from utils.arc.tasks import Pair
from utils.core.config import Config
from utils.rl.syntax import parsed
from utils.rl.tricks import TRICKS, Trick, trick_of

if TYPE_CHECKING:
    from utils.rl.sandbox import Outcome

FAULTS = ("syntax", "truncated", "forbidden", "timeout", "memory", "runtime", "bad_output")


class RewardConfig(Config):
    """What programs earn. Values of faults are those of a program all of whose pairs fail in that way."""

    partial: float = Field(0.5, ge=0, le=1)
    """times the share of pairs that are right, where not all are"""
    length_bonus: float = Field(0.05, ge=0, le=0.2)
    """most that brevity adds to a perfect program"""
    length_scale: float = Field(200.0, gt=0)
    """characters of a program at which half of the bonus is left"""
    per_task: float = Field(0.0, ge=0, le=1)
    """most that `normalise` adds to a perfect program for being rare among the answers to its task; 0: nothing"""
    most_pairs: int = Field(16, ge=2)
    """hidden pairs that a task may have; the more, the less brevity can add to an imperfect program"""

    wrong: float = Field(0.0, le=0)
    """a grid, but another one"""
    similarity: float = Field(0.0, ge=0)
    """taken off a wrong grid in proportion to its cells that are wrong, all of it at another size; 0: all alike"""
    bad_output: float = -0.3
    """an output that is no grid"""
    runtime: float = -0.5
    """an exception"""
    memory: float = -0.6
    """too much memory"""
    timeout: float = -0.6
    """too much time"""
    forbidden: float = -0.8
    """an attempt at what the sandbox forbids, and frame-peeking"""
    truncated: float = -1.0
    """a program that was cut off before its end, and not run"""
    syntax: float = -1.0
    """no Python"""
    trick: float = Field(-0.1, le=0)
    """most that returning the input, one grid for all, or grids held as numbers can earn"""

    literal_cells: int = Field(9, ge=1)
    """cells of colours in a list of lists from which it counts as a grid held as numbers"""
    literal_values: int = Field(30, ge=1)
    """digits of numbers and characters of texts in a program from which it does; where it is wrong on a shown pair,
    already as many as the smallest hidden output has cells, and `literal_cells` at least"""

    @model_validator(mode="after")
    def _consistent(self):
        faults = {kind: getattr(self, kind) for kind in FAULTS}
        if min(faults.values()) < self.syntax:
            raise ValueError(f"syntax {self.syntax:g} must be the worst of the faults {faults}; lower it")
        if max(faults.values()) > self.bad_output:
            raise ValueError(f"bad_output {self.bad_output:g} must be the mildest of the faults {faults}; raise it")
        if self.bad_output >= self.wrong - self.similarity:
            raise ValueError(
                f"bad_output {self.bad_output:g} must be below wrong - similarity,"
                f" {self.wrong - self.similarity:g}: lower it, or similarity"
            )
        return self

    @property
    def room(self) -> float:
        """A third of the least distance between the rewards of two shares of at most `most_pairs` pairs."""
        return self.partial / (self.most_pairs * (self.most_pairs - 1)) / 3  # |a/b - c/d| is at least 1 / (b d)


@dataclass(frozen=True)
class Scored:
    """What a program earned, and for what: `reward` is the sum of the components."""

    reward: float
    passed: float  # share of the hidden pairs that are right; 0 for a trick
    components: dict[str, float]  # passes, brevity, wrong, faults, trick, and task where normalised
    trick: Trick = ""
    fault: str = ""  # kind of the first failing input; empty where every input gave a grid


def score(
    outcome: Outcome, program: str, pairs: Sequence[Pair], config: RewardConfig, *, shown: Sequence[Pair] = ()
) -> Scored:
    """The reward of a program that the sandbox ran on the inputs of `pairs`, then of `shown`, in their order.

    `shown` are pairs that the prompt held: nothing is earned or lost by them, but they tell a trick, as few hidden
    pairs may look alike by chance, and a program that is right on all of them from one. Equal outputs are equal in size
    and every cell. A program too tangled for `ast.parse` counts as no Python even where it ran, as tricks in it could
    not be seen. Raises ValueError where outcome and pairs do not match.
    """
    count = len(pairs)
    if not 1 <= count <= config.most_pairs or len(outcome.outputs) != count + len(shown):
        raise ValueError(
            f"{len(outcome.outputs)} outputs for {count} hidden pairs and {len(shown)} shown ones; expected one each,"
            f" for 1 to {config.most_pairs} hidden pairs (setting most_pairs)"
        )
    outputs = outcome.outputs[:count]
    tree = parsed(program)
    if tree is None:
        return Scored(config.syntax, 0.0, _components(faults=config.syntax), fault="syntax")
    kinds = [_kind(outcome, at) for at in range(count)]
    right = [output is not None and np.array_equal(output, pair.output) for output, pair in zip(outputs, pairs)]
    faults = sum(getattr(config, kind) for kind in kinds if kind) / count
    wrong = sum(
        config.wrong - config.similarity * (1 - similarity(output, pair.output))
        for output, pair, good in zip(outputs, pairs, right)
        if output is not None and not good
    )
    wrong, fault = wrong / count, next(filter(None, kinds), "")
    held = {"cells": config.literal_cells, "values": config.literal_values}
    trick = trick_of(tree, outcome.outputs, pairs, shown, **held)
    if trick:
        limit = config.forbidden if trick == "peeking" else config.trick
        parts = _components(wrong=wrong, faults=faults, trick=min(limit - wrong - faults, 0.0))
        return Scored(sum(parts.values()), 0.0, parts, trick, fault)
    passed = sum(right) / count
    if passed == 0:
        parts = _components(wrong=wrong, faults=faults)
    else:
        bonus = config.length_bonus if passed == 1 else min(config.length_bonus, config.room)
        brevity = bonus / (1 + len(program.strip()) / config.length_scale)
        parts = _components(passes=1.0 if passed == 1 else config.partial * passed, brevity=brevity)
    return Scored(sum(parts.values()), passed, parts, "", fault)


def truncated(program: str, config: RewardConfig) -> Scored:
    """The reward of a program that was cut off before its end token; it is not run, whatever it holds."""
    return Scored(config.truncated, 0.0, _components(faults=config.truncated), fault="truncated")


def normalise(scored: Sequence[Scored], tasks: Sequence[Hashable], config: RewardConfig) -> list[Scored]:
    """With `per_task` above 0: the same programs, those that pass earning more where their task's others earn less.

    tasks: of which task each program is. To a reward comes (1 + z / (1 + |z|)) / 2 of `per_task`, z the distance from
    the mean of its task's rewards in their standard deviations; imperfect programs gain less than would reach the next
    share, those that pass nothing gain nothing. So the order within a task stays as it was, and between tasks perfect
    still beats imperfect and passing more still never earns less.
    """
    if len(scored) != len(tasks):
        raise ValueError(f"{len(tasks)} tasks for {len(scored)} programs; expected one each")
    if not config.per_task:
        return list(scored)
    groups = defaultdict(list)
    for one, task in zip(scored, tasks):
        groups[task].append(one.reward)
    moments = {task: (np.mean(rewards), np.std(rewards)) for task, rewards in groups.items()}
    return [_shifted(one, *moments[task], config) for one, task in zip(scored, tasks)]


def _shifted(one: Scored, mean: float, deviation: float, config: RewardConfig) -> Scored:
    if one.passed == 0:
        return replace(one, components={**one.components, "task": 0.0})
    z = (one.reward - mean) / deviation if deviation > 1e-9 else 0.0  # all alike but for rounding: in the middle
    room = config.per_task if one.passed == 1 else min(config.per_task, config.room)
    gain = float(room * (1 + z / (1 + abs(z))) / 2)
    return replace(one, reward=one.reward + gain, components={**one.components, "task": gain})


def summary(scored: Sequence[Scored]) -> dict[str, float]:
    """To be logged: means of reward, passed and components; shares of perfect programs, of each trick and fault."""
    if not scored:
        raise ValueError("no programs to sum up; expected at least one")
    tricks, faults = Counter(one.trick for one in scored), Counter(one.fault for one in scored)
    return {
        "reward": float(np.mean([one.reward for one in scored])),
        "passed": float(np.mean([one.passed for one in scored])),
        "perfect": float(np.mean([one.passed == 1 for one in scored])),
        "tricks": 1 - tricks[""] / len(scored),
        "faults": 1 - faults[""] / len(scored),
        **{f"component/{name}": float(np.mean([x.components[name] for x in scored])) for name in scored[0].components},
        **{f"trick/{name}": tricks[name] / len(scored) for name in TRICKS},
        **{f"fault/{name}": faults[name] / len(scored) for name in FAULTS},
    }


def similarity(output: np.ndarray, expected: np.ndarray) -> float:
    """Share of cells that are right; 0 where the size is not."""
    return float((output == expected).mean()) if output.shape == expected.shape else 0.0


def _components(passes=0.0, brevity=0.0, wrong=0.0, faults=0.0, trick=0.0) -> dict[str, float]:
    return {"passes": passes, "brevity": brevity, "wrong": wrong, "faults": faults, "trick": trick}


def _kind(outcome: Outcome, at: int) -> str:
    """The kind of fault at one input; empty where it gave a grid."""
    if outcome.outputs[at] is not None:
        return ""
    fault = outcome.faults[at] or outcome.error
    if fault is None or fault.kind not in FAULTS:
        raise ValueError(f"no output for input {at}, and {fault}; expected a fault among {', '.join(FAULTS)}")
    return fault.kind
