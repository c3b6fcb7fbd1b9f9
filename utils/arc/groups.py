"""Which tasks belong together, and which split each is in.

Two tasks that share a canonical grid are one group, and a group is in one split, whole. Leaves out the grids.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

SPLITS = ("train", "validation", "test")


def group(tasks: Iterable[str], shared: Iterable[tuple[str, Hashable]]) -> list[list[str]]:
    """The connected components of `tasks` by union-find; tasks with one key in common among `shared` are joined.

    Sorted within and by their first task, so that they do not depend on the order of what came.
    """
    parent = {task: task for task in tasks}

    def root(task: str) -> str:
        while parent[task] != task:
            parent[task] = task = parent[parent[task]]  # halve the path on the way
        return task

    first: dict[Hashable, str] = {}
    for task, key in shared:
        a, b = root(first.setdefault(key, task)), root(task)
        parent[max(a, b)] = min(a, b)
    groups: dict[str, list[str]] = {}
    for task in sorted(parent):
        groups.setdefault(root(task), []).append(task)
    return [groups[name] for name in sorted(groups)]


def split_groups(groups: Sequence[Sequence[str]], shares: tuple[float, float, float], *, seed: int) -> dict[str, str]:
    """The split of each task: groups in an order drawn by `seed`, cut at the shares of their number.

    Raises ValueError where a split would get no group.
    """
    cuts = np.rint(np.cumsum(shares) * len(groups)).astype(int)
    counts = np.diff(cuts, prepend=0)
    if (counts < 1).any():
        counted = ", ".join(f"{name} {count}" for name, count in zip(SPLITS, counts))
        raise ValueError(
            f"{len(groups)} groups of tasks at shares {shares} leave a split empty ({counted}); give more tasks."
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    return {
        task: name
        for name, part in zip(SPLITS, np.split(order, cuts[:-1]))
        for number in part
        for task in groups[number]
    }
