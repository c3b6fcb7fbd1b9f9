"""A training split filled up with distinct grids: augmented from its real ones, then procedural.

What is made depends on the seed and the real grids alone. Leaves out how many of each there should be (`vae.corpus`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from utils.arc.grids import SIDE, canonical_keys, keys, sizes
from utils.vae.augment import AugmentConfig, augment
from utils.vae.data import GridSplit, torch_generator
from utils.vae.generators import KINDS, generate

CHUNK = 4096  # grids made at a time
STALLED = 0.02  # with a smaller share of new grids in a chunk, there are hardly more to be had
ANY_SIZE = 0.25  # share of procedural grids with sides of 1 to 30; the others have the size of a real grid


class Filling:
    """Distinct grids, `real` ones at first; none that is added has a canonical form of `held_out`.

    `refused` counts what was made and not taken.
    """

    def __init__(self, real: GridSplit, held_out: set[bytes], seed: int):
        self.real, self.held_out, self.seed = real, held_out, seed
        self.parts = [real]
        self.seen = set(keys(real.grids))
        self.refused: Counter[str] = Counter(repeats_dropped=0, equal_to_a_held_out_grid_dropped=0)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def split(self) -> GridSplit:
        """All of it: real, augmented and procedural, in this order."""
        columns = zip(*(part.arrays().values() for part in self.parts))
        return GridSplit(*(np.concatenate(column) for column in columns))

    def augment(self, count: int, config: AugmentConfig) -> None:
        """Add up to `count` turned and renamed copies of real grids; fewer where there are hardly more."""

        def make(number: int) -> GridSplit:
            rows = np.random.default_rng((self.seed, 3, number)).integers(len(self.real), size=CHUNK)
            batch = augment(self.real.batch(rows), config, generator=torch_generator(self.seed, 4, number))
            return as_split(batch["grids"].numpy(), self.real.task_ids[rows], "augmented")

        self._add(count, make)

    def generate(self, count: int, kinds: Sequence[str]) -> None:
        """Add up to `count` procedural grids, in equal parts of each kind."""
        for left, kind in zip(range(len(kinds), 0, -1), kinds):
            count -= self._add(-(-count // left), self._maker(kind, count))

    def _maker(self, kind: str, count: int) -> Callable[[int], GridSplit]:
        size = min(CHUNK, 64 + count)

        def make(number: int) -> GridSplit:
            rng = np.random.default_rng((self.seed, 5, list(KINDS).index(kind), number))
            rows, anything = rng.integers(len(self.real), size=size), rng.random(size) < ANY_SIZE
            height, width = (
                np.where(anything, rng.integers(1, SIDE + 1, size), side[rows])
                for side in (self.real.heights, self.real.widths)
            )
            return as_split(generate(kind, height, width, rng=rng), np.full(size, ""), kind)

        return make

    def _add(self, count: int, make: Callable[[int], GridSplit]) -> int:
        """Add grids of make(0), make(1), ... that are new, up to `count` or until hardly one is; how many it was."""
        added, number, stalled = 0, 0, False
        while added < count and not stalled:
            new = make(number)
            rows = self._new(new)
            stalled = len(rows) < STALLED * len(new)
            self.parts.append(new.subset(rows[: count - added]))
            added, number = added + len(self.parts[-1]), number + 1
        return added

    def _new(self, split: GridSplit) -> np.ndarray:
        """The rows that are neither seen before nor held out; they are seen now."""
        rows = []
        for row, key in enumerate(keys(split.grids)):
            if key not in self.seen:
                self.seen.add(key)
                rows.append(row)
        self.refused["repeats_dropped"] += len(split) - len(rows)
        new = split.subset(np.array(rows, int))
        forms = canonical_keys(new.grids, new.heights, new.widths)
        kept = [row for row, form in zip(rows, forms) if form not in self.held_out]
        self.refused["equal_to_a_held_out_grid_dropped"] += len(rows) - len(kept)
        return np.array(kept, int)


def as_split(grids: np.ndarray, task_ids: np.ndarray, source: str) -> GridSplit:
    """Canvases (N, 30, 30) as a split, their heights and widths counted."""
    heights, widths = (side.astype(np.uint8) for side in sizes(grids))
    return GridSplit(grids, heights, widths, task_ids, np.full(len(grids), source))
