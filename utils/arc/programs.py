"""Programs of the DSL and tasks for them: drawn at random, and kept where the task shows what the program does.

A program is a sequence of steps, each a primitive's name and its numbers, written as Python that a person can read:

    def solve(grid):
        grid = crop(grid)
        return recolour(grid, 3, 5)

Primitives run here in this process: these programs are our own. Leaves out running the programs of others
(`rl.sandbox`) and searching for one that solves a given task (`arc.dsl_search`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Set
from dataclasses import dataclass
from random import Random

import numpy as np
from pydantic import Field, model_validator

from utils.arc.dsl import PRIMITIVES, Grid
from utils.arc.dsl_draw import Sides, draw_pairs, draw_steps
from utils.arc.dsl_inputs import below
from utils.arc.dsl_search import search
from utils.arc.dsl_shown import ambiguous, needed
from utils.arc.dsl_steps import ProgramsError, Steps, parse, render, run
from utils.arc.tasks import Pair, Task
from utils.core.config import Config

__all__ = [
    "Example",
    "ProgramsConfig",
    "ProgramsError",
    "content_key",
    "generate",
    "generate_task",
    "pair_keys",
    "parse",
    "render",
    "run",
    "search",
]
NAMES = tuple(sorted(PRIMITIVES))
TRIES = 4  # sets of inputs for one program: those that show it by chance alone are not crowded out


class ProgramsConfig(Config):
    """What programs and tasks are drawn."""

    max_depth: int = Field(3, ge=1, le=8)
    """Most steps of a program."""
    depth_weights: tuple[float, ...] = (0.4, 0.4, 0.2)
    """How often programs of 1, 2, 3... steps are drawn, relative to one another; at least max_depth numbers."""
    min_side: int = Field(3, ge=2, le=30)
    """Shortest side of an input grid, in cells."""
    max_side: int = Field(8, ge=2, le=30)
    """Longest side of an input grid, in cells."""
    max_output_side: int = Field(30, ge=1, le=30)
    """Longest side of an output grid, in cells."""
    train_pairs: int = Field(3, ge=1, le=10)
    """Pairs that are shown."""
    test_pairs: int = Field(2, ge=1, le=10)
    """Pairs that are hidden."""
    min_colours: int = Field(1, ge=1, le=9)
    """Fewest colours beside 0 that a task's inputs are drawn from."""
    max_colours: int = Field(4, ge=1, le=9)
    """Most colours beside 0 that a task's inputs are drawn from."""
    primitives: tuple[str, ...] = ()
    """Names of the primitives to compose; none means all of them."""
    suited: float = Field(0.8, ge=0, le=1)
    """Share of tasks whose inputs are of a family that suits the program; the rest are of any."""
    max_draws: int = Field(1000, ge=1)
    """Programs tried for one task before giving up."""

    @model_validator(mode="after")
    def _consistent(self) -> ProgramsConfig:
        if self.min_side > self.max_side:
            raise ValueError(
                f"min_side={self.min_side} is above max_side={self.max_side}; lower one or raise the other"
            )
        if self.min_colours > self.max_colours:
            raise ValueError(f"min_colours={self.min_colours} is above max_colours={self.max_colours}; lower it")
        used = self.depth_weights[: self.max_depth]
        if len(used) < self.max_depth or min(used) < 0 or not sum(used):
            raise ValueError(
                f"depth_weights={self.depth_weights}: expected {self.max_depth} numbers of 0 or more for depths 1 to"
                f" {self.max_depth}, not all 0"
            )
        unknown = sorted(set(self.primitives) - set(PRIMITIVES))
        if unknown:
            raise ValueError(f"no primitive {', '.join(unknown)}; the names are in utils.arc.dsl.PRIMITIVES")
        return self


@dataclass(frozen=True, eq=False)
class Example:
    """A program's text, a task that it solves, how many steps it has, and the names of its primitives in order."""

    program: str
    task: Task
    depth: int
    names: tuple[str, ...]


def content_key(task: Task) -> bytes:
    """16 bytes, equal for tasks of the same pairs, in whatever order and whether shown or hidden.

    `arc.duplicates.content_key` tells shown from hidden pairs; here a task whose hidden pairs were shown is no new one.
    """
    return hashlib.blake2b(b"".join(sorted(pair_keys(task))), digest_size=16).digest()


