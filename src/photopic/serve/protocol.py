"""HTTP/1.1 with deadlines: uvicorn alone waits for headers without end and answers what is broken in plain text."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from photopic.serve.counts import Counts
from photopic.serve.limits import Limits

HEADER_BYTES = 16 * 1024
LINGER = 2.0  # seconds a refused sender is listened to, so that closing does not take the reason from its hands


def protocol(limits: Limits, counts: Counts) -> type[asyncio.Protocol]:
    """The protocol class of a server.

    Args:
        limits: ``send_seconds`` for the headers, and ``connections``.
        counts: Where refusals are counted.
    """

    class Deadlines(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _refused = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._refuse(503, "busy", f"expected at most {limits.connections} connections at a time, found more")
            self._watch()

        def data_received(self, data: bytes) -> None:
            if not self._refused:
                super().data_received(data)
                self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self.cycle.disconnected = True  # what reads the body learns that no more of it comes
                self.cycle.message_event.set()
                if self.cycle.response_started:
                    self.transport.close()
                    return
            self._refuse(
                400, "http", f"expected HTTP/1.1 with headers of at most {HEADER_BYTES} bytes, found other bytes"
            )

        def _watch(self) -> None:
            """A deadline while the headers of a request are on their way."""
            awaited = self.conn.their_state is h11.IDLE and not self._refused and not self.transport.is_closing()
            if not awaited:
                self._stop()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(limits.send_seconds, self._too_slow)

        def _stop(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _too_slow(self) -> None:
            self._deadline = None
            self._refuse(408, "slow", f"expected the whole headers within {limits.send_seconds:g} s, found fewer")

        def _refuse(self, status: int, code: str, reason: str) -> None:
            if self._refused or self.transport.is_closing():
                return
            self._refused = True
            self._stop()
            counts.refused(status, code)
            body = json.dumps({"error": code, "reason": reason}).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            if status == 503:
                headers.append(("retry-after", "1"))
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.write_eof()
            self.transport.resume_reading()
            self.loop.call_later(LINGER, self.transport.close)

    return Deadlines
