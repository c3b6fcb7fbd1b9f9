"""`Call`: one request over HTTP, from its body to the last of its answer. Leaves out paths (`publish.routes`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from utils.publish.batching import Batcher, Job, Refused, Told
from utils.publish.counters import Counters
from utils.publish.handling.checks import BadRequest
from utils.publish.handling.endpoint import EndpointHandler
from utils.publish.limits import Limits

GONE = 499  # the client left before its answer; nginx's number, for metrics alone
LATE = 5.0  # seconds after a deadline at which a request is answered though the model is still at its step


class Call:
    """One request over HTTP, from its body to the last of its answer."""

    def __init__(
        self, request: Request, handler: EndpointHandler, batcher: Batcher, counters: Counters, limits: Limits
    ):
        self.request, self.handler, self.batcher = request, handler, batcher
        self.counters, self.limits = counters, limits
        self.arrived, self.counted = time.monotonic(), False
        self.told: asyncio.Queue[Told] = asyncio.Queue()
        self.job: Job | None = None

    def over(self, status: int) -> None:
        if self.job is not None:
            self.job.cancelled = True  # nobody reads further
        if not self.counted:
            self.counted = True
            self.counters.request(self.request.url.path, status, time.monotonic() - self.arrived)

    async def answer(self, task: str | None, *, stream: bool) -> Response:
        """Raises `BadRequest` and `Refused`."""
        data = await self.read()
        stream = stream or self.streams(data)
        # In a thread: reading a long text into tokens is work, and others are answered meanwhile.
        request = await asyncio.to_thread(self.handler.read, data, task)
        if stream and len(request.rows) != 1:
            raise BadRequest(f"stream=true came with {request.size} inputs of {request.task}; expected one prompt.")
        loop = asyncio.get_running_loop()

        def tell(told: Told) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended, and nobody waits
                loop.call_soon_threadsafe(self.told.put_nowait, told)

        self.job = Job(request, tell, self.arrived + self.limits.seconds, stream)
        try:
            self.batcher.submit(self.job)
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
        limits, kind = self.limits, self.request.headers.get("content-type", "")
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
        raise Refused(504, "timeout", f"The model did not answer within {self.limits.seconds:g} s.")

    async def gone(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass

    async def events(self, told: Told) -> AsyncIterator[str]:
        """Server-sent events: a token each; an error where one comes after the first."""
        status = GONE
        try:
            while told[0] == "event":
                yield event_text(told[1])
                told = await self.next()
            if told[0] == "error":
                status = told[1].status
                yield event_text(error_of(told[1]))
            else:
                status = 200
        except Refused as error:
            status = error.status
            yield event_text(error_of(error))
        finally:
            self.over(status)


def event_text(content: dict[str, Any]) -> str:
    return f"data:{json.dumps(content, ensure_ascii=False)}\n\n"


def error_of(refused: Refused) -> dict[str, str]:
    return {"error": str(refused), "error_type": refused.kind}
