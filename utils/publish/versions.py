"""Versions of a repository, as its tags name them: v0.1.0 first, the minor raised by new weights, else the patch."""

from __future__ import annotations

import re
from collections.abc import Iterable

VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
FIRST = "v0.1.0"


def latest(tags: Iterable[str]) -> str | None:
    """The highest version among tags; None where there is none."""
    return max(filter(VERSION.fullmatch, tags), key=_numbers, default=None)


def following(version: str | None, *, minor: bool) -> str:
    """The version after one; None: the first."""
    if version is None:
        return FIRST
    major, middle, patch = _numbers(version)
    return f"v{major}.{middle + 1}.0" if minor else f"v{major}.{middle}.{patch + 1}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, VERSION.fullmatch(version).groups()))
