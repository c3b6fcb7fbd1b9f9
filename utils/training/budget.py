"""`Budget`: the hours of a session, and whether another step still fits into them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class Budget:
    """Hours from its making on. What a round of training takes is measured: the longest of each part so far."""

    def __init__(self, hours: float | None, clock: Callable[[], float] = time.monotonic):
        """`clock` gives seconds. Without `hours` there is no limit."""
        self.hours, self.clock = hours, clock
        self.begun = clock()
        self.longest: dict[str, float] = {}
        self._guessed: dict[str, float] = {}

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
        if self.hours is None:
            return False
        round_ = {**self._guessed, **self.longest}
        return self.clock() - self.begun + sum(round_.values()) + more > 3600 * self.hours
