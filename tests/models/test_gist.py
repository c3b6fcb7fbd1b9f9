"""The Gist client against a local server that speaks the real API's shape."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
import traceback

import pytest
import torch

from utils.models import gist, github
from utils.models.source import SourceError, find, load

ID, OLD, NEW = "0123456789abcdef0123", "a" * 40, "b" * 40
TOKEN = "ghp_very-secret"
HELPER_FIRST = """
from torch import nn


class Block(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.linear = nn.Linear(d_model, d_model)

    def forward(self, x):
        return self.linear(x)


class CustomTransformer(nn.Module):
    def __init__(self, vocab_size=11, d_model=4):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.block = Block(d_model)
        self.head = nn.Linear(d_model, vocab_size)

    def forward(self, input_ids):
        return self.head(self.block(self.embedding(input_ids)))
"""
FLAT = {"vocab_size": 13, "d_model": 8, "nhead": 2, "model_name": "CustomTransformer"}


class Server:
    """`routes` path -> (status, headers, body) or a list of them, one a request; `seen` the requests' (path, token)."""

    def __init__(self):
        self.routes, self.seen = {}, []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.seen.append((self.path, self.headers.get("Authorization")))
                answer = server.routes.get(self.path, (404, {}, {"message": "Not Found"}))
                if isinstance(answer, list):
                    answer = answer.pop(0) if len(answer) > 1 else answer[0]
                status, headers, body = answer
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def serve(self, files, *, revision=NEW, path=f"/gists/{ID}", **fields):
        """Answer with a gist of these texts; a dict in place of a text is laid over the file's entry."""
        entries = {}
        for name, text in files.items():
            entry = {"filename": name, "type": "text/plain", "truncated": False}
            entry["raw_url"] = f"{self.url}/raw/{revision}/{name}"
            if isinstance(text, dict):
                entry |= text
            else:
                entry |= {"size": len(text.encode()), "content": text}
            entries[name] = entry
        answer = {"url": f"{self.url}/gists/{ID}", "id": ID, "html_url": f"https://gist.github.com/ada/{ID}"}
        answer |= {"owner": {"login": "ada", "id": 1}, "description": "a model", "public": True, "truncated": False}
        answer |= {"files": entries, "history": [{"version": revision, "user": {"login": "ada"}}], **fields}
        self.routes[path] = (200, {"Content-Type": "application/json; charset=utf-8"}, answer)


@pytest.fixture
def server(monkeypatch):
    one = Server()
    monkeypatch.setenv("GITHUB_API_URL", one.url)
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    monkeypatch.setattr(github, "PAUSES", (0.0, 0.0, 0.0))
    yield one
    one.http.shutdown()
    one.http.server_close()


def refusal(source, **options) -> str:
    with pytest.raises(SourceError) as error:
        find(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ID, (ID, "")),
        (ID.upper(), (ID, "")),
        ("f" * 32, ("f" * 32, "")),
        (f" gist:{ID} ", (ID, "")),
        ("gist:1234567", ("1234567", "")),
        (f"https://gist.github.com/ada/{ID}", (ID, "")),
        (f"gist.github.com/{ID}", (ID, "")),
        (f"gist:https://gist.github.com/ada/{ID}", (ID, "")),
        (f"https://gist.github.com/ada/{ID}/{OLD}", (ID, OLD)),
        (f"https://gist.github.com/ada/{ID}/{OLD}#file-model-py", (ID, OLD)),
        (f"https://gist.github.com/ada/{ID}/revisions?x=1", (ID, "")),
        (f"https://gist.github.com/{'f' * 20}/{ID}.git", (ID, "")),  # an owner whose name looks like an id
        (f"https://gist.githubusercontent.com/ada/{ID}/raw/{OLD}/model.py", (ID, OLD)),
        ("f" * 19, None),
        ("gpt2", None),
        ("12345678", None),
    ],
)
def test_ids_and_addresses_name_a_gist_and_its_revision(text, expected):
    assert gist.parse(text) == expected


