"""`Counters`: what the server did, in the text format that Prometheus reads (exposition format 0.0.4).

A counter and a histogram are all that is needed, so there is no client library.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts of values up to each bound, and their sum."""

    def __init__(self, bounds: tuple[float, ...]):
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        found, lines = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts):
            found += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {found}')
        return [*lines, f"{name}_sum {self.total}", f"{name}_count {found}"]


class Counters:
    """Requests by path and status, their seconds, the sizes of batches, tokens made. Safe between threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds, self.batches = Histogram(SECONDS), Histogram(SIZES)
        self.tokens = 0

    def request(self, path: str, status: int, seconds: float) -> None:
        with self._lock:
            self.requests[path, status] += 1
            self.seconds.add(seconds)

    def batch(self, size: int) -> None:
        with self._lock:
            self.batches.add(size)

    def made(self, tokens: int) -> None:
        with self._lock:
            self.tokens += tokens

    def text(self, *, waiting: int, running: int) -> str:
        """All of it, and how many requests wait and run now."""
        with self._lock:
            requests = [
                f'runall_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self.requests.items())
            ]
            parts = [
                ("runall_requests_total", "counter", "requests by path and status; 499: the client left", requests),
                ("runall_request_seconds", "histogram", "from arrival to the end of the answer",
                 self.seconds.lines("runall_request_seconds")),
                ("runall_batch_size", "histogram", "texts or grids computed together",
                 self.batches.lines("runall_batch_size")),
                ("runall_generated_tokens_total", "counter", "tokens made",
                 [f"runall_generated_tokens_total {self.tokens}"]),
                ("runall_queue_length", "gauge", "requests that wait", [f"runall_queue_length {waiting}"]),
                ("runall_running_requests", "gauge", "requests in a batch", [f"runall_running_requests {running}"]),
            ]  # fmt: skip
        lines = []
        for name, kind, told, values in parts:
            lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}", *values]
        return "\n".join(lines) + "\n"
