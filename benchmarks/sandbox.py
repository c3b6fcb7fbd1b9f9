"""How many programs a second the sandbox runs, with every layer that this machine has, and when some of them hang.

python benchmarks/sandbox.py [--programs 2000] [--workers 2] [--hang 0.1]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np

from utils.rl.sandbox import Job, Sandbox, SandboxConfig

PROGRAM = """\
def solve(grid):
    grid = [row[::-1] for row in grid]
    grid = [[{colour} if cell == 0 else cell for cell in row] for row in grid]
    return grid[::-1]
"""
HANGS = "def solve(grid):\n    while True:\n        pass\n"
NAMESPACES = ("user", "network", "pid", "ipc", "mount")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hang", type=float, default=0.1, help="share of programs that never end, in the last row")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many is shown")
    arguments = parser.parse_args()
    jobs, hanging = programs(arguments.programs, 0.0), programs(1000, arguments.hang)
    print(f"{arguments.programs} programs on 3 grids of 10x10, {arguments.workers} workers, best of {arguments.rounds}")
    for name, disabled in {"every layer": (), "no namespaces": NAMESPACES}.items():
        with Sandbox(SandboxConfig(disabled=disabled), arguments.workers) as sandbox:
            seconds, busy = min(timed(sandbox, jobs) for _ in range(arguments.rounds))
            here = sum(level == "ACTIVE" for level in sandbox.levels.values())
            each = 1000 * arguments.workers * seconds / len(jobs)
            print(
                f"{name:14s} {here:2d} layers active  {len(jobs) / seconds:6.0f} programs/s"
                f"  each {each:.2f} ms of a worker and {1000 * busy / len(jobs):.2f} ms of the trainer"
            )
    with Sandbox(SandboxConfig(), arguments.workers) as sandbox:
        start = time.perf_counter()
        kinds = Counter(outcome.error.kind if outcome.error else "done" for outcome in sandbox.run(hanging))
        seconds = time.perf_counter() - start
    print(f"{arguments.hang:.0%} hang       {len(hanging)} programs in {seconds:.1f} s: {dict(kinds)}")


def programs(count: int, hang: float) -> list[Job]:
    rng = np.random.default_rng(0)
    inputs = tuple(rng.integers(0, 10, (10, 10), dtype=np.uint8) for _ in range(3))
    hung = set(rng.permutation(count)[: round(hang * count)].tolist())
    return [Job(HANGS if at in hung else PROGRAM.format(colour=1 + at % 9), inputs) for at in range(count)]


def timed(sandbox: Sandbox, jobs: list[Job]) -> tuple[float, float]:
    """Seconds by the clock, and of the trainer's processor time. Raises where a program fails."""
    start, busy = time.perf_counter(), time.process_time()
    failed = [outcome.error for outcome in sandbox.run(jobs) if outcome.error]
    if failed:
        raise RuntimeError(f"{len(failed)} programs failed, the first by {failed[0]}")
    return time.perf_counter() - start, time.process_time() - busy


if __name__ == "__main__":
    main()