def test_a_gist_gives_its_facts_files_and_config_and_runs_only_when_trusted(server):
    text = 'raise SystemError("ran")\n'
    server.serve({"config.json": json.dumps(FLAT), "model.py": text, "README.md": "# no code"})
    found = find(f"gist:{ID}")
    assert (found.name, found.where) == (f"gist:{ID}", "gist")
    assert found.facts["owner"] == "ada"
    assert found.facts["revision"] == NEW
    assert found.facts["url"] == f"https://gist.github.com/ada/{ID}"
    assert found.facts["description"] == "a model"
    assert list(found.files) == ["model.py", "config.json"]
    assert (found.config, found.code) == (FLAT, text)
    with pytest.raises(SourceError) as error:
        load(found)
    for part in (hashlib.sha256(text.encode()).hexdigest(), "ada", NEW, "tick trust_code (or --trust-code)"):
        assert part in str(error.value)
    with pytest.raises(SourceError, match=r"importing model\.py raised SystemError: ran \(model\.py:1\)"):
        load(found, trust_code=True)


@pytest.mark.parametrize("main", ["model.py", "custom_transformer.py"])
def test_helper_first_and_model_last_is_built_with_the_config_and_the_overrides(server, main):
    server.serve({main: HELPER_FIRST, "config.json": json.dumps(FLAT)})
    loaded = load(find(ID), trust_code=True, overrides={"d_model": 6})
    assert loaded.model.embedding.weight.shape == (13, 6)
    assert loaded.config == {**FLAT, "d_model": 6}
    assert "CustomTransformer, the class that model_name names" in loaded.chosen
    assert "nothing took nhead" in loaded.chosen
    assert loaded.model(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, 13)


def test_a_graph_config_builds_a_zero_argument_class(server):
    nodes = [{"id": "a", "params": {"vocab_size": 5}}, {"id": "b", "params": {"seq_length": 7}}]
    code = "import torch\nclass M(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    server.serve({"model.py": code, "config.json": json.dumps({"version": "1", "model_name": "M", "nodes": nodes})})
    loaded = load(find(ID), trust_code=True)
    assert type(loaded.model).__name__ == "M"
    assert (loaded.config["vocab_size"], loaded.config["max_seq_len"]) == (5, 7)
    assert "called with no arguments" in loaded.chosen


def test_a_revision_is_asked_for_and_recorded(server):
    server.serve({"model.py": "new = 1\n"})
    server.serve({"model.py": "old = 1\n"}, revision=OLD, path=f"/gists/{ID}/{OLD}")
    assert find(ID).code == "new = 1\n"
    for found in (find(ID, revision=OLD), find(f"https://gist.github.com/ada/{ID}/{OLD}")):
        assert (found.code, found.facts["revision"]) == ("old = 1\n", OLD)
    assert "drop one" in refusal(f"https://gist.github.com/ada/{ID}/{OLD}", revision=NEW)
    assert "is not a revision" in refusal(ID, revision="../../user")


def test_a_truncated_file_is_read_from_its_raw_address_with_the_token_for_the_apis_host_only(server, monkeypatch):
    other = Server()
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    entry = {"size": len(HELPER_FIRST), "truncated": True, "content": HELPER_FIRST[:40]}
    server.serve({"model.py": entry})
    server.routes[f"/raw/{NEW}/model.py"] = (200, {}, HELPER_FIRST.encode())
    assert find(ID).code == HELPER_FIRST
    assert server.seen == [(f"/gists/{ID}", f"Bearer {TOKEN}"), (f"/raw/{NEW}/model.py", f"Bearer {TOKEN}")]
    server.routes[f"/raw/{NEW}/model.py"] = (302, {"Location": f"{other.url}/moved"}, b"")
    other.routes["/moved"] = (200, {}, HELPER_FIRST.encode())
    assert find(ID).code == HELPER_FIRST
    assert other.seen == [("/moved", None)]
    server.serve({"model.py": {**entry, "raw_url": f"{other.url}/raw"}})
    assert "not https" in refusal(ID)
    server.serve({"model.py": {**entry, "raw_url": "file:///etc/passwd"}})
    assert "not https" in refusal(ID)
    assert len(other.seen) == 1
    other.http.shutdown()
    other.http.server_close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((404, {}, {"message": "Not Found"}), "was not found (status 404)"),
        (
            (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000000"}, {"message": "API rate limit"}),
            "used up until 22:13:20 UTC; setting GITHUB_TOKEN raises it",  # 1700000000 is 2023-11-14 22:13:20 UTC
        ),
        ((403, {}, {"message": "Resource not accessible"}), "status 403 (Resource not accessible)"),
        ((401, {}, {"message": "Bad credentials"}), "GITHUB_TOKEN was not accepted"),
        ((403, {"retry-after": "3600"}, {"message": "secondary rate limit"}), "ask again in 3600 seconds"),
        ((200, {}, b"<html>"), "not valid JSON: Expecting value at line 1, column 1"),
        ((200, {}, [1]), "holds a list; expected an object"),
        ((200, {}, {"id": ID}), 'has no "files"'),
        ((200, {}, b"\xff"), "not UTF-8"),
    ],
)
def test_what_asking_again_cannot_change_is_asked_for_once(server, answer, expected):
    server.routes[f"/gists/{ID}"] = answer
    assert expected in refusal(ID)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "bad",
    [
        (500, {}, b""),
        (503, {}, b""),
        (429, {}, {"message": "slow down"}),
        (403, {"retry-after": "0"}, {"message": "You have exceeded a secondary rate limit"}),
        (200, {"Content-Length": "100"}, b"{"),  # the connection is cut
    ],
)
def test_what_passes_is_asked_for_again_and_given_up_after_four_attempts(server, bad):
    server.serve({"model.py": "x = 1\n"})
    good = server.routes[f"/gists/{ID}"]
    server.routes[f"/gists/{ID}"] = [bad, bad, bad, good]
    assert find(ID).code == "x = 1\n"
    assert len(server.seen) == 4
    server.routes[f"/gists/{ID}"] = bad
    refusal(ID)
    assert len(server.seen) == 8


