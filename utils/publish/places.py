"""Folders of this machine out of what others read: a run's report names where it lay, and where its data did."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from utils.core.run import Run


def unplaced(text: str, run: Run) -> str:
    """A text of a run without places of this machine: the run is runs/NAME, a path of its settings its last name."""
    folder = run.path.absolute()
    names = {str(Path.home()): "~"}
    names |= {str(path): path.name for path in _paths(run.config)}
    for place in (folder, folder.resolve()):
        names |= {str(place.parent): "runs", str(place): f"runs/{place.name}"}
    for place in sorted(names, key=len, reverse=True):
        if len(place) > 1:  # not the root of the disk
            text = re.sub(rf"{re.escape(place)}(?![\w-]|\.\w)", lambda _, name=names[place]: name, text)
    return text


def _paths(values: Any) -> Iterator[Path]:
    """Every absolute path among settings, under whatever prefix."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        for one in values:
            yield from _paths(one)
    elif isinstance(values, str):
        path = Path(values.removeprefix("hf:").removeprefix("file:")).expanduser()
        if path.is_absolute() and path.name:
            yield path
