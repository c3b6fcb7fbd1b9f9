"""Events on their way to one tracker: whatever the tracker does, training goes on, and what is lost is counted."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from utils.core.redact import redacted

log = logging.getLogger(__name__)
TRIES = 3  # of one event, before it is given up
KEPT = 10_000  # events waiting, before the oldest is given up


class Delivery:
    """Hands a tracker its events in order. An event that fails is tried again with the next one.

    A tracker that is `rebuilt` from the metrics is made anew instead, and loses nothing.
    """

    def __init__(self, name: str, make: Callable[[], Any]):
        self.name = name
        self.tracker: Any = None
        self.waiting: deque[tuple[str, tuple]] = deque()
        self.dropped = 0
        self._make = make
        self._tries = 0
        self._told = False
        self._open()

    def tell(self, event: str, *args: Any) -> None:
        """Call the tracker's method `event`."""
        if self.tracker is None:
            return
        self.waiting.append((event, args))
        self._send()

    def close(self, *args: Any) -> None:
        """Hand over what waits, close the tracker, and say what it never got."""
        if self.tracker is None:
            return
        lost = self.dropped
        while self.waiting and self.tracker is not None and self.dropped == lost:
            self._send()
        self.dropped += len(self.waiting)  # none of which it would take either
        try:
            if self.tracker is not None:
                self.tracker.close(*args)
        except Exception as error:
            log.warning("%s could not be closed: %s. %s", self.name, told(error), self._consequence())
        if self.dropped:
            log.warning("%s lost %d events of this session. %s", self.name, self.dropped, self._consequence())

    def _send(self) -> None:
        while self.waiting and self.tracker is not None:
            event, args = self.waiting[0]
            try:
                getattr(self.tracker, event)(*args)
            except Exception as error:  # a tracker may fail in any way, and training goes on
                if self.tracker.rebuilt:
                    self._rebuild(error)
                elif not self._retry(event, error):
                    return
            else:
                self.waiting.popleft()
                self._tries = 0

    def _retry(self, event: str, error: Exception) -> bool:
        """Whether to go on with the next event: the failed one was given up."""
        if not self._told:
            self._told = True
            log.warning(
                "%s failed at %s: %s. Training goes on; what it misses is tried again, and counted at the end. %s",
                self.name, event, told(error), self._consequence(),
            )  # fmt: skip
        self._tries += 1
        given_up = self._tries >= TRIES
        if given_up or len(self.waiting) > KEPT:
            self.waiting.popleft()
            self.dropped += 1
            self._tries = 0
        return given_up

    def _rebuild(self, error: Exception) -> None:
        log.warning("%s could not be written: %s. %s", self.name, told(error), self._consequence())
        with contextlib.suppress(Exception):  # what it still holds is in the metrics
            self.tracker.close()
        self.waiting.clear()
        self._open()

    def _open(self) -> None:
        try:
            self.tracker = self._make()
        except Exception as error:
            self.tracker = None
            log.warning(
                "%s could not be opened: %s. Training goes on without it; metrics.jsonl is kept.",
                self.name, told(error),
            )  # fmt: skip

    def _consequence(self) -> str:
        rebuilt = self.tracker is not None and self.tracker.rebuilt
        return "It is rebuilt from the metrics." if rebuilt else "metrics.jsonl has all metrics."


def told(error: Exception) -> str:
    """An error on one line, without its secrets."""
    text = " ".join(str(error).split())
    return redacted(f"{type(error).__name__}: {text}" if text else type(error).__name__)
