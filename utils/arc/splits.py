"""Tasks split into train, validation and test, so that no content of a task is in two of them.

Tasks that `arc.duplicates` joins stay together, whatever dataset each is from. Leaves out who trains on what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from utils.arc.duplicates import Duplicates, content_key, find_duplicates, name_of
from utils.arc.groups import SPLITS, split_groups
from utils.arc.tasks import Task

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Splits:
    """The tasks of each split, ordered by name; what was joined; and the repeats that were left out, by name.

    It shows itself as a report: `counts`, and a `table` of the tasks of each split by their source.
    """

    train: tuple[Task, ...]
    validation: tuple[Task, ...]
    test: tuple[Task, ...]
    duplicates: Duplicates
    repeats: tuple[str, ...]

    def __getitem__(self, name: str) -> tuple[Task, ...]:
        """The tasks of "train", "validation" or "test". Raises KeyError for another name."""
        if name not in SPLITS:
            raise KeyError(f"No split {name!r}; expected one of: {', '.join(SPLITS)}.")
        return getattr(self, name)

    @cached_property
    def counts(self) -> dict[str, int]:
        """The tasks of each split, the repeats left out, and the counts of `duplicates` among all that were given."""
        sizes = {name: len(self[name]) for name in SPLITS}
        return {**sizes, "repeats left out": len(self.repeats), **self.duplicates.counts}

    @property
    def table(self) -> pandas.DataFrame:
        """Tasks of each source (rows) in each split (columns), and the repeats of it that were left out."""
        import pandas

        counts = {name: Counter(task.source for task in self[name]) for name in SPLITS}
        counts["repeats left out"] = Counter(name.rpartition("/")[0] for name in self.repeats)
        sources = sorted(set().union(*counts.values()))
        return pandas.DataFrame({name: [own[one] for one in sources] for name, own in counts.items()}, index=sources)

    def __str__(self) -> str:
        return ", ".join(f"{name}: {count}" for name, count in self.counts.items())

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html()}{self.duplicates.table.to_html(index=False)}"


def split_tasks(
    tasks: Iterable[Task],
    *,
    seed: int,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    keep_repeats: bool = False,
) -> Splits:
    """Split groups of tasks at the shares of their number, in an order drawn by `seed`.

    The same tasks in another order give the same splits. Of tasks of equal content one stays, the first by name, unless
    `keep_repeats`. Raises ValueError where the shares are none or leave a split empty, and `TaskError` where a name is
    twice.
    """
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares {shares} must be positive and add up to 1.")
    ordered = sorted(tasks, key=name_of)
    duplicates = find_duplicates(ordered)
    split_of = split_groups(duplicates.groups, shares, seed=seed)
    parts: dict[str, list[Task]] = {name: [] for name in SPLITS}
    seen: set[bytes] = set()
    repeats = []
    for task in ordered:
        key = content_key(task)
        if key in seen and not keep_repeats:
            repeats.append(name_of(task))
        else:
            parts[split_of[name_of(task)]].append(task)
        seen.add(key)
    return Splits(**{name: tuple(own) for name, own in parts.items()}, duplicates=duplicates, repeats=tuple(repeats))
