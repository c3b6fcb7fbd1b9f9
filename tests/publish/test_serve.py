"""The server over HTTP, on real export folders: the real client, many clients, and requests that go wrong alone."""

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from utils.publish.folder import ExportError, seal
from utils.publish.handling.endpoint import EndpointHandler
from utils.publish.limits import Limits
from utils.publish.serve import ServeError, app_of, one_request, serve, serving

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")


@pytest.fixture(scope="module")
def alone(folders):
    """The handler that answers one request at a time."""
    return EndpointHandler(folders["gpt"])


@pytest.fixture(scope="module")
def server(folders):
    with serving(folders["gpt"], Limits(body_bytes=20_000, body_seconds=1)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    from huggingface_hub import InferenceClient

    return InferenceClient(model=server.url, token="of the test")


def post(server, path="/", **keywords):
    return httpx.post(server.url + path, timeout=60, trust_env=False, **keywords)


def metric(server, name):
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].split()[1])


def request(prompt, **parameters):
    return {"inputs": prompt, "parameters": parameters}


def test_the_real_client_generates_text(client, alone):
    expected = alone(request("the red", max_new_tokens=20))[0]["generated_text"]
    assert client.text_generation("the red", max_new_tokens=20) == expected
    full = client.text_generation("the red", max_new_tokens=20, return_full_text=True)
    assert full == "the red" + expected
    details = client.text_generation("the red", max_new_tokens=20, details=True)
    assert details.generated_text == expected
    assert details.details.finish_reason == "length"
    assert [token.text for token in details.details.tokens] == list(expected)  # its tokens are characters


def test_the_real_client_streams_text(client, alone):
    sampled = {"max_new_tokens": 20, "temperature": 1.0, "seed": 4}
    expected = alone(request("the red", **sampled))[0]["generated_text"]
    pieces = list(client.text_generation("the red", stream=True, **sampled))
    assert "".join(pieces) == expected
    assert len(pieces) == 20
    events = list(client.text_generation("the red", stream=True, details=True, **sampled))
    assert events[-1].generated_text == expected
    assert events[-1].details.seed == 4
    assert [event.generated_text for event in events[:-1]] == [None] * 19


def test_the_real_client_gets_an_error_of_its_own_kind(client):
    from huggingface_hub.errors import ValidationError

    with pytest.raises(ValidationError, match="17 tokens came; at most 16 are read"):
        client.text_generation("t" * 17)


def test_the_real_client_asks_the_other_kinds(folders):
    from huggingface_hub import InferenceClient

    with serving(folders["classifier"]) as running:
        client = InferenceClient(model=running.url, token="of the test")
        expected = EndpointHandler(folders["classifier"])({"inputs": "the red bird"})[0]
        answered = client.text_classification("the red bird")
        assert [one.label for one in answered] == [one["label"] for one in expected]
        assert [one.score for one in answered] == pytest.approx([one["score"] for one in expected], abs=1e-6)
        vectors = client.feature_extraction(["the red bird", "blue"], model=f"{running.url}/embed")
        assert vectors.shape == (2, EndpointHandler(folders["classifier"]).model.module.config.width)
    with serving(folders["bert"]) as running:
        answered = InferenceClient(model=running.url, token="of the test").fill_mask("the [MASK] bird", top_k=2)
        expected = EndpointHandler(folders["bert"])(request("the [MASK] bird", top_k=2))
        assert [one.token_str for one in answered] == [one["token_str"] for one in expected]


def test_32_clients_at_once_each_get_what_their_prompt_alone_gives(server, alone):
    prompts = [f"the {('red', 'blue', 'green')[at % 3]} {at}"[: 5 + at % 10] for at in range(32)]
    asked = [
        request(prompt, max_new_tokens=3 + at % 9, **({"temperature": 1.3, "seed": at} if at % 2 else {}))
        for at, prompt in enumerate(prompts)
    ]
    expected = [alone(one)[0]["generated_text"] for one in asked]
    barrier = threading.Barrier(32)

    def ask(at):
        barrier.wait()
        if at % 4 == 3:  # some of them streamed
            with httpx.stream(
                "POST", f"{server.url}/generate_stream", json=asked[at], timeout=60, trust_env=False
            ) as response:
                events = [json.loads(line[5:]) for line in response.iter_lines() if line.startswith("data:")]
            return "".join(event["token"]["text"] for event in events)
        return post(server, json=asked[at]).json()[0]["generated_text"]

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, range(32))) == expected


def test_waiting_requests_are_taken_in_order_and_together(folders):
    """A batch of four that holds the only place, then eight that wait: two batches of four, in the order they came."""
    from utils.publish.batching import Batcher, Job
    from utils.publish.counters import Counters

    handler = EndpointHandler(folders["gpt"])
    batches, ended = [], []
    decode = handler.decode

    def watched(rows):
        batches.append([row.prompt for row in rows])
        return decode(rows)

    handler.decode = watched
    batcher = Batcher(handler, Limits(batch_size=4, batches=1), Counters())
    names = [f"bird {at}" for at in range(10)]

    def job(name, size=5):
        return Job(
            handler.read(request(name, max_new_tokens=size)), lambda told: ended.append(name), time.monotonic() + 60
        )

    for name in names:
        batcher.submit(job(name))
    batcher.start()
    batcher.stop(60)  # after what waits is done
    assert batches == [names[:4], names[4:8], names[8:]]
    assert ended == names


def test_a_short_request_overtakes_a_long_one_that_runs(server):
    started, order = threading.Event(), []

    def long():
        data = {**request("the red", max_new_tokens=1000), "stream": True}
        with httpx.stream("POST", server.url, json=data, timeout=60, trust_env=False) as response:
            for _ in response.iter_lines():
                started.set()
        order.append("long")

    thread = threading.Thread(target=long)
    thread.start()
    started.wait(60)
    assert post(server, json=request("blue", max_new_tokens=2)).status_code == 200
    order.append("short")
    thread.join()
    assert order == ["short", "long"]


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "The body is not JSON"),
        ({"content": b"[" * 19_000, "headers": {"Content-Type": "application/json"}}, 400, "The body is not JSON"),
        ({"content": b"\xff\xfe", "headers": {"Content-Type": "application/json"}}, 400, "The body is not JSON"),
        ({"content": b"hello"}, 415, "expected application/json"),
        ({"json": [1]}, 422, "expected an object"),
        ({"json": {"inputs": "the", "stream": "yes"}}, 422, "expected true or false"),
        ({"json": {"inputs": ["the", "red"], "stream": True}}, 422, "expected one prompt"),
        ({"json": {"inputs": "the", "parameters": {"max_new_tokens": 10**9}}}, 422, "from 1 to 1,024"),
        ({"json": {"inputs": "the", "parameters": {"temperature": 1e-40}}}, 422, "at least 0.0001"),
        ({"json": {"inputs": "t" * 17}}, 422, "at most 16 are read"),
        ({"json": {"inputs": "t" * 30_000}}, 413, "larger than 20,000 bytes"),
    ],
)
def test_a_bad_request_is_told_why(server, sent, status, told):
    response = post(server, **sent)
    assert response.status_code == status
    assert told in response.json()["error"]
    assert post(server, json=request("the", max_new_tokens=1)).status_code == 200


