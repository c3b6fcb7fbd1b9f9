"""Secrets never pass."""

import logging

import pytest

from utils.core import redact
from utils.core.redact import RedactingFilter, keep_secret, redact_files, redacted

KEY = "sk-planted-secret"


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setattr(redact, "_told", set())
    monkeypatch.setenv("SOME_SERVICE_API_KEY", KEY)


def test_a_secret_is_masked_in_texts_keys_and_nests_and_nothing_else_is_touched():
    value = {"a": [f"x {KEY} y", 1, None, (2.5, KEY)], KEY: True}
    assert redacted(value) == {"a": ["x *** y", 1, None, [2.5, "***"]], "***": True}


def test_what_is_no_secret_stays(monkeypatch):
    monkeypatch.setenv("MAX_TOKENS", "a-long-plain-value")  # tokens, and no token
    monkeypatch.setenv("SHORT_KEY", "ab")  # would stand in innocent words
    assert redacted("a-long-plain-value ab") == "a-long-plain-value ab"


def test_a_secret_that_is_in_no_variable_is_masked_once_it_was_told():
    assert redacted("from colab") == "from colab"
    assert keep_secret("colab") == "colab"
    assert redacted("from colab") == "from ***"


def test_a_secret_within_another_leaves_no_rest(monkeypatch):
    monkeypatch.setenv("LONGER_TOKEN", f"{KEY}-and-more")
    assert redacted(f"{KEY}-and-more") == "***"


def test_a_filtered_logger_writes_neither_the_message_nor_the_traceback_with_it(caplog):
    logger = logging.getLogger("some-library")
    logger.addFilter(RedactingFilter())
    try:
        raise ValueError(f"refused {KEY}")
    except ValueError:
        logger.exception("sent %s", KEY)
    assert "sent ***" in caplog.text
    assert "ValueError: refused ***" in caplog.text
    assert KEY not in caplog.text


def test_files_that_others_wrote_are_cleaned_and_others_not_written(tmp_path):
    dirty, clean = tmp_path / "dirty.log", tmp_path / "clean.log"
    dirty.write_bytes(b"\xff " + KEY.encode())
    clean.write_bytes(b"\xff")
    clean.chmod(0o444)
    before = clean.stat().st_mtime_ns
    redact_files([dirty, clean])
    assert dirty.read_bytes() == b"\xff ***"
    assert clean.stat().st_mtime_ns == before
