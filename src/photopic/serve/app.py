"""The FastAPI application: POST /check, GET /health, GET /metrics."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import traceback
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from photopic.serve.counts import Counts
from photopic.serve.limits import DRAINED, Gone, Limits, Refusal, body_of, file_of, picture_of

if TYPE_CHECKING:
    from photopic.guard.guarded import GuardedModel, Prediction

LOG = logging.getLogger("photopic.guard")
PATHS = "POST /check, GET /health or GET /metrics"
DRAIN_SECONDS = 2.0


def service(guarded: GuardedModel, limits: Limits | None = None, counts: Counts | None = None) -> FastAPI:
    """The application around a fitted guard; its work is done by one thread of its own.

    Args:
        guarded: The guard.
        limits: Of requests; None: the defaults.
        counts: What is counted; None: from nought.

    Example:
        >>> application = service(load_guarded("emoji.guard"))  # doctest: +SKIP
    """
    limits, counted = limits or Limits(), counts or Counts()
    worker = _Worker(guarded, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        worker.stop()

    app = FastAPI(title="photopic guard", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.post("/check")
    async def check(request: Request) -> Response:
        started = time.perf_counter()
        try:
            answer = await _checked(request, worker, limits)
        except Refusal as refusal:
            counted.refused(refusal.status, refusal.code)
            return _Refused(refusal, limits)
        except Gone:
            counted.outcomes["gone"] += 1
            return Response(status_code=499)  # nobody reads it
        except Exception as error:
            LOG.error("%s in\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
            counted.refused(500, "failed")
            return _Refused(Refusal(500, "failed", "the check failed; the service's log says where"), limits)
        outcome = "accepted" if answer["accepted"] else "rejected"
        counted.answered(outcome, time.perf_counter() - started, rejected_by=answer["rejected_by"])
        return JSONResponse(answer)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "model": guarded.model.name,
            "checks": list(guarded.checks),
            "expected_false_positive_rate": guarded.expected_false_positive_rate,
            "caveats": list(guarded.caveats),
        }

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(counted.text(), media_type="text/plain; version=0.0.4")

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        counted.refused(status, "path")
        found = f"{request.method} {request.url.path}"[:100]
        return _Refused(Refusal(status, "path", f"expected {PATHS}, found {found}", unread=True), limits)

    return app


class _Worker:
    """One thread that decodes and decides, and how many requests may wait for it."""

    def __init__(self, guarded: GuardedModel, limits: Limits):
        self.waiting = 0
        self._guarded, self._limits = guarded, limits
        self._thread = ThreadPoolExecutor(1, "photopic-guard")

    def check_free(self, *, unread: bool) -> None:
        if self.waiting >= self._limits.requests:
            reason = f"expected at most {self._limits.requests} requests at a time, found more"
            raise Refusal(503, "busy", reason, unread=unread)

    async def answer(self, content_type: str, body: bytes) -> dict[str, Any]:
        self.check_free(unread=False)
        self.waiting += 1
        job = self._thread.submit(self._work, content_type, body)
        work = asyncio.wrap_future(job)
        work.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(work), self._limits.answer_seconds)
        except TimeoutError:
            job.cancel()  # if it has not begun; otherwise it counts until it ends
            raise Refusal(
                503, "busy", f"expected an answer within {self._limits.answer_seconds:g} s, found a longer queue"
            ) from None

    def stop(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _done(self, work: asyncio.Future[Any]) -> None:
        self.waiting -= 1
        if not work.cancelled():
            work.exception()  # seen, also if nobody waits for it any more

    def _work(self, content_type: str, body: bytes) -> dict[str, Any]:
        (prediction,) = self._guarded([picture_of(file_of(content_type, body), self._limits)])
        return _answer(prediction)


async def _checked(request: Request, worker: _Worker, limits: Limits) -> dict[str, Any]:
    worker.check_free(unread=True)
    return await worker.answer(request.headers.get("content-type", ""), await body_of(request, limits))


def _answer(prediction: Prediction) -> dict[str, Any]:
    verdict = prediction.verdict
    return _finite(
        {
            "accepted": verdict.accepted,
            "label": prediction.label,
            "probability": prediction.probability,
            "reason": verdict.reason,
            **verdict.evidence,
        }
    )


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Refused(JSONResponse):
    """A refusal; what the sender still sends is read for a moment, so that it gets to read the reason."""

    def __init__(self, refusal: Refusal, limits: Limits):
        headers = {"connection": "close"} | ({"retry-after": "1"} if refusal.status == 503 else {})
        super().__init__({"error": refusal.code, "reason": refusal.reason}, refusal.status, headers)
        self._most = DRAINED * limits.body_bytes if refusal.unread else 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._drain(receive)
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b""})

    async def _drain(self, receive: Any) -> None:
        read, more = 0, True
        while more and read < self._most:
            message = await receive()
            read += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)
