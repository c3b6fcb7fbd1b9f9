"""The embedded curriculum: tasks made by programs of our own, for the warm start, for PPO, and held out.

No two splits have a pair in common, shown or hidden, so no pair of a validation or test task was trained on; and with
`held_out_programs` no program. Everything is a function of the settings; nothing is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from utils.arc.behaviour import behaviour
from utils.arc.difficulty import levels as difficulty_levels
from utils.arc.programs import Example, ProgramsConfig, generate, pair_keys
from utils.arc.tasks import Task
from utils.core.config import Config, digest
from utils.rl.rollout import Problem

if TYPE_CHECKING:
    import pandas

SPLITS = ("test", "validation", "train")  # made in this order, each without any pair of those before
HELD_OUT = 5  # one behaviour in so many is kept from training, with `held_out_programs`
BUCKETS = 4  # of difficulty


class PoolConfig(Config):
    """The tasks that a policy learns from and is judged by."""

    programs: ProgramsConfig = ProgramsConfig()
    """what programs and tasks are drawn"""
    train: int = Field(20000, ge=1)
    """tasks to learn from"""
    validation: int = Field(200, ge=1)
    """tasks that choose the best weights"""
    test: int = Field(400, ge=1)
    """tasks for the final judgement"""
    max_cells: int = Field(130, ge=1)
    """most cells of a task's shown grids together, the end of each row counted as one"""
    held_out_programs: bool = False
    """make validation and test tasks by programs that no training task is made by, in any wording: a fifth of all"""
    seed: int = Field(0, ge=0)
    """of the tasks"""


@dataclass(frozen=True, repr=False, eq=False)
class Pool:
    """The examples of each split; it shows itself as a table of them."""

    config: PoolConfig
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]

    @cached_property
    def fingerprint(self) -> str:
        """Of every task and its program, in order."""
        splits = (self.train, self.validation, self.test)
        return digest([[(one.task.id, one.program) for one in split] for split in splits])  # the id is of the pairs

    @cached_property
    def behaviours(self) -> frozenset[bytes]:
        """What the programs do that made the training tasks (`arc.behaviour`)."""
        return frozenset(map(behaviour, {example.program for example in self.train}))

    def has_seen(self, example: Example) -> bool:
        """Whether a training task was made by a program that does what this example's does, however it is written."""
        return behaviour(example.program) in self.behaviours

    @property
    def table(self) -> pandas.DataFrame:
        """A row a split: its tasks, the texts of programs that made them, tasks of programs that do what none in
        training does, tasks by steps."""
        import pandas

        rows = {}
        for name in reversed(SPLITS):
            examples = getattr(self, name)
            steps = Counter(example.depth for example in examples)
            rows[name] = {
                "tasks": len(examples),
                "different programs": len({example.program for example in examples}),
                "of programs not in training": sum(not self.has_seen(example) for example in examples),
                **{f"{depth} step{'s' * (depth > 1)}": steps[depth] for depth in sorted(steps)},
            }
        return pandas.DataFrame.from_dict(rows, orient="index").fillna(0).astype(int)

    def __repr__(self) -> str:
        return self.table.to_string()

    def _repr_html_(self) -> str:
        return self.table.to_html()


@lru_cache(maxsize=2)
def make_pool(config: PoolConfig) -> Pool:
    """All examples of the settings, about a millisecond each. Raises `ProgramsError` where they cannot be had."""
    made: dict[str, tuple[Example, ...]] = {}
    for number, split in enumerate(SPLITS):
        keys = {key for examples in made.values() for example in examples for key in pair_keys(example.task)}
        count, seed = getattr(config, split), len(SPLITS) * config.seed + number
        kept_out: Container[str] = _Programs(held_out=split == "train") if config.held_out_programs else ()
        made[split] = tuple(
            generate(
                count, seed=seed, config=config.programs, exclude=keys, exclude_programs=kept_out,
                max_cells=config.max_cells,
            )
        )  # fmt: skip
    return Pool(config, **made)


@dataclass(frozen=True)
class _Programs:
    """The programs that are held out from training, or all others: by what they do, in whatever wording."""

    held_out: bool

    def __contains__(self, program: str) -> bool:
        return (behaviour(program)[0] % HELD_OUT == 0) == self.held_out


def problems(
    examples: Sequence[Example],
    encode: Callable[[Task], Sequence[int]],
    *,
    levels: Literal["steps", "difficulty"] = "steps",
) -> list[Problem]:
    """Examples as problems: `encode` gives a task's prompt.

    The level is the number of the program's steps; or, of "difficulty", that of the task's bucket among these examples,
    1 for the easiest of 4 (`arc.difficulty`).
    """
    if levels == "steps":
        numbers = [one.depth for one in examples]
    else:
        tasks = [one.task for one in examples]
        numbers = (1 + difficulty_levels(tasks, min(BUCKETS, len(tasks)))).tolist()
    return [Problem(one.task, tuple(encode(one.task)), level) for one, level in zip(examples, numbers)]
