"""Calls over a network, repeated with growing pauses where the fault is one that may pass.

Repeated: a connection that fails, a timeout, a server's 5xx, and 408 or 429. Not repeated: anything else, such as a
404, a name that does not exist, missing rights, or offline mode.
"""

from __future__ import annotations

import logging
import socket
import urllib.error
from collections.abc import Callable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
PASSING = (408, 429)
# By name, so that neither `httpx`, `requests` nor `huggingface_hub` is imported for it.
LASTING = {"OfflineModeIsEnabled", "DatasetNotFoundError", "DataFilesNotFoundError"}
FAULTS = {
    "TransportError",
    "ConnectionError",
    "Timeout",
    "ChunkedEncodingError",
    "IncompleteRead",
    "ClientConnectionError",
}


def with_retries(call: Callable[[], T], what: str, *, attempts: int = 4, pause: float = 1.0) -> T:
    """`call()`, up to `attempts` times, with `pause`, 2 `pause`, 4 `pause` ... seconds between them, each logged.

    The last fault is raised as it came, and any fault that would not pass at once.
    """
    import tenacity

    def tell(state: tenacity.RetryCallState) -> None:
        log.warning(
            "%s: %s. Attempt %d of %d; the next in %.0f s.",
            what, _told(state.outcome.exception()), state.attempt_number, attempts, state.next_action.sleep,
        )  # fmt: skip

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        stop=tenacity.stop_after_attempt(attempts),
        wait=tenacity.wait_exponential(multiplier=pause, max=60),
        before_sleep=tell,
        reraise=True,
    )(call)


def may_pass(error: BaseException) -> bool:
    """Whether a fault, or the fault that it was raised for, is one of the network's that may pass."""
    chain = list(_chain(error))
    names = [{kind.__name__ for kind in type(link).__mro__} for link in chain]
    if any(found & LASTING for found in names):
        return False
    for link, found in zip(chain, names):
        status = _status(link)
        if status is not None:
            return status >= 500 or status in PASSING
        if isinstance(link, (ConnectionError, TimeoutError)) or found & FAULTS:
            return True
        if isinstance(link, socket.gaierror) and link.errno == socket.EAI_AGAIN:
            return True
    return False


def _status(error: BaseException) -> int | None:
    """The status that a server answered with, by requests, httpx or urllib; None where it did not answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None and isinstance(error, urllib.error.HTTPError):
        status = error.code
    return status if isinstance(status, int) else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and each that it was raised for or in the handling of, the newest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
