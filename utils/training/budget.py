"""`Budget`: the hours of a session, and whether another step still fits into them.

A session may be one run, or several of a search or a study: then the deadline around them all counts (`core.deadline`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from utils.core.deadline import current


class Budget:
    """Hours from its making on, and the deadline that it is made in: whichever ends first.

    What a round of training takes is measured: the longest of each part so far.
    """

    def __init__(self, hours: float | None, clock: Callable[[], float] = time.monotonic):
        """`clock` gives seconds. Without `hours`, and outside a deadline, there is no limit."""
        self.hours, self.clock, self.deadline = hours, clock, current()
        self.begun = clock()
        self.longest: dict[str, float] = {}
        self._guessed: dict[str, float] = {}

    @property
    def limited(self) -> bool:
        return self.hours is not None or self.deadline is not None

    @property
    def asked(self) -> float:
        """The hours that a person gave."""
        return self.hours if self.hours is not None else self.deadline.hours if self.deadline else math.inf

    @contextlib.contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """What is done inside is a `part` of a round: a step, an evaluation, a checkpoint."""
        begun = self.clock()
        yield
        self.longest[part] = max(self.longest.get(part, 0.0), self.clock() - begun)

    def guess(self, part: str, seconds: float) -> None:
        """What a part may take, until it has been measured."""
        self._guessed[part] = seconds

    def spent(self, more: float = 0.0) -> bool:
        """Whether one more round, and `more` seconds at the end, would go over the limit."""
        needed = sum({**self._guessed, **self.longest}.values()) + more
        if self.hours is not None and self.clock() - self.begun + needed > 3600 * self.hours:
            return True
        return self.deadline is not None and needed > self.deadline.left()
