"""`deadline`: hours that everything trained within it shares; and what ends a session without being a failure.

    with deadline(11.5):
        ...                                  every run in here stops, saved, before the 11.5 hours are over

Leaves out how a run knows that another step would be too much (`training.budget`).
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


class AskedToStop(Exception):
    """A session that ends because something asked it to, such as a search that prunes a trial: no failure."""


class OutOfTime(AskedToStop):
    """The hours of this session are over; the same again, in another session, goes on."""


@dataclass(frozen=True)
class Deadline:
    """`end` is a time of `clock` (seconds); `hours` is what was asked for."""

    hours: float
    end: float
    clock: Callable[[], float] = time.monotonic

    def left(self) -> float:
        """Seconds that are left; less than 0 afterwards."""
        return self.end - self.clock()


_current: contextvars.ContextVar[Deadline | None] = contextvars.ContextVar("deadline", default=None)


@contextlib.contextmanager
def deadline(
    hours: float | None, *, spent: float = 0.0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Deadline | None]:
    """Within it, what is trained ends in `hours` from now, less the seconds that are `spent` already.

    Within another one the earlier end counts. None changes nothing.
    """
    outer = _current.get()
    own = outer if hours is None else Deadline(hours, clock() + 3600 * hours - spent, clock)
    if outer is not None and own is not outer and outer.left() < own.left():
        own = outer
    before = _current.set(own)
    try:
        yield own
    finally:
        _current.reset(before)


def current() -> Deadline | None:
    """The deadline that counts here."""
    return _current.get()


def seconds_left() -> float:
    """Until the deadline; infinite where there is none."""
    own = _current.get()
    return math.inf if own is None else own.left()


def check_time() -> None:
    """Raise `OutOfTime` where the deadline is over, before anything new is begun."""
    own = _current.get()
    if own is not None and own.left() <= 0:
        raise OutOfTime(f"not begun: the session's {own.hours:g} hours (max_hours) are over; run the same again")
