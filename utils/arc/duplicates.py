"""Tasks that are the same task, wholly or in part: found by hashes of their content, within and across datasets.

Two tasks are joined where they have one id, or a pair in common up to turns, mirrors and names of colours. Leaves out
what is done about it (`arc.splits`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from utils.arc.grids import keys, renamed, to_canvas
from utils.arc.groups import group
from utils.arc.tasks import Pair, Task, TaskError

if TYPE_CHECKING:
    import pandas

RELATIONS = ("equal", "overlapping", "different")


@dataclass(frozen=True)
class Link:
    """Two tasks, by name, that belong together.

    `relation`: "equal" where they have the same train pairs and the same test pairs, in any order; "overlapping" where
    they share a pair up to turns, mirrors and colours; "different" where they share an id alone.
    """

    first: str
    second: str
    sources: tuple[str, str]
    same_id: bool
    relation: str


@dataclass(frozen=True)
class Duplicates:
    """The tasks that belong together: `groups` of names, those of one task included, and the `links` within them."""

    groups: tuple[tuple[str, ...], ...]
    links: tuple[Link, ...]
    contents: int
    """distinct contents"""

    @cached_property
    def counts(self) -> dict[str, int]:
        """Tasks, distinct contents, groups, groups of several tasks, tasks of the largest group, links by relation."""
        relations = Counter(link.relation for link in self.links)
        return {
            "tasks": sum(map(len, self.groups)),
            "distinct contents": self.contents,
            "groups": len(self.groups),
            "groups of several tasks": sum(len(one) > 1 for one in self.groups),
            "largest group": max(map(len, self.groups), default=0),
            **{f"links {relation}": relations[relation] for relation in RELATIONS},
        }

    @property
    def table(self) -> pandas.DataFrame:
        """How many links there are between two sources, by id and relation."""
        import pandas

        counted = Counter((*link.sources, "same" if link.same_id else "other", link.relation) for link in self.links)
        columns = ["source", "other source", "id", "relation", "links"]
        return pandas.DataFrame([(*row, count) for row, count in sorted(counted.items())], columns=columns)

    def __str__(self) -> str:
        return ", ".join(f"{name}: {count}" for name, count in self.counts.items())

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html(index=False)}"


def find_duplicates(tasks: Iterable[Task]) -> Duplicates:
    """The groups and links among tasks, whatever their order. Raises `TaskError` where a name is twice."""
    named: dict[str, Task] = {}
    for task in tasks:
        if name_of(task) in named:
            raise TaskError(f"Two tasks are named {name_of(task)}; expected each source and id once.")
        named[name_of(task)] = task
    forms = {name: frozenset(found) for name, found in zip(named, _forms_by_task(list(named.values())))}
    contents = {name: content_key(task) for name, task in named.items()}
    shared = [(name, key) for name, task in named.items() for key in (task.id, *forms[name])]
    groups = group(named, shared)
    links = []
    for first, second in (two for members in groups for two in combinations(members, 2)):
        one, other = named[first], named[second]
        overlap, same_id = forms[first] & forms[second], one.id == other.id
        if overlap or same_id:
            relation = "overlapping" if overlap else "different"
            relation = "equal" if contents[first] == contents[second] else relation
            links.append(Link(first, second, (one.source, other.source), same_id, relation))
    return Duplicates(tuple(map(tuple, groups)), tuple(links), len(set(contents.values())))


def name_of(task: Task) -> str:
    """Source and id, such as arcagi/training/007bbfb7."""
    return f"{task.source}/{task.id}"


def content_key(task: Task) -> bytes:
    """16 bytes that are equal for tasks of the same train pairs and the same test pairs, each in any order."""
    parts = []
    for pairs in (task.train, task.test):
        two = (keys(np.stack([to_canvas(pair.input), to_canvas(pair.output)])) for pair in pairs)
        parts += [len(pairs).to_bytes(4, "big"), *sorted(b"".join(one) for one in two)]
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def _forms_by_task(tasks: Sequence[Task]) -> list[list[bytes]]:
    pairs = [[*task.train, *task.test] for task in tasks]
    found = iter(pair_forms([pair for own in pairs for pair in own]))
    return [[next(found) for _ in own] for own in pairs]


def pair_forms(pairs: Sequence[Pair]) -> list[bytes]:
    """16 bytes for each pair, equal exactly where one turn or mirror and one renaming make both grids into the other's.

    The form is the least of a pair's images under D4, the colours named in the order in which they appear in the input
    and then in the output.
    """
    shapes: dict[tuple[int, ...], list[int]] = {}
    for number, pair in enumerate(pairs):
        shapes.setdefault((*pair.input.shape, *pair.output.shape), []).append(number)
    forms = [b""] * len(pairs)
    for numbers in shapes.values():
        inputs, outputs = (
            _images(np.stack([getattr(pairs[number], side) for number in numbers])) for side in ("input", "output")
        )
        images = [((*one.shape[1:], *other.shape[1:]), one, other) for one, other in zip(inputs, outputs)]
        least = min(shape for shape, _, _ in images)
        cells = [
            renamed(np.concatenate([grids.reshape(len(numbers), -1) for grids in (one, other)], axis=1))
            for shape, one, other in images
            if shape == least
        ]
        for number, *rows in zip(numbers, *cells):
            row = min(one.tobytes() for one in rows)
            forms[number] = hashlib.blake2b(bytes(least) + row, digest_size=16).digest()
    return forms


def _images(grids: np.ndarray) -> list[np.ndarray]:
    """The 8 images of each of (n, h, w) grids, in the order of `arc.grids.d4`."""
    return [np.rot90(side, turns, (1, 2)) for side in (grids, grids.transpose(0, 2, 1)) for turns in range(4)]
