"""`Evaluation`: what was found of a policy, or of a baseline, on some tasks; and the difference of two of them.

Leaves out the drawing and judging of programs (`rl.evaluate`), and tables and figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.rl.estimates import Estimate, bootstrap, pass_at_k
from utils.rl.reward import FAULTS, Scored
from utils.rl.tricks import TRICKS

if TYPE_CHECKING:
    import pandas

ENDINGS = ("solved", "partial", "wrong", *TRICKS, *FAULTS)


def ending(scored: Scored) -> str:
    """The one of ENDINGS that a program came to: solved, else its trick, else partial, else its fault, else wrong."""
    if scored.passed == 1:
        return "solved"
    return scored.trick or ("partial" if scored.passed else scored.fault or "wrong")


@dataclass(frozen=True)
class Record:
    """What was found on one task."""

    task_id: str
    level: int
    """steps of the program that made it; 0 where that is not known"""
    seen: bool | None
    """whether the program that made it also made a training task; None where no program did or that is not known"""
    samples: int
    correct: int
    """of the programs drawn, how many solve it"""
    greedy: bool | None
    """whether the likeliest program solves it; None where there is none"""
    program: str
    """of those drawn and the likeliest, the one that earned most"""
    passed: float
    """the share of hidden pairs that it gets right"""
    drawn: int
    """how often it was drawn"""
    distinct: int
    """different programs among those drawn"""
    endings: dict[str, int]
    """how many of those drawn came to each of ENDINGS"""


@dataclass(frozen=True)
class Evaluation:
    """What was found on some tasks. Rates are means over tasks, with 95% intervals over tasks."""

    name: str
    records: Sequence[Record] = field(repr=False)
    ks: tuple[int, ...] = (1,)
    draws: int = 2000
    """of tasks, for the intervals"""
    seed: int = 0
    tokens: Sequence[int] = field(default=(), repr=False)
    """of every program drawn, in the order of the tasks; empty where no tokens were drawn"""
    characters: Sequence[int] = field(default=(), repr=False)
    """likewise, of the program's text"""

    def __post_init__(self):
        if not self.records:
            raise ValueError(f"The evaluation {self.name} has no task; expected at least one.")

    @property
    def metrics(self) -> list[str]:
        """Names of the rates: greedy, where there is one, between pass@1 and the others."""
        greedy = ["greedy"] if self.records[0].greedy is not None else []
        first = [f"pass@{k}" for k in self.ks if k == 1]
        return [*first, *greedy, *(f"pass@{k}" for k in self.ks if k != 1)]

    def values(self, metric: str) -> np.ndarray:
        """One number a task (N,): "pass@k" for any k up to the number of programs drawn, or "greedy"."""
        if metric == "greedy":
            if self.records[0].greedy is None:
                raise ValueError(f"{self.name} has no greedy program; expected a pass@k.")
            return np.array([float(one.greedy) for one in self.records])
        name, _, k = metric.partition("@")
        if name != "pass" or not k.isdecimal():
            raise ValueError(f"No rate {metric!r}; expected greedy or pass@k.")
        return np.array([pass_at_k(one.samples, one.correct, int(k)) for one in self.records])

    @cached_property
    def rates(self) -> dict[str, Estimate]:
        return {metric: self.estimate(self.values(metric)) for metric in self.metrics}

    @cached_property
    def by_level(self) -> dict[int, Evaluation]:
        """The tasks of each level, as evaluations of their own."""
        return self._parts(lambda one: one.level)

    @cached_property
    def by_seen(self) -> dict[bool, Evaluation]:
        """The tasks made by programs that also made training tasks (True), and the others (False), where known."""
        return {key: part for key, part in self._parts(lambda one: one.seen).items() if key is not None}

    @cached_property
    def endings(self) -> dict[str, float]:
        """The share of all programs drawn that came to each of ENDINGS; they add up to 1."""
        counts = sum((Counter(one.endings) for one in self.records), Counter())
        return {name: counts[name] / counts.total() for name in ENDINGS}

    @property
    def counts(self) -> dict[str, int]:
        """tasks; programs drawn, those that solve their task, different ones; tasks solved by any of `programs_a_task`
        programs, the greedy one among them; tasks that the greedy one solves."""
        greedy = [one.greedy for one in self.records if one.greedy is not None]
        return {
            "tasks": len(self.records),
            "programs": sum(one.samples for one in self.records),
            "correct": sum(one.correct for one in self.records),
            "distinct": sum(one.distinct for one in self.records),
            "programs_a_task": self.programs_a_task,
            "tasks_solved_by_any_program": self.solved_by_any,
            **({"tasks_solved_by_greedy": sum(greedy)} if greedy else {}),
        }

    @property
    def programs_a_task(self) -> int:
        """Programs that a task was tried with: those drawn, and the greedy one where there is one."""
        return self.records[0].samples + (self.records[0].greedy is not None)

    @property
    def solved_by_any(self) -> int:
        """Tasks solved by any of those programs: the best is chosen by the hidden pairs, so it is no one's score."""
        return sum(one.passed == 1 for one in self.records)

    @property
    def tasks(self) -> pandas.DataFrame:
        """A row a task."""
        import pandas

        return pandas.DataFrame([asdict(one) for one in self.records]).drop(columns="endings")

    def estimate(self, values: np.ndarray) -> Estimate:
        return bootstrap(values, draws=self.draws, seed=self.seed)

    def content(self) -> dict[str, Any]:
        """All but the records as JSON values; what is not a number is null."""
        parts = {"by_level": self.by_level, "by_seen": self.by_seen}
        found = {
            "counts": self.counts,
            "rates": self.rates,
            **{
                name: {str(key): {"tasks": len(one.records), **one.rates} for key, one in part.items()}
                for name, part in parts.items()
            },
            "endings": self.endings,
            "tokens": spread(self.tokens),
            "characters": spread(self.characters),
        }
        return as_json(found)

    def _parts(self, key: Callable[[Record], Any]) -> dict[Any, Evaluation]:
        found: dict[Hashable, list[Record]] = {}
        for one in self.records:
            found.setdefault(key(one), []).append(one)
        parts = sorted(found.items(), key=lambda item: (item[0] is None, item[0]))
        return {name: replace(self, records=part, tokens=(), characters=()) for name, part in parts}


def paired(before: Evaluation, after: Evaluation, metric: str) -> Estimate:
    """The mean over tasks of `after` less `before`, with its interval; both are of the same tasks in the same order."""
    ids = [[one.task_id for one in evaluation.records] for evaluation in (before, after)]
    if ids[0] != ids[1]:
        raise ValueError(
            f"{before.name} has {len(ids[0])} tasks and {after.name} {len(ids[1])}, or others; expected the same ones"
        )
    return after.estimate(after.values(metric) - before.values(metric))


def spread(lengths: Sequence[int]) -> dict[str, float] | None:
    """Mean, median, 95% quantile and maximum; None where there is nothing."""
    if not len(lengths):
        return None
    median, high = np.quantile(lengths, [0.5, 0.95])
    return {"mean": float(np.mean(lengths)), "median": float(median), "p95": float(high), "max": int(max(lengths))}


def as_json(value: Any) -> Any:
    if isinstance(value, Estimate):
        return as_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
