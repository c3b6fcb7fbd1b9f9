"""Append-only JSON lines: one atomic write a record, torn tails ignored, cut back to a step on resume."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record as one line, all of it or nothing. Raises OSError when the disk refuses it."""
    line = (json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n").encode()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":  # a torn tail, left by a kill in mid-write
                line = b"\n" + line
        if os.write(descriptor, line) != len(line):  # the disk filled up in mid-line
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, oldest first; a line that a kill cut short is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def cut(path: Path, step: int) -> None:
    """Keep the records up to and including `step`, atomically."""
    if not path.exists():
        return
    kept = [record for record in read(path) if record["step"] <= step]
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a number that is not finite is written as null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }
