"""The server's paths: what a request over HTTP becomes (`publish.calls`), and how an error is told.

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
import functools
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from utils.publish.batching import Batcher, Refused
from utils.publish.calls import GONE, Call, error_of
from utils.publish.counters import Counters
from utils.publish.handling.checks import BadRequest
from utils.publish.handling.endpoint import EndpointHandler
from utils.publish.limits import Limits

PATHS = {
    "text-generation": "/generate",
    "feature-extraction": "/embed",
    "text-classification": "/classify",
    "fill-mask": "/fill",
    "grid-sampling": "/sample",
    "grid-reconstruction": "/reconstruct",
}


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
        text, policy = _page()
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

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
            call = Call(request, self.handler, self.batcher, self.counters, self.limits)
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
            return JSONResponse(error_of(refused), refused.status, headers)

        return answer


async def _not_here(request: Request, error: HTTPException) -> Response:
    told = f"{request.method} {request.url.path[:80]}: {error.detail}; GET /info says what there is."
    return JSONResponse({"error": told, "error_type": "validation"}, error.status_code, error.headers)


@functools.cache
def _page() -> tuple[str, str]:
    """The page, and what a browser lets it do: run its own script, and ask this server."""
    page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page, (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
