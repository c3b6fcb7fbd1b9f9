"""Secrets out of what is written: every text that goes to a tracker or a log on their account passes here.

A secret is the value of an environment variable whose name says so, or a text that `keep_secret` was told. Leaves out
where secrets come from: `core.notebook.secret`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MASK = "***"
_NAMES = re.compile(r"(^|_)(KEY|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)$", re.IGNORECASE)
_SHORTEST = 8  # characters: a shorter value would stand in innocent words
_told: set[str] = set()


def keep_secret(value: str | None) -> str | None:
    """The value itself; from now on `redacted` masks it, wherever it came from (Colab's secrets are in no variable)."""
    if value:
        _told.add(value)
    return value


def secrets() -> list[str]:
    """Every secret known now, the longest first, so that one within another is masked whole."""
    found = {value for name, value in os.environ.items() if _NAMES.search(name) and len(value) >= _SHORTEST}
    return sorted(found | _told, key=len, reverse=True)


def redacted(value: Any) -> Any:
    """The same value (text, number, nested mapping or sequence) with every known secret in its texts masked."""
    return _redacted(value, secrets())


def _redacted(value: Any, known: list[str]) -> Any:
    if isinstance(value, str):
        for secret in known:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, Mapping):
        return {_redacted(key, known): _redacted(one, known) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(one, known) for one in value]
    return value


def redact_files(paths: Iterable[Path]) -> None:
    """Mask every known secret in files that another program wrote."""
    for path in paths:
        before = after = path.read_bytes()
        for secret in secrets():
            after = after.replace(secret.encode(), MASK.encode())
        if after != before:
            path.write_bytes(after)


class RedactingFilter(logging.Filter):
    """Masks secrets in what one logger is given, tracebacks included: for a library that logs what a server answers."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True
