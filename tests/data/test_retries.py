"""Which faults are met by another attempt, and how many attempts there are."""

from __future__ import annotations

import logging
import socket
from urllib.error import HTTPError, URLError

import httpx
import pytest
import requests
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from utils.data.retries import may_pass, with_retries


def answered(status: int) -> HfHubHTTPError:
    request = httpx.Request("GET", "http://127.0.0.1/x")
    return HfHubHTTPError(f"status {status}", response=httpx.Response(status, request=request))


def raised(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


PASSING = [
    ConnectionResetError("reset"), TimeoutError("slow"), httpx.ConnectError("no route"), httpx.ReadTimeout("slow"),
    requests.ConnectionError("refused"), requests.Timeout("slow"), answered(500), answered(503), answered(429),
    raised(LocalEntryNotFoundError("no file"), httpx.ConnectError("no route")),
    raised(FileNotFoundError("no file on the hub"), answered(502)),
    HTTPError("http://127.0.0.1/x", 503, "busy", None, None), raised(URLError("x"), ConnectionRefusedError("refused")),
    raised(URLError("x"), socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution")),
]  # fmt: skip
LASTING = [
    ValueError("bad name"), FileNotFoundError("no file"), answered(404), answered(401), answered(403),
    DatasetNotFoundError("no such dataset"), raised(DatasetNotFoundError("none"), httpx.ConnectError("x")),
    raised(ConnectionError("cannot reach"), OfflineModeIsEnabled("HF_HUB_OFFLINE=1")),
    raised(DatasetNotFoundError("revision"), answered(404)), MemoryError(),
    HTTPError("http://127.0.0.1/x", 404, "not here", None, None),
    raised(URLError("x"), socket.gaierror(socket.EAI_NONAME, "no such name")),
]  # fmt: skip


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_a_fault_of_the_network_is_met_by_another_attempt(error, caplog):
    calls = []

    def call() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise error
        return "rows"

    with caplog.at_level(logging.WARNING, "utils"):
        assert with_retries(call, "Reading x", pause=0) == "rows"
    assert may_pass(error)
    assert len(calls) == 3
    assert [f"Attempt {number} of 4" in record.getMessage() for number, record in enumerate(caplog.records, 1)] == [
        True
    ] * 2


@pytest.mark.parametrize("error", LASTING, ids=lambda error: type(error).__name__)
def test_any_other_fault_is_raised_at_once(error):
    calls = []

    def call():
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        with_retries(call, "Reading x", pause=0)
    assert len(calls) == 1


def test_the_last_fault_is_raised_as_it_came_after_the_attempts():
    calls = []

    def call():
        calls.append(1)
        raise TimeoutError(f"attempt {len(calls)}")

    with pytest.raises(TimeoutError, match="attempt 3"):
        with_retries(call, "Reading x", attempts=3, pause=0)


def test_pauses_double(monkeypatch):
    pauses = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    with pytest.raises(TimeoutError):
        with_retries(lambda: (_ for _ in ()).throw(TimeoutError()), "x", attempts=4, pause=1.5)
    assert pauses == [1.5, 3.0, 6.0]
