"""`serve`: an export folder behind HTTP, on one's own machine unless told otherwise.

    serve("runs/shakespeare/export")                      # until Ctrl-C or SIGTERM; running requests are finished
    with serving(folder) as server:                       # meanwhile, on a free port of this machine
        server.ask({"inputs": "Once"})
    InferenceClient(model="http://127.0.0.1:8000").text_generation("Once", stream=True)

Before anything is read, every file is compared with what metadata.json lists. Code in the folder is not run: a model of
ours is made by the installed code, and a graph is read as ONNX; a .pt2, which can hold code, only with `trust`. Paths:
`publish.routes`; who is computed with whom: `publish.batching`; what a model does: `publish.handling`. Leaves out who
may ask: there is no account and no TLS, so put a proxy before it where others can reach it.
"""

from __future__ import annotations

import contextlib
import html
import json
import math
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.publish.errors import ServeError
from utils.publish.handling.checks import FolderError
from utils.publish.handling.endpoint import EndpointHandler
from utils.publish.handling.sampling import Bounds
from utils.publish.limits import Limits
from utils.publish.loading import load
from utils.publish.manifest import verify

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = "127.0.0.1"
INSTALL = "Serving needs fastapi and uvicorn: pip install fastapi uvicorn"
EXAMPLES: dict[str, dict[str, Any]] = {
    "causal_lm": {"inputs": "The", "parameters": {"max_new_tokens": 40, "temperature": 0.8, "seed": 0}},
    "seq2seq": {"inputs": "The", "parameters": {"max_new_tokens": 40}},
    "masked_lm": {"inputs": "The {mask} of the", "parameters": {"top_k": 3}},
    "classifier": {"inputs": "The first of them"},
    "vae": {"inputs": "", "parameters": {"n": 1, "seed": 0}},
}


def app_of(path: str | Path, limits: Limits = Limits(), *, trust: bool = False) -> FastAPI:
    """The app that serves an export folder; `trust`: read a .pt2 too, which can run code that it holds.

    Raises `ServeError` without fastapi and where the folder cannot be served, `ExportError` where it is not what its
    metadata.json says.
    """
    try:
        from utils.publish.routes import Service
    except ImportError as error:
        raise ServeError(f"{INSTALL} ({error}).") from error
    bounds = Bounds(**{name: getattr(limits, name) for name in Bounds.__dataclass_fields__})
    verify(Path(path))  # what Python left beside its code may stay: none of it is run
    try:
        handler = EndpointHandler(path, bounds, load, trust=trust)
    except FolderError as error:
        raise ServeError(str(error)) from None
    return Service(handler, limits).app()


def serve(
    path: str | Path, host: str = LOOPBACK, port: int = 8000, limits: Limits = Limits(), *, trust: bool = False
) -> None:
    """Serve an export folder until SIGINT or SIGTERM; then running requests are finished and new ones refused."""
    _uvicorn(app_of(path, limits, trust=trust), limits, "info", host=host, port=port).run()


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    url: str
    info: dict[str, Any]
    """what it says of its model"""

    def ask(self, data: dict[str, Any], path: str = "/") -> Any:
        """The answer to one request. Raises `ServeError` with what the server says where it is an error."""
        return _fetch(self.url + path, data)


@dataclass(frozen=True)
class Exchange:
    """One request and its answer. Shows itself."""

    request: dict[str, Any]
    answer: Any
    seconds: float

    def __str__(self) -> str:
        answer = json.dumps(self.answer, ensure_ascii=False)
        return f"POST / {json.dumps(self.request, ensure_ascii=False)}\n{answer}\nin {self.seconds:.2f} s"

    def _repr_html_(self) -> str:
        style = "white-space: pre-wrap; text-align: left; font-family: monospace"
        told = {
            "request": json.dumps(self.request, ensure_ascii=False),
            f"answer, after {self.seconds:.2f} s": json.dumps(self.answer, ensure_ascii=False, indent=1),
        }
        rows = "".join(
            f'<tr><th style="vertical-align: top; text-align: left">{name}</th>'
            f'<td style="{style}">{html.escape(text)}</td></tr>'
            for name, text in told.items()
        )
        return f"<table>{rows}</table>"


@contextlib.contextmanager
def serving(path: str | Path, limits: Limits = Limits(), *, trust: bool = False) -> Iterator[Server]:
    """A server on a free port of this machine, in a thread of this process, until the block ends."""
    app = app_of(path, limits, trust=trust)
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        uvicorn = _uvicorn(app, limits, "warning")
        thread = threading.Thread(target=uvicorn.run, args=([listening],), name="server", daemon=True)
        thread.start()
        try:
            while not uvicorn.started:
                if not thread.is_alive():
                    raise ServeError("The server ended while it started; what it said stands above.")
                time.sleep(0.01)
            url = f"http://{LOOPBACK}:{listening.getsockname()[1]}"
            yield Server(url, _fetch(f"{url}/info"))
        finally:
            uvicorn.should_exit = True
            thread.join()


def one_request(path: str | Path, request: dict[str, Any] | None = None, *, trust: bool = False) -> Exchange:
    """Serve an export folder, ask it once, and stop. `request` None: an example of the model's kind."""
    with serving(path, trust=trust) as server:
        if request is None:
            request = json.loads(json.dumps(EXAMPLES[server.info["kind"]]))
            request["inputs"] = request["inputs"].replace("{mask}", server.info["mask_token"] or "")
        start = time.perf_counter()
        answer = server.ask(request)
        return Exchange(request, answer, time.perf_counter() - start)


def _uvicorn(app: FastAPI, limits: Limits, level: str, **place: Any) -> Any:
    import uvicorn

    seconds = math.ceil(limits.stop_seconds)
    config = uvicorn.Config(app, log_level=level, timeout_graceful_shutdown=seconds, server_header=False, **place)
    return uvicorn.Server(config)


def _fetch(url: str, data: dict[str, Any] | None = None) -> Any:
    """By GET, or with `data` by POST; past any proxy of the environment, for the server is this machine."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise ServeError(f"{url} answered {error.code}: {error.read().decode(errors='replace')[:500]}") from None
