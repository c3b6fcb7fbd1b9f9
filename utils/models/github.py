"""`get`: one text from GitHub's API or from where it points, asked for again where that can help.

The token (GITHUB_TOKEN) goes to the API's own address only, and is in no message, repr or traceback: exceptions of the
layers below end here. Leaves out what is asked for (`models.gist`).
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.message import Message
from urllib.parse import urlsplit

from utils.core.notebook import secret
from utils.models.found import SourceError

MAX_BYTES = 10_000_000  # of one answer
TIMEOUT = 15.0  # seconds
PAUSES = (1.0, 2.0, 4.0)  # seconds before each new attempt
MAX_PAUSE = 60.0  # seconds; where a server asks for more, the error says so instead

log = logging.getLogger(__name__)


def api() -> str:
    """Address of the API: GITHUB_API_URL, or GitHub's own."""
    base = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
    if _origin(base)[0] not in ("http", "https"):
        raise SourceError(f"GITHUB_API_URL is {base!r}; expected an address such as https://api.github.com.")
    return base.rstrip("/")


@dataclass(frozen=True)
class _Answer:
    """What a server sent: a status (0 where none came), headers, a body, and what went wrong on the way."""

    status: int
    headers: Message = field(default_factory=Message)
    body: bytes = field(default=b"", repr=False)
    fault: str = ""

    @property
    def said(self) -> str:
        """The API's own message, without the token should it repeat it."""
        try:
            values = json.loads(self.body)
        except ValueError:
            return ""
        said = values.get("message") if isinstance(values, dict) else None
        said = " ".join(said.split())[:200] if isinstance(said, str) else ""
        return said.replace(secret("GITHUB_TOKEN") or "\0", "***")

    @property
    def limited(self) -> str:
        """ "primary" or "secondary" where a rate limit refused, else ""."""
        if self.status not in (403, 429):
            return ""
        if "retry-after" in self.headers or "secondary" in self.said.lower():
            return "secondary"
        if self.headers.get("x-ratelimit-remaining") == "0":
            return "primary"
        return "secondary" if self.status == 429 else ""


def get(url: str, what: str) -> str:
    """The text at an address, asked for again where that can help: no answer, a server's error, a secondary limit."""
    for pause in (*PAUSES, None):
        answer = _ask(url)
        if answer.status == 200 and not answer.fault:
            try:
                return answer.body.decode()
            except UnicodeDecodeError:
                raise SourceError(f"{what} is not UTF-8 text.") from None
        passing = answer.status >= 500 or answer.status == 0 or answer.limited == "secondary"
        if pause is None or not passing:
            break
        asked = answer.headers.get("retry-after", "")
        pause = max(pause, float(asked) if asked.isdigit() else 0.0)
        if pause > MAX_PAUSE:
            break
        log.info("%s: %s; asking again in %.0f s", what, answer.fault or f"status {answer.status}", pause)
        time.sleep(pause)
    raise SourceError(_explain(answer, url, what))


def _ask(url: str) -> _Answer:
    """One request. The token goes to the API's own address only, and not on to where a redirect leads."""
    own = _origin(url) == _origin(api())
    if not own and _origin(url)[0] != "https":
        return _Answer(400, fault="the address is not https")
    request = urllib.request.Request(url, headers={"User-Agent": "run-all"})
    if own:
        request.add_header("Accept", "application/vnd.github+json")
        request.add_header("X-GitHub-Api-Version", "2022-11-28")
        if secret("GITHUB_TOKEN"):
            if not re.fullmatch(r"[!-~]+", secret("GITHUB_TOKEN")):
                return _Answer(401, fault="GITHUB_TOKEN holds characters that no token has")
            request.add_unredirected_header("Authorization", f"Bearer {secret('GITHUB_TOKEN')}")
    try:
        return _read(request)
    except urllib.error.URLError as error:
        return _Answer(0, fault=str(error.reason))
    except (OSError, http.client.HTTPException) as error:  # a timeout, or a connection cut while reading
        return _Answer(0, fault=str(error) or type(error).__name__)


def _read(request: urllib.request.Request) -> _Answer:
    """The answer, an error's too."""
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310 (http and https only)
            body = response.read(MAX_BYTES + 1)
            if len(body) > MAX_BYTES:
                return _Answer(413, fault=f"it is larger than {MAX_BYTES // 10**6} MB")
            if len(body) < int(response.headers.get("content-length", 0)):
                return _Answer(0, fault="the connection was cut")
            return _Answer(response.status, response.headers, body)
    except urllib.error.HTTPError as error:
        with error:
            return _Answer(error.code, error.headers, error.read(MAX_BYTES))


def _origin(url: str) -> tuple[str, str]:
    """Scheme and host of an address; empty where it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc


def _explain(answer: _Answer, url: str, what: str) -> str:
    host = _origin(url)[1].rpartition("@")[2]
    if answer.status == 0:
        return f"{what}: no answer from {host} ({answer.fault}); is there a network?"
    if answer.limited == "primary":
        reset = answer.headers.get("x-ratelimit-reset", "")
        at = f"{datetime.fromtimestamp(int(reset), timezone.utc):%H:%M:%S} UTC" if reset.isdigit() else "within an hour"
        return f"{what}: GitHub's rate limit is used up until {at}; setting GITHUB_TOKEN raises it."
    if answer.limited == "secondary":
        after = answer.headers.get("retry-after")
        return (
            f"{what}: GitHub's secondary rate limit refused it (status {answer.status}); "
            f"ask again in {f'{after} seconds' if after else 'some minutes'}."
        )
    if answer.status == 404:
        return f"{what} was not found (status 404): check the id and the revision; a deleted gist is gone."
    if answer.status == 401:
        return f"{what}: {answer.fault or 'GITHUB_TOKEN was not accepted (status 401)'}; correct it, or unset it."
    said = answer.fault or answer.said
    return f"{what}: {host} answered with status {answer.status}{f' ({said})' if said else ''}."
