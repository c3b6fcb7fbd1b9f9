"""What a request may hold: names, numbers and flags; and the errors that say what came and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class FolderError(RuntimeError):
    """A folder that cannot be served: the message says what is missing."""


class BadRequest(ValueError):
    """A request that cannot be answered: what came and what was expected."""


class TooLong(BadRequest):
    """More text, tokens, inputs or samples than the limits allow."""


def known(
    given: dict[str, Any], names: Sequence[str] | dict, also: Sequence[str] = (), what: str = "parameters"
) -> dict:
    """What was given, without nulls. Raises `BadRequest` for names that are not known."""
    given = {name: value for name, value in given.items() if value is not None}
    unknown = [name for name in given if name not in names and name not in also]
    if unknown:
        allowed = ", ".join(names) or "none"
        raise BadRequest(f"{what} {', '.join(map(shown, unknown))} came, which are not read; expected {allowed}.")
    return given


def number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> Any:
    right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise BadRequest(f"{name}={shown(value)}; expected {kind} from {low:,} to {high:,}.")
    return value


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name}={shown(value)}; expected true or false.")
    return value


def fits(size: int, most: int | None, remedy: str) -> None:
    if most is not None and size > most:
        raise TooLong(f"{size:,} tokens came; at most {most:,} are read: {remedy}.")


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"
