"""What can go wrong with the Hub, in plain words, and `asked`: a call to it whose failure is one of these.

A failure comes without the client's own frames and causes: their variables hold the token. Texts pass the redaction of
known secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from utils.core.redact import redacted
from utils.data.retries import may_pass, with_retries

T = TypeVar("T")
ATTEMPTS, PAUSE = 4, 1.0  # seconds before the second attempt, doubled before each further one


class HubError(RuntimeError):
    """The Hub, or what is to go there, is not as it must be; the message says what to do."""

    def __init__(self, message: str):
        super().__init__(redacted(message))


class ServeError(RuntimeError):
    """A server that does not start, or an answer that is an error: what came and what to do."""


class NoToken(HubError):
    """Nobody is logged in."""


class BadToken(HubError):
    """The token is not, or no longer, valid."""


class NoRight(HubError):
    """The account, or its token, may not do this."""


class NotYours(NoRight):
    """The repository exists and is someone else's."""


class RepositoryMissing(HubError):
    """There is no such repository, or it is private and not to be seen."""


class RevisionMissing(HubError):
    """The repository has no such branch, tag or commit."""


class NetworkDown(HubError):
    """The Hub gives no answer, or none that is of use."""


class PushCut(NetworkDown):
    """A push that did not reach its commit; the message says how the repository stands and how to push again."""


class Damaged(HubError):
    """Files are not what their checksums say."""


class SecretInside(HubError):
    """A file that was to be published holds a secret of this machine."""


def client() -> Any:
    """The package `huggingface_hub`; `HubError` where it is absent."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError:
        raise HubError("huggingface_hub is not installed, and the Hub needs it: pip install huggingface_hub.") from None
    return huggingface_hub


def asked(call: Callable[[], T], what: str, repo_id: str = "", *, attempts: int | None = None) -> T:
    """`call()`, repeated with growing pauses where the network fails; any failure in the end is a `HubError`.

    `what` says what is done, such as "Looking at ada/gpt", for the log and the message.
    """
    errors = client().errors
    # The base of the client's HTTP errors is that of its HTTP library, whichever that is (httpx, httpx2).
    kinds = (OSError, ValueError, RuntimeError, errors.EntryNotFoundError, errors.HfHubHTTPError.__bases__[0])
    try:
        return with_retries(call, what, attempts=attempts or ATTEMPTS, pause=PAUSE)
    except HubError:
        raise
    except kinds as error:
        failure = plain(error, what, repo_id)
    raise failure  # out here, so that it has no context


def plain(error: BaseException, what: str, repo_id: str) -> HubError:
    """What the client raised, as one of ours."""
    errors, status = client().errors, _status(error)
    told = f"{what} failed"
    if isinstance(error, errors.GatedRepoError):
        return NoRight(f"{told}: {repo_id} asks for an agreement. Accept it on its page, and set HF_TOKEN.")
    if isinstance(error, errors.RevisionNotFoundError):
        return RevisionMissing(f"{told}: {repo_id} has no such revision. Name a branch, a tag or a commit that it has.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return RepositoryMissing(
            f"{told}: there is no repository {repo_id}, or it is private and this token may not see it. Check the name"
            " and HF_TOKEN."
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return NetworkDown(f"{told}: the client is in offline mode. Unset HF_HUB_OFFLINE.")
    if status == 401:
        return BadToken(
            f"{told}: the Hub does not accept the token. Make a new one at https://huggingface.co/settings/tokens and"
            " set HF_TOKEN."
        )
    if status == 403:
        return NoRight(
            f"{told}: the Hub refuses it ({_said(error)}). Ask the owner for write access, or use another name."
        )
    if status == 412:
        return HubError(f"{told}: someone else committed to {repo_id} at the same time. Run it again.")
    if may_pass(error):
        cause = error.__cause__ or error
        why = f"the Hub answers with status {status}" if status else f"no answer from the Hub ({_line(cause)})"
        return NetworkDown(f"{told}: {why}. Check the network and try again later.")
    return HubError(f"{told}: {_line(error)}")


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error, or of the one that it was raised for."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _said(error: BaseException) -> str:
    """What the server says of a refusal."""
    return (
        str(error.response.headers.get("X-Error-Message") or "status 403")[:200]
        if hasattr(error, "response")
        else "403"
    )
