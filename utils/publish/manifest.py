"""metadata.json of an export folder: read, written with every file's size and sha256, and compared with what is there.

Leaves out what else it says (`publish.describe`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from utils.core.checksum import sha256_of
from utils.core.redact import redacted

METADATA = "metadata.json"
FORMAT_VERSION = 1
HUB = (".gitattributes", ".cache")  # what the Hub and its client put beside
BESIDE = (*HUB, "__pycache__")  # and what Python leaves where the code was used


class ExportError(RuntimeError):
    """An export folder that is missing, incomplete or changed; the message names the files and what to do."""


def seal(folder: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write metadata.json anew, as it is or as `about` says, with every file that is there now and only those."""
    if about is None:
        about = read_metadata(folder)
    files = {name: _facts(folder / name) for name in names(folder, BESIDE)}
    write_json(folder / METADATA, {**redacted(dict(about)), "files": files})


def read_metadata(folder: Path) -> dict[str, Any]:
    """What metadata.json of an export says. Raises `ExportError` where there is none, or none that can be read."""
    path = Path(folder) / METADATA
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{folder} is no export: it has no {METADATA}. Export the run first.") from None
    except ValueError as error:
        raise ExportError(f"{path} is not valid JSON: {error}. Export the run again.") from None
    version = about.get("format_version") if isinstance(about, dict) else None
    if version != FORMAT_VERSION:
        raise ExportError(f"{path} has format_version {version!r}; this code reads {FORMAT_VERSION}.")
    return about


def verify(folder: Path, *, beside: Iterable[str] = BESIDE) -> dict[str, Any]:
    """Metadata of a folder whose files are exactly those listed, byte for byte; `ExportError` names those that are not.

    Names in `beside` do not count. Where the folder comes from elsewhere, give `HUB`: bytecode would be run unread.
    """
    folder = Path(folder)
    about = read_metadata(folder)
    listed = about.get("files")
    if not isinstance(listed, dict) or not listed:
        raise ExportError(f"{folder / METADATA} lists no files. Export the run again.")
    there = set(names(folder, tuple(beside)))
    problems = [f"{name} is missing" for name in sorted(set(listed) - there)]
    problems += [f"{name} is not listed" for name in sorted(there - set(listed))]
    for name in sorted(there & set(listed)):
        found = _facts(folder / name)
        if found["bytes"] != listed[name]["bytes"]:
            problems.append(f"{name} has {found['bytes']:,} bytes, listed are {listed[name]['bytes']:,}")
        elif found["sha256"] != listed[name]["sha256"]:
            problems.append(
                f"{name} is changed: sha256 {found['sha256'][:12]}, listed is {listed[name]['sha256'][:12]}"
            )
    if problems:
        raise ExportError(f"{folder} is not what its {METADATA} says: {'; '.join(problems)}. Export or pull it again.")
    return about


def names(folder: Path, beside: tuple[str, ...]) -> list[str]:
    """Files of a folder but metadata.json, as posix paths. A link counts as a file."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if (path.is_file() or path.is_symlink()) and name.as_posix() != METADATA and not set(name.parts) & set(beside):
            found.append(name.as_posix())
    return found


def _facts(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