def pair_keys(task: Task) -> list[bytes]:
    """16 bytes for each pair, shown ones first, equal for pairs of the same grids."""
    keys = []
    for pair in (*task.train, *task.test):
        digest = hashlib.blake2b(digest_size=16)
        for grid in (pair.input, pair.output):
            digest.update(bytes(grid.shape) + grid.tobytes())
        keys.append(digest.digest())
    return keys


def generate(
    count: int,
    *,
    seed: int,
    config: ProgramsConfig = ProgramsConfig(),
    start: int = 0,
    exclude: Set[bytes] = frozenset(),
    exclude_programs: Container[str] = frozenset(),
    max_cells: int | None = None,
) -> list[Example]:
    """Examples number `start` to `start + count - 1` of the sequence that `seed` and `config` make.

    Each is drawn from (seed, its number), and drawn again while the key of one of its pairs is in `exclude`, its
    program in `exclude_programs`, or its content was made before in this call. So any slice can be made alone, and
    tasks (or programs) kept apart from those of other examples. `max_cells` is as in `generate_task`. Raises
    `ProgramsError` where `max_draws` draws do not suffice.
    """
    if count < 0 or start < 0 or seed < 0:
        raise ProgramsError(f"count={count}, start={start}, seed={seed}; expected whole numbers of 0 or more")
    made: set[bytes] = set()
    examples = []
    for number in range(start, start + count):
        for again in range(config.max_draws):
            rng = np.random.default_rng((seed, number, again) if again else (seed, number))
            example = generate_task(rng, config, max_cells=max_cells)
            key = content_key(example.task)
            apart = exclude.isdisjoint(pair_keys(example.task)) and example.program not in exclude_programs
            if apart and key not in made:
                break
        else:
            raise ProgramsError(
                f"example {number} of seed {seed}: each of {config.max_draws} tasks was excluded or made before; allow"
                " more primitives or longer sides, exclude less, or raise max_draws"
            )
        made.add(key)
        examples.append(example)
    return examples


def generate_task(
    rng: np.random.Generator, config: ProgramsConfig = ProgramsConfig(), *, max_cells: int | None = None
) -> Example:
    """A program, and a task from which it can be told; drawn again until the pairs show all of it.

    Each output differs from its input, not all are equal, and at most one has a single colour (`dsl_draw`); without any
    one step, and with any number changed, the program would be wrong on a shown pair; and no other program of one step
    is right on all shown pairs, but where it is one for one and right on the hidden pairs, too (`dsl_shown`). The shown
    grids have at most `max_cells` cells together, the end of each row counted as one.
    """
    random = Random(int(rng.integers(1 << 63)))
    names = config.primitives or NAMES
    weights = config.depth_weights[: config.max_depth]
    (depth,) = random.choices(range(1, len(weights) + 1), weights)  # drawn once: deep programs are refused more often
    count = config.train_pairs + config.test_pairs
    sides = Sides(config.min_side, config.max_side, config.max_output_side)
    for _ in range(config.max_draws):
        colours = random.sample(
            range(1, 10), config.min_colours + below(random, config.max_colours - config.min_colours + 1)
        )
        steps = draw_steps(random, names, depth, colours)
        if steps is None:
            continue
        for _ in range(TRIES):
            pairs = draw_pairs(random, steps, colours, count, sides, config.suited)
            if pairs is None:
                continue
            shown, hidden = pairs[: config.train_pairs], pairs[config.train_pairs :]
            if max_cells is not None and sum(_cells(grid) for pair in shown for grid in pair) > max_cells:
                continue
            if needed(steps, shown, colours) and not ambiguous(steps, shown, hidden):
                return _example(steps, shown, hidden)
    raise ProgramsError(
        f"no task found in {config.max_draws} programs of depth {depth}; allow more primitives, longer sides or more"
        " colours, or raise max_draws" + (f"; or more than {max_cells} cells" if max_cells is not None else "")
    )


def _cells(grid: Grid) -> int:
    return len(grid) * (len(grid[0]) + 1)


def _example(steps: Steps, *parts: list[tuple[Grid, Grid]]) -> Example:
    train, test = (tuple(Pair(*(np.array(grid, np.uint8) for grid in pair)) for pair in part) for part in parts)
    key = content_key(Task("", train, test, "programs")).hex()
    task = Task(f"program-{key[:12]}", train, test, "programs")
    return Example(render(steps), task, len(steps), tuple(name for name, _ in steps))
