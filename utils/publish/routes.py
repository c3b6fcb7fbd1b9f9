"""The server's paths: what a request over HTTP becomes, and how what comes of it is told.

    POST /                 {"inputs", "parameters", "task", "stream"}: as Inference Endpoints
    POST /generate         the same, one object for one prompt, as text-generation-inference; /generate_stream streams
    POST /embed, /classify, /fill, /sample, /reconstruct    one task, where the model does it
    GET  /                 a page to try it; /health, /metrics (Prometheus), /info

Errors are {"error": what came and what was expected, "error_type": ...} with 400 (no JSON), 408 (the body was slow),
413 (a body too large), 415 (not sent as JSON), 422 (a request that cannot be answered), 429 and 503 (busy), 504 (took
too long), 500 (the model failed).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse

from utils.publish.batching import Batcher, Job, Refused, Told
from utils.publish.counters import Counters
from utils.publish.handler import BadRequest, EndpointHandler
from utils.publish.limits import Limits

PATHS = {
    "text-generation": "/generate",
    "feature-extraction": "/embed",
    "text-classification": "/classify",
    "fill-mask": "/fill",
    "grid-sampling": "/sample",
    "grid-reconstruction": "/reconstruct",
}
GONE = 499  # the client left before its answer; nginx's number, for metrics alone
LATE = 5.0  # seconds after a deadline at which a request is answered though the model is still at its step


class Service:
    """One model behind HTTP."""

    def __init__(self, handler: EndpointHandler, limits: Limits):
        self.handler, self.limits, self.counters = handler, limits, Counters()
        self.batcher = Batcher(handler, limits, self.counters)

    def app(self) -> FastAPI:
        @contextlib.asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            self.batcher.start()
            yield
            await asyncio.to_thread(self.batcher.stop, self.limits.stop_seconds)

        app = FastAPI(title=self.handler.metadata["name"], lifespan=lifespan, openapi_url=None)
        app.add_api_route("/", self.page, methods=["GET"])
        app.add_api_route("/health", self.health, methods=["GET"])
        app.add_api_route("/metrics", self.metrics, methods=["GET"])
        app.add_api_route("/info", self.info, methods=["GET"])
        app.add_api_route("/", self.answering(), methods=["POST"])
        for task in self.handler.tasks:
            app.add_api_route(PATHS[task], self.answering(task), methods=["POST"])
        if "text-generation" in self.handler.tasks:
            app.add_api_route("/generate_stream", self.answering("text-generation", stream=True), methods=["POST"])
        app.add_exception_handler(HTTPException, _not_here)
        return app

    async def page(self) -> Response:
        text = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": _policy(text)})

    async def health(self) -> Response:
        alive = self.batcher.alive
        return JSONResponse({"status": "ready" if alive else "stopping"}, 200 if alive else 503)

    async def metrics(self) -> Response:
        text = self.counters.text(waiting=len(self.batcher.waiting), running=self.batcher.running)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def info(self) -> Response:
        return JSONResponse(self.handler.info())

    def answering(self, task: str | None = None, *, stream: bool = False):
        """The endpoint of a task; None: of the task that the request names, or the model's own."""

        async def answer(request: Request) -> Response:
            call = Call(self, request)
            try:
                return await call.answer(task, stream=stream)
            except BadRequest as error:
                refused = Refused(422, "validation", str(error))
            except Refused as error:
                refused = error
            call.over(refused.status)
            if refused.status == GONE:
                return Response(status_code=GONE)
            headers = {"Retry-After": "1"} if refused.status in (429, 503) else {}
            return JSONResponse(_error(refused), refused.status, headers)

        return answer


