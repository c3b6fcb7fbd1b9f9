"""Corpora: what each name yields, and what is said where a text cannot be had."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import datasets
import pytest

from utils.data import text as corpora
from utils.data.text import CorpusConfig, CorpusError, load_corpus, read_text

PLAY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A local stand-in for the host of tiny-shakespeare: `content` is served, `requests` are counted."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.requests += 1
            self.send_response(served.statuses.pop(0) if served.statuses else 200)
            self.send_header("Content-Length", str(served.length or len(served.content)))
            self.end_headers()
            self.wfile.write(served.content)

        def log_message(self, *args):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.content, served.length, served.requests, served.statuses = PLAY, None, 0, []
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(corpora, "SHAKESPEARE_URL", f"http://127.0.0.1:{served.server_port}/input.txt")
    monkeypatch.setattr(corpora, "SHAKESPEARE_SHA256", hashlib.sha256(PLAY).hexdigest())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def pauses(monkeypatch):
    """Between attempts: kept here, not waited."""
    kept = []
    monkeypatch.setattr("tenacity.nap.time.sleep", kept.append)
    return kept


SHAKESPEARE = CorpusConfig(corpus="tiny-shakespeare")


def test_a_download_is_checked_cached_and_used_again_without_the_network(server):
    first = load_corpus(SHAKESPEARE)
    server.shutdown()
    server.server_close()
    assert first.text == PLAY.decode()
    assert load_corpus(SHAKESPEARE) == first
    assert server.requests == 1


@pytest.mark.parametrize(
    ("content", "length"), [(PLAY[:-1] + b"!", None), (PLAY[:20], len(PLAY))], ids=["other", "cut"]
)
def test_a_download_with_another_sha256_is_refused_and_not_kept(server, tmp_path, content, length):
    server.content, server.length = content, length
    with pytest.raises(CorpusError, match="tiny-shakespeare could not be downloaded from http.*python-docs"):
        load_corpus(SHAKESPEARE)
    assert list((tmp_path / "cache" / "run-all").iterdir()) == []


def test_a_damaged_cached_file_is_downloaded_again(server, tmp_path):
    load_corpus(SHAKESPEARE)
    (tmp_path / "cache" / "run-all" / "tinyshakespeare.txt").write_bytes(PLAY[:7])
    assert load_corpus(SHAKESPEARE).text == PLAY.decode()


def test_without_a_network_and_a_cache_the_error_names_a_corpus_that_needs_neither(server, pauses):
    server.shutdown()
    server.server_close()
    with pytest.raises(CorpusError, match="python-docs, which needs no network"):
        load_corpus(SHAKESPEARE)
    assert pauses == [1, 2, 4]


def test_a_server_that_is_busy_is_asked_again(server, pauses):
    server.statuses = [503, 429]
    assert load_corpus(SHAKESPEARE).text == PLAY.decode()
    assert (server.requests, pauses) == (3, [1, 2])


def test_a_file_that_the_server_does_not_have_is_asked_for_once(server, pauses):
    server.statuses = [404] * 9
    with pytest.raises(CorpusError, match="404"):
        load_corpus(SHAKESPEARE)
    assert (server.requests, pauses) == (1, [])


def test_python_docs_is_large_and_the_same_in_every_process():
    corpus = load_corpus(CorpusConfig())
    assert 400_000 < len(corpus.text) < 600_000  # about 465,000; it grows with CPython
    script = "from utils.data.text import *; print(load_corpus(CorpusConfig()).sha256)"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == corpus.sha256


def test_a_text_file_loses_its_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"\xef\xbb\xbfna\xc3\xafve\r\nold\rnew\n")
    corpus = load_corpus(CorpusConfig(corpus=str(path)))
    assert (corpus.text, corpus.source) == ("naïve\nold\nnew\n", str(path))
    assert corpus.sha256 == hashlib.sha256("naïve\nold\nnew\n".encode()).hexdigest()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("caf\u00e9s".encode("latin-1"), "not UTF-8: byte 0xe9 at offset 3.*iconv"),
        (b"\xef\xbb\xbfab\xff", "not UTF-8: byte 0xff at offset 5"),
        (b"", r"is empty \(0 bytes\)"),
        (b" \r\n\t\n", r"is empty \(5 bytes\)"),
    ],
    ids=["latin-1", "after-a-byte-order-mark", "empty", "blank"],
)
def test_a_file_without_usable_text_is_refused_with_the_reason(tmp_path, data, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=message):
        read_text(path)


@pytest.mark.parametrize("name", ["python-doc", "no/such/file.txt"])
def test_a_name_that_is_no_corpus_is_refused_with_what_was_expected(name):
    with pytest.raises(CorpusError, match=f"No corpus '{name}': expected python-docs, tiny-shakespeare, hf:NAME"):
        load_corpus(CorpusConfig(corpus=name))


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet", "folder"])
def test_a_table_or_a_folder_is_no_text_and_the_setting_that_reads_it_is_named(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_text("text,label\na cat,1\n")
    with pytest.raises(CorpusError, match=rf"and a corpus is one text.*rows\.source={path}"):
        load_corpus(CorpusConfig(corpus=str(path)))


def test_a_hugging_face_dataset_is_asked_for_again_after_a_fault_that_may_pass(monkeypatch, pauses):
    asked = []

    def load_dataset(name, config, split):
        asked.append(name)
        if len(asked) < 3:
            raise ConnectionResetError("reset")
        return datasets.Dataset.from_dict({"text": ["to be", "or not"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_corpus(CorpusConfig(corpus="hf:plays")).text == "to be\nor not"
    assert asked == ["plays"] * 3
    assert pauses == [1, 2]


HUGGING_FACE = """
import json, sys
from utils.data.text import *
answers = []
for fields in json.loads(sys.argv[1]):
    try:
        answers.append(load_corpus(CorpusConfig(**fields)).text)
    except CorpusError as error:
        answers.append(f"CorpusError: {error}")
print(json.dumps(answers))
"""


def test_a_hugging_face_dataset_yields_a_column_or_says_what_is_missing(tmp_path):
    plays = tmp_path / "plays"
    plays.mkdir()
    rows = [{"body": "to be", "line": 1}, {"body": None, "line": 2}, {"body": "or not", "line": 3}]
    (plays / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (plays / "test.jsonl").write_text(json.dumps({"body": "exit", "line": 4}))
    wanted = [
        {"corpus": f"hf:{plays}", "hf_column": "body"},
        {"corpus": f"hf:{plays}", "hf_column": "body", "hf_split": "test"},
        {"corpus": f"hf:{plays}"},
        {"corpus": f"hf:{plays}", "hf_column": "body", "hf_split": "dev"},
        {"corpus": f"hf:{tmp_path / 'none'}"},
    ]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HUGGING_FACE, json.dumps(wanted)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    train, test, *errors = json.loads(process.stdout)
    assert (train, test) == ("to be\nor not", "exit")
    assert "no column 'text'; its columns: body, line" in errors[0]
    assert "dev" in errors[1]
    assert "could not be loaded" in errors[2]
    assert all(error.startswith("CorpusError: ") for error in errors)
