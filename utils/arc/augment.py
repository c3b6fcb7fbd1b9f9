"""Augmentation of a task: one turn or mirror and one renaming of colours for all its grids, so that its rule is kept.

Every change is undone by its inverse. Leaves out batches of canvases, which `vae.augment` changes grid by grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.arc.grids import COLOURS
from utils.arc.tasks import Pair, Task

INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)  # of each image of arc.grids.d4: a quarter turn back; a mirror undoes itself
SAME = tuple(range(COLOURS))


@dataclass(frozen=True)
class Change:
    """Image `element` of `arc.grids.d4` (0 to 7), and colour k becomes `names[k]`. The default changes nothing."""

    element: int = 0
    names: tuple[int, ...] = SAME

    def __post_init__(self):
        if not 0 <= self.element < 8:
            raise ValueError(f"Element {self.element} is not of D4; expected 0 to 7.")
        if sorted(self.names) != list(SAME):
            raise ValueError(f"names {self.names} are no renaming; expected each of 0 to {COLOURS - 1} once.")

    @property
    def inverse(self) -> Change:
        """What undoes it. A turn and a renaming may be done in either order."""
        return Change(INVERSE[self.element], tuple(np.argsort(self.names).tolist()))

    def of_grid(self, grid: np.ndarray) -> np.ndarray:
        """A new grid: (h, w) uint8 -> (h, w), or (w, h) where the element is a quarter turn or a diagonal mirror."""
        image = np.rot90(grid.T if self.element > 3 else grid, self.element % 4)
        return np.take(np.array(self.names, np.uint8), image)

    def of_task(self, task: Task) -> Task:
        """A new task of the same id and source, all of whose grids are changed alike."""
        train, test = (
            tuple(Pair(self.of_grid(pair.input), self.of_grid(pair.output)) for pair in pairs)
            for pairs in (task.train, task.test)
        )
        return Task(task.id, train, test, task.source)


def draw_change(
    *, generator: np.random.Generator, d4: bool = True, colours: bool = True, keep_black: bool = True
) -> Change:
    """A change drawn uniformly: one of the 8 images where `d4`, one of the renamings where `colours`.

    Colour 0, the usual background, keeps its name where `keep_black`.
    """
    element = int(generator.integers(8)) if d4 else 0
    first = int(keep_black)
    names = (*SAME[:first], *(generator.permutation(COLOURS - first) + first).tolist()) if colours else SAME
    return Change(element, names)


def augment(
    task: Task, *, generator: np.random.Generator, d4: bool = True, colours: bool = True, keep_black: bool = True
) -> tuple[Task, Change]:
    """A task changed at random, and the change: `change.inverse.of_task` gives the task back."""
    change = draw_change(generator=generator, d4=d4, colours=colours, keep_black=keep_black)
    return change.of_task(task), change