class Call:
    """One request over HTTP, from its body to the last of its answer."""

    def __init__(self, service: Service, request: Request):
        self.service, self.request = service, request
        self.arrived, self.counted = time.monotonic(), False
        self.told: asyncio.Queue[Told] = asyncio.Queue()
        self.job: Job | None = None

    def over(self, status: int) -> None:
        if self.job is not None:
            self.job.cancelled = True  # nobody reads further
        if not self.counted:
            self.counted = True
            self.service.counters.request(self.request.url.path, status, time.monotonic() - self.arrived)

    async def answer(self, task: str | None, *, stream: bool) -> Response:
        """Raises `BadRequest` and `Refused`."""
        data = await self.read()
        stream = stream or self.streams(data)
        # In a thread: reading a long text into tokens is work, and others are answered meanwhile.
        request = await asyncio.to_thread(self.service.handler.read, data, task)
        if stream and len(request.rows) != 1:
            raise BadRequest(f"stream=true came with {request.size} inputs of {request.task}; expected one prompt.")
        loop = asyncio.get_running_loop()

        def tell(told: Told) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended, and nobody waits
                loop.call_soon_threadsafe(self.told.put_nowait, told)

        self.job = Job(request, tell, self.arrived + self.service.limits.seconds, stream)
        try:
            self.service.batcher.submit(self.job)
            kind, value = await self.next(or_gone=True)
        except BaseException:  # the task may be cancelled when the server stops
            self.job.cancelled = True
            raise
        if kind == "error":
            raise value
        if stream:
            return StreamingResponse(self.events((kind, value)), media_type="text/event-stream")
        if request.single and self.request.url.path != "/" and request.task == "text-generation":
            value = value[0]
        response = JSONResponse(value)
        self.over(200)
        return response

    @staticmethod
    def streams(data: Any) -> bool:
        stream = data.get("stream") if isinstance(data, dict) else None
        if stream is not None and not isinstance(stream, bool):
            raise BadRequest(f"stream={stream!r:.60}; expected true or false.")
        return bool(stream)

    async def read(self) -> Any:
        """The body as JSON. Raises `Refused`."""
        limits, kind = self.service.limits, self.request.headers.get("content-type", "")
        if not kind.startswith("application/json"):
            raise Refused(415, "validation", f"Content-Type {kind[:60]!r} came; expected application/json.")
        too_large = Refused(413, "validation", f"The body is larger than {limits.body_bytes:,} bytes.")
        length = self.request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > limits.body_bytes:
            raise too_large
        body = bytearray()

        async def whole() -> None:
            async for chunk in self.request.stream():
                body.extend(chunk)
                if len(body) > limits.body_bytes:
                    raise too_large

        try:
            await asyncio.wait_for(whole(), limits.body_seconds)
        except asyncio.TimeoutError:
            told = f"The body was not complete after {limits.body_seconds:g} s ({len(body):,} bytes came)."
            raise Refused(408, "validation", told) from None
        except ClientDisconnect:
            raise Refused(GONE, "validation", "The client left.") from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "validation", f"The body is not JSON: {error}.") from None

    async def next(self, *, or_gone: bool = False) -> Told:
        """What the batcher tells next. Raises `Refused` where it is late, or, if asked, where the client left."""
        left = self.job.deadline + LATE - time.monotonic()
        waits = [asyncio.ensure_future(self.told.get())] + ([asyncio.ensure_future(self.gone())] if or_gone else [])
        try:
            done, _ = await asyncio.wait(waits, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        if waits[0] in done:
            return waits[0].result()
        if done:
            raise Refused(GONE, "validation", "The client left.")
        raise Refused(504, "timeout", f"The model did not answer within {self.service.limits.seconds:g} s.")

    async def gone(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass

    async def events(self, told: Told) -> AsyncIterator[str]:
        """Server-sent events: a token each; an error where one comes after the first."""
        status = GONE
        try:
            while told[0] == "event":
                yield _event(told[1])
                told = await self.next()
            if told[0] == "error":
                status = told[1].status
                yield _event(_error(told[1]))
            else:
                status = 200
        except Refused as error:
            status = error.status
            yield _event(_error(error))
        finally:
            self.over(status)


def _event(content: dict[str, Any]) -> str:
    return f"data:{json.dumps(content, ensure_ascii=False)}\n\n"


def _error(refused: Refused) -> dict[str, str]:
    return {"error": str(refused), "error_type": refused.kind}


async def _not_here(request: Request, error: HTTPException) -> Response:
    told = f"{request.method} {request.url.path[:80]}: {error.detail}; GET /info says what there is."
    return JSONResponse({"error": told, "error_type": "validation"}, error.status_code, error.headers)


def _policy(page: str) -> str:
    """What a browser lets the page do: run its own script, and ask this server."""
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