def test_a_body_without_a_stated_length_is_cut_off_at_the_limit(server):
    def chunks():
        for _ in range(30):
            yield b" " * 1000

    response = post(server, content=chunks(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413


def test_a_body_that_never_ends_is_cut_off_and_others_are_answered_meanwhile(server):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        assert post(server, json=request("the", max_new_tokens=1)).status_code == 200
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_paths_that_are_not_there_are_told_as_json(server):
    for path, status in (("/sample", 404), ("/health", 405)):
        response = post(server, path, json={})
        assert response.status_code == status
        assert "GET /info says what there is" in response.json()["error"]


def test_health_info_and_metrics(server):
    got = {path: httpx.get(server.url + path, trust_env=False) for path in ("/health", "/info", "/metrics")}
    assert got["/health"].json() == {"status": "ready"}
    assert got["/info"].json()["tasks"] == ["text-generation", "feature-extraction"]
    assert got["/info"].json()["read_with"] == "installed code"  # what lies in the folder is not run
    before = metric(server, "runall_generated_tokens_total")
    post(server, json=request("the", max_new_tokens=7))
    assert metric(server, "runall_generated_tokens_total") == before + 7
    post(server, json=request("the", max_new_tokens=0))
    text = got["/metrics"].text
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(line.rpartition(" ")[2].replace(".", "").replace("e-", "").isdigit() for line in samples)
    assert 'runall_requests_total{path="/",status="422"}' in httpx.get(f"{server.url}/metrics", trust_env=False).text
    assert metric(server, "runall_queue_length") == metric(server, "runall_running_requests") == 0
    buckets = [int(line.split()[1]) for line in samples if line.startswith("runall_batch_size_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == metric(server, "runall_batch_size_count") - 1  # the one of 7 tokens came after


class Held:
    """A handler whose steps wait until they are let go."""

    def __init__(self, folder):
        self.handler, self.go, self.steps = EndpointHandler(folder), threading.Event(), 0
        inner = self.handler.decode

        def decode(rows):
            for advanced in inner(rows):
                self.steps += 1
                yield advanced
                self.go.wait(60)

        self.handler.decode = decode


async def asked(service, *jobs):
    """Run coroutines that take a client of a service's app, without sockets."""
    app = service.app()
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://served", timeout=60) as client:
            return await asyncio.gather(*(job(client) for job in jobs))


def test_beyond_the_queue_a_request_is_refused_and_those_that_wait_are_answered(folders):
    from utils.publish.routes import Service

    held = Held(folders["gpt"])
    service = Service(held.handler, Limits(batch_size=1, batches=1, queue=2))

    async def run(client):
        tasks = []
        for waiting in (0, 1, 2):  # one runs, two wait
            tasks.append(asyncio.create_task(client.post("/", json=request("the", max_new_tokens=2))))
            while held.steps < 1 or len(service.batcher.waiting) < waiting:
                await asyncio.sleep(0.01)
        refused = await client.post("/", json=request("the", max_new_tokens=2))
        held.go.set()
        return refused, [(await task).status_code for task in tasks]

    [(refused, others)] = asyncio.run(asked(service, run))
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["error_type"] == "overloaded"
    assert others == [200, 200, 200]


def test_a_request_that_takes_too_long_is_ended_and_the_next_is_answered(folders):
    from utils.publish.routes import Service

    handler = EndpointHandler(folders["gpt"])
    inner = handler.decode

    def decode(rows):
        for advanced in inner(rows):
            yield advanced
            time.sleep(0.02)

    handler.decode = decode
    service = Service(handler, Limits(seconds=0.3, batches=1))

    async def run(client):
        slow = asyncio.create_task(client.post("/", json=request("the", max_new_tokens=1000)))
        while not service.batcher.groups:
            await asyncio.sleep(0.01)
        waits = await client.post("/", json=request("the", max_new_tokens=1000))
        after = await client.post("/", json=request("the", max_new_tokens=1))
        stream = await client.post("/generate_stream", json=request("the", max_new_tokens=1000))
        return await slow, waits, after, stream

    [(slow, waits, after, stream)] = asyncio.run(asked(service, run))
    assert slow.status_code == waits.status_code == 504 or (slow.status_code, waits.status_code) == (504, 503)
    assert "not complete after 0.3 s" in slow.json()["error"]
    assert after.status_code == 200
    assert stream.status_code == 200  # it had begun
    last = json.loads(stream.text.strip().split("\n\n")[-1].removeprefix("data:"))
    assert last["error_type"] == "timeout"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_own_generation(server, stream):
    before = metric(server, "runall_generated_tokens_total")
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({**request("the red", max_new_tokens=1024), "stream": stream}).encode()
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as leaving:
        leaving.sendall(head.encode() + body)
        while metric(server, "runall_generated_tokens_total") < before + 3:
            time.sleep(0.01)
    while metric(server, "runall_running_requests"):
        time.sleep(0.01)
    assert metric(server, "runall_generated_tokens_total") < before + 1024
    assert 'status="499"' in httpx.get(f"{server.url}/metrics", trust_env=False).text


def test_a_model_that_fails_on_one_request_answers_the_others_of_its_batch(folders, alone):
    from utils.publish.routes import Service

    handler = EndpointHandler(folders["gpt"])
    inner, batches = handler._begin, []

    def begin(rows):
        batches.append(len(rows))
        if any(row.prompt == "bird" for row in rows):
            raise RuntimeError("no kernel for this")
        return inner(rows)

    handler._begin = begin
    service = Service(handler, Limits())
    prompts = ["the red", "bird", "blue"]

    async def ask(client, prompt):
        return await client.post("/", json=request(prompt, max_new_tokens=4))

    async def together(client):
        with service.batcher._changed:  # so that all three wait when the batcher looks
            tasks = [asyncio.create_task(ask(client, prompt)) for prompt in prompts]
            while len(service.batcher.waiting) < 3:
                await asyncio.sleep(0.01)
        return [await task for task in tasks]

    [answers] = asyncio.run(asked(service, together))
    assert [one.status_code for one in answers] == [200, 500, 200]
    assert "no kernel for this" in answers[1].json()["error"]
    for at in (0, 2):
        assert answers[at].json() == alone(request(prompts[at], max_new_tokens=4))
    assert sorted(batches)[-1] >= 2


def test_a_stream_tells_every_token_of_a_step_that_failed_for_another(folders, alone):
    """The third step fails at the second row, when the first has its token already."""
    from utils.publish.batching import Batcher, Job
    from utils.publish.counters import Counters

    handler = EndpointHandler(folders["gpt"])
    asked = {"the red": {"temperature": 1.2, "seed": 3}, "blue": {}}
    requests = {name: handler.read(request(name, max_new_tokens=6, **given)) for name, given in asked.items()}
    decode, failures = requests["blue"].rows[0].decode, [RuntimeError("once")]

    def failing(tokens):
        if len(tokens) == 3 and failures:
            raise failures.pop()
        return decode(tokens)

    requests["blue"].rows[0].decode = failing
    told = {name: [] for name in asked}
    batcher = Batcher(handler, Limits(), Counters())
    for name, read in requests.items():
        batcher.submit(Job(read, told[name].append, time.monotonic() + 60, stream=True))
    batcher.start()
    batcher.stop(60)
    assert failures == []
    for name, given in asked.items():
        *events, (last, answer) = told[name]
        assert last == "done"
        assert answer == alone(request(name, max_new_tokens=6, **given))
        assert [event["index"] for _, event in events] == [1, 2, 3, 4, 5, 6]
        assert "".join(event["token"]["text"] for _, event in events) == answer[0]["generated_text"]


@pytest.fixture
def doctored(tmp_path):
    """A folder whose graph is a model.pt2 that, when it is read, writes the file that is given beside."""
    folder, mark = tmp_path / "doctored", tmp_path / "ran"
    folder.mkdir()

    class Embedding(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(300, 300)

        def forward(self, input_ids):
            return self.table(input_ids)

    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Embedding(), (torch.zeros(2, 4, dtype=torch.long),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "sound.pt2")

    class Writes:
        def __reduce__(self):
            return Path.touch, (mark,)

    pickled = io.BytesIO()
    torch.save({"a": Writes()}, pickled)
    with zipfile.ZipFile(tmp_path / "sound.pt2") as sound, zipfile.ZipFile(folder / "model.pt2", "w") as changed:
        for name in sound.namelist():
            changed.writestr(name, pickled.getvalue() if "sample_inputs" in name else sound.read(name))
    (folder / "tokenizer").mkdir()
    characters = {"kind": "char", "characters": "abc", "byte_fallback": True}
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(characters), encoding="utf-8")
    about = {"format_version": 1, "name": "doctored", "kind": "causal_lm", "loader": "weights", "special": {}}
    seal(folder, about | {"limits": {"context_length": 16}})
    return folder, mark


def test_a_pt2_that_holds_code_is_read_only_where_the_folder_is_trusted(doctored):
    folder, mark = doctored
    for start in (lambda: app_of(folder), lambda: one_request(folder), lambda: serve(folder, port=0)):
        with pytest.raises(ServeError, match=r"model\.pt2, and reading a \.pt2 can run code .* serve --trust"):
            start()
    assert not mark.exists()
    with contextlib.suppress(Exception):  # what was put in is no input of the graph
        app_of(folder, trust=True)
    assert mark.exists()  # the file is as bad as it was meant to be


def test_a_folder_that_is_not_what_its_metadata_says_is_not_served(folders, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(folders["gpt"], folder)
    config = folder / "config.json"
    config.write_bytes(config.read_bytes().swapcase())
    with pytest.raises(ExportError, match=r"config\.json is changed"):
        app_of(folder)
    shutil.copyfile(folders["gpt"] / "config.json", config)
    (folder / "extra.py").touch()
    with pytest.raises(ExportError, match=r"extra\.py is not listed"):
        app_of(folder)
    (folder / "extra.py").unlink()
    assert app_of(folder).title


def test_the_command_passes_trust_on(doctored, monkeypatch):
    from typer.testing import CliRunner

    from utils.cli.publish import app
    from utils.publish import serve as server

    given = []
    monkeypatch.setattr(server, "serve", lambda *place, trust: given.append(trust))
    for options in ([], ["--trust"]):
        result = CliRunner().invoke(app, ["serve", str(doctored[0]), *options])
        assert result.exit_code == 0, result.output
    assert given == [False, True]


def test_on_sigterm_a_running_request_is_finished_and_a_new_one_refused(folders):
    script = """
import sys
from utils.publish import serve
serve.serve(sys.argv[1], port=int(sys.argv[2]))
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folders["gpt"]), str(port)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while True:
            assert process.poll() is None
            try:
                httpx.get(f"{url}/health", trust_env=False)
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        data = request("the red", max_new_tokens=1000)
        with httpx.stream("POST", f"{url}/generate_stream", json=data, timeout=60, trust_env=False) as response:
            lines = response.iter_lines()
            first = next(lines)
            process.send_signal(signal.SIGTERM)
            refused = False
            while not refused:  # until its socket is closed
                try:
                    httpx.get(f"{url}/health", trust_env=False)
                    time.sleep(0.01)
                except httpx.TransportError:
                    refused = True
            events = [json.loads(line[5:]) for line in (first, *lines) if line.startswith("data:")]
        assert events[-1]["details"] == {"finish_reason": "length", "generated_tokens": 1000, "seed": None}
        process.wait(60)
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_one_request_shows_itself_and_an_error_is_raised_with_what_the_server_says(folders, alone):
    shown = one_request(folders["gpt"], request("the red", max_new_tokens=5))
    assert shown.answer == alone(request("the red", max_new_tokens=5))
    assert "generated_text" in shown._repr_html_()
    for name in ("gpt", "bert", "t5", "classifier", "gpt2"):
        example = {"inputs": "the red", "parameters": {"max_new_tokens": 3}} if name in ("gpt", "gpt2", "t5") else None
        assert one_request(folders[name], example).answer
    with (
        serving(folders["gpt"]) as running,
        pytest.raises(ServeError, match="answered 422: .*17 tokens came"),
    ):
        running.ask(request("t" * 17))