def test_pauses_grow_and_are_as_long_as_the_server_asks(server, monkeypatch):
    slept = []
    monkeypatch.undo()
    monkeypatch.setenv("GITHUB_API_URL", server.url)
    monkeypatch.setattr(time, "sleep", slept.append)
    server.routes[f"/gists/{ID}"] = [(500, {}, b""), (429, {"retry-after": "7"}, b""), (500, {}, b"")]
    refusal(ID)
    assert slept == [1, 7, 4]


def test_no_network_and_a_timeout_are_one_line(server, monkeypatch):
    monkeypatch.setattr(github, "TIMEOUT", 0.05)
    server.routes[f"/gists/{ID}"] = (200, {"Content-Length": "9"}, b"")
    assert "is there a network?" in refusal(ID)
    monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")  # the discard port, closed
    assert "no answer from 127.0.0.1:9" in refusal(ID)
    monkeypatch.setenv("GITHUB_API_URL", "file:///")
    assert "expected an address such as" in refusal(ID)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"main.py": "x = 1", "config.json": "{}"}, "holds no model.py or custom_transformer.py; it has main.py"),
        ({"model.py": "x = 1", "config.json": "{"}, "config.json of gist:"),
        ({"model.py": "x = 1", "config.json": "[]"}, "holds a list; expected an object"),
        ({"model.py": "x = 1", "../evil.py": "x = 1"}, "no plain name"),
        ({"model.py": {"size": 10**8, "truncated": True}}, "more than 10 MB"),
    ],
)
def test_gists_that_hold_no_usable_model_are_refused(server, files, expected):
    server.serve(files)
    assert expected in refusal(ID)


def test_a_bad_id_is_refused_before_anything_is_sent(server):
    assert "is not a gist id; expected the 20 or 32 hex digits" in refusal("gist:../users")
    assert "has no gist id" in refusal("https://gist.github.com/ada")
    assert server.seen == []


@pytest.mark.parametrize("token", [TOKEN, TOKEN + "\nX: y", "ghp_verÿ-secret"])
@pytest.mark.parametrize("status", [401, 403, 404, 500, 0])
def test_the_token_is_in_no_message_repr_or_traceback(server, monkeypatch, token, status):
    monkeypatch.setenv("GITHUB_TOKEN", token)
    server.routes[f"/gists/{ID}"] = (status, {}, {"message": f"token {token} refused"})
    if status == 0:
        monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError) as caught:
        find(ID)
    assert caught.value.__context__ is None
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack[1:]  # past this one
    assert "very" not in repr(caught.value) + repr([frame.locals for frame in frames])
    assert {"find", "fetch", "get"} == {frame.name for frame in frames}


def test_two_gists_with_files_of_equal_names_do_not_meet(server):
    code = "import torch\nfrom layers import WIDTH\nclass M(torch.nn.Linear):\n    def __init__(self):\n"
    code += "        import layers\n        super().__init__(WIDTH, layers.WIDTH)\n"
    models = []
    for width in (3, 5):
        server.serve({"model.py": code, "layers.py": f"WIDTH = {width}\n"})
        models.append(load(find(ID), trust_code=True))
    assert [one.build().weight.shape for one in models] == [(3, 3), (5, 5)]
