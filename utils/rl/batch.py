"""A batch of programs on its way through the workers: who gets which, and what is lost when a worker ends."""

from __future__ import annotations

import logging
import selectors
import time
from collections import Counter, deque
from collections.abc import Callable

from utils.rl.worker import Answer, Worker, WorkerError

GRACE = 5.0  # seconds over a program's time in which a worker must be heard of, or it is killed
TRIES = 2  # how often a program is sent where the worker ends meanwhile
AHEAD = 4  # programs that wait at a worker whose slots are full
log = logging.getLogger(__name__)


def run(
    bodies: list[tuple[bytes, int]], workers: list[Worker], slots: int, timeout: float, restart: Callable[[], Worker]
) -> list[Answer | None]:
    """An answer for each (job, how many inputs); None where a worker ended `TRIES` times with the job under way.

    `workers` is changed in place: one that ends, or is not heard of, is replaced by what `restart` gives.
    """
    answers: list[Answer | None] = [None] * len(bodies)
    waiting, sent, left = deque(range(len(bodies))), Counter(), len(bodies)
    while left:
        wait = GRACE / 2
        for at, worker in enumerate(workers):
            try:
                _feed(worker, waiting, bodies, slots + AHEAD)
            except WorkerError as error:
                left -= _lost(workers, at, error, waiting, sent, restart)
                wait = 0.0  # the new one has nothing to do yet
        for at in _ready(workers, timeout, wait):
            try:
                for place, answer in workers[at].read():
                    answers[place] = answer
                    left -= 1
                if workers[at].jobs and time.monotonic() - workers[at].heard > timeout + GRACE:
                    raise WorkerError(f"not heard of for {timeout + GRACE:.1f} s")
            except WorkerError as error:
                left -= _lost(workers, at, error, waiting, sent, restart)
    return answers


def _feed(worker: Worker, waiting: deque[int], bodies: list[tuple[bytes, int]], most: int) -> None:
    while waiting and len(worker.jobs) < most:
        place = waiting.popleft()
        worker.send(place, *bodies[place])
    if worker.unsent:
        worker.write()


def _ready(workers: list[Worker], timeout: float, wait: float) -> list[int]:
    """The places of the workers to be heard, or that have been silent too long; waits so many seconds for one."""
    with selectors.DefaultSelector() as selector:
        for at, worker in enumerate(workers):
            hear, tell = worker.pipes
            selector.register(hear, selectors.EVENT_READ, at)
            if worker.unsent:
                selector.register(tell, selectors.EVENT_WRITE, -1)
        ready = {key.data for key, _ in selector.select(wait)} - {-1}
    late = {at for at, worker in enumerate(workers) if time.monotonic() - worker.heard > timeout + GRACE}
    return sorted(ready | late)


def _lost(
    workers: list[Worker],
    at: int,
    error: WorkerError,
    waiting: deque[int],
    sent: Counter,
    restart: Callable[[], Worker],
) -> int:
    """Replace a worker and put its jobs in line again; how many of them have no try left."""
    worker, given_up = workers[at], 0
    worker.kill()
    log.warning("A sandbox worker ended with %d programs under way, and is started again: %s", len(worker.jobs), error)
    for place in sorted(worker.jobs.values(), reverse=True):
        sent[place] += 1
        if sent[place] < TRIES:
            waiting.appendleft(place)
        else:
            given_up += 1
    workers[at] = restart()
    return given_up
