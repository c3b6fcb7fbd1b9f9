"""`Batcher`: one thread that runs the model. Requests wait in order, and those that can are computed together.

Batches that generate take turns, a token each, so that a long text does not hold up what came after it. What fails in
a batch is tried again by itself: only the request that fails alone is told so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from utils.publish.counters import Counters
from utils.publish.handling.endpoint import EndpointHandler
from utils.publish.handling.requests import Request
from utils.publish.handling.rows import Row
from utils.publish.limits import Limits

log = logging.getLogger(__name__)


class Refused(RuntimeError):
    """A request that is not answered, with the status that says why."""

    def __init__(self, status: int, kind: str, message: str):
        super().__init__(message)
        self.status, self.kind = status, kind


Told = tuple[Literal["event", "done", "error"], Any]
"""an event of a stream; the whole answer; a `Refused`"""


@dataclass
class Job:
    """A request on its way. `tell` is called in the batcher's thread."""

    request: Request
    tell: Callable[[Told], None]
    deadline: float
    """of time.monotonic()"""
    stream: bool = False
    cancelled: bool = False
    """set by whoever no longer wants the answer"""
    over: bool = False
    told: int = 0
    """tokens that a stream has told"""

    def end(self, what: Literal["done", "error"], value: Any) -> None:
        if not self.over:
            self.over = True
            self.tell((what, value))


@dataclass
class Group:
    """Jobs whose rows generate together."""

    jobs: list[Job]
    steps: Iterator[list[Row]] = field(repr=False)


class Batcher:
    """Runs from `start` to `stop`."""

    def __init__(self, handler: EndpointHandler, limits: Limits, counters: Counters):
        self.handler, self.limits, self.counters = handler, limits, counters
        self.waiting: deque[Job] = deque()
        self.groups: list[Group] = []
        self.stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self.stopping

    @property
    def running(self) -> int:
        return sum(len(group.jobs) for group in self.groups)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Refuse what comes, finish what is there, and end."""
        with self._changed:
            self.stopping = True
            self._changed.notify()
        self._thread.join(seconds)

    def submit(self, job: Job) -> None:
        """Put a job in the queue. Raises `Refused` where it is full, or the server stops."""
        with self._changed:
            if self.stopping:
                raise Refused(503, "overloaded", "The server is stopping; try again when it is back.")
            if len(self.waiting) >= self.limits.queue:
                raise Refused(429, "overloaded", f"{len(self.waiting)} requests wait already; try again later.")
            self.waiting.append(job)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.waiting or self.groups or self.stopping)
                if not self.waiting and not self.groups:
                    return
                jobs = self._take()
            if jobs:
                self.counters.batch(sum(job.request.size for job in jobs))
                if jobs[0].request.rows:
                    self.groups.append(self._group(jobs))
                else:
                    self._compute(jobs)
            for group in list(self.groups):
                if not self._step(group):
                    self.groups.remove(group)

    def _take(self) -> list[Job]:
        """The next jobs in their order, of one task, as many as a batch holds; none where all batches are busy."""
        jobs: list[Job] = []
        size, now = 0, time.monotonic()
        while self.waiting:
            job = self.waiting[0]
            if job.cancelled:
                self.waiting.popleft()
                continue
            if now > job.deadline:
                self.waiting.popleft()
                told = f"The request waited {self.limits.seconds:g} s for its turn; try again later."
                job.end("error", Refused(503, "overloaded", told))
                continue
            if job.request.rows and len(self.groups) >= self.limits.batches:
                break
            if jobs and job.request.task != jobs[0].request.task:
                break
            if jobs and size + job.request.size > self.limits.batch_size:
                break
            size += job.request.size
            jobs.append(self.waiting.popleft())
        return jobs

    def _group(self, jobs: list[Job]) -> Group:
        for job in jobs:
            for row in job.request.rows:
                row.watched = job.stream
        return Group(jobs, self.handler.decode([row for job in jobs for row in job.request.rows]))

    def _step(self, group: Group) -> bool:
        """One token of each row; whether any is left to do."""
        now = time.monotonic()
        for job in group.jobs:
            if job.cancelled or now > job.deadline:
                for row in job.request.rows:
                    row.finish = row.finish or "cancelled"
                told = f"The answer was not complete after {self.limits.seconds:g} s; ask for fewer tokens."
                job.end("error", Refused(504, "timeout", told))
        group.jobs = [job for job in group.jobs if not job.over]
        if not group.jobs:
            return False
        try:
            rows = next(group.steps, [])
        except Exception as error:  # whatever the model raises is this batch's alone
            self._failed(group, error)
            return False
        self.counters.made(len(rows))
        self._tell(group)
        return bool(group.jobs)

    @staticmethod
    def _tell(group: Group) -> None:
        """The tokens that are new, and whole answers; their jobs leave."""
        for job in group.jobs:
            row = job.request.rows[0]
            if job.stream and len(row.tokens) > job.told:
                job.told = len(row.tokens)
                job.tell(("event", row.event()))
            if all(row.finish for row in job.request.rows):
                job.end("done", [row.result() for row in job.request.rows])
        group.jobs = [job for job in group.jobs if not job.over]

    def _compute(self, jobs: list[Job]) -> None:
        try:
            answers = self.handler.run([job.request for job in jobs])
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._compute([job])
                return
            _tell_failure(jobs[0], error)
            return
        for job, answer in zip(jobs, answers):
            job.end("done", answer)

    def _failed(self, group: Group, error: Exception) -> None:
        """A batch of several goes on as a batch each, from the tokens that its rows have."""
        several = len(group.jobs) > 1
        self._tell(group)  # of the step that failed, rows before the one that it failed at have a token
        if several:
            log.warning("A batch of several requests failed (%s); each of %d is tried alone.", error, len(group.jobs))
            self.groups += [self._group([job]) for job in group.jobs]
        else:
            for job in group.jobs:
                _tell_failure(job, error)


def _tell_failure(job: Job, error: Exception) -> None:
    log.error("The model failed on a request.", exc_info=error)
    job.end("error", Refused(500, "generation", f"The model failed: {type(error).__name__}: {error}"))
