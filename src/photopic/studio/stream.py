"""What happens, as server-sent events: every page hears all of it, and one that was away hears what it missed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from photopic.core.files import finite

KEPT_BYTES = 2**21  # of events that a page may have missed
WAITING = 1024  # events that a page may be behind before it has to come again
BEAT_S = 0.5  # between two looks at whether the server is to end
SILENCE_S = 15.0  # after which a comment keeps the connection open


class Stream:
    """Events of one server, numbered from 1.

    Example:
        >>> stream = Stream()
        >>> stream.publish("edits", {})
        1
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, bytes]] = deque()
        self._size = 0  # bytes of these
        self._readers: dict[asyncio.Queue[tuple[int, bytes] | None], asyncio.AbstractEventLoop] = {}
        self.last = 0
        self.closed = False

    def publish(self, kind: str, data: Any) -> int:
        """Tell every page; from any thread. Returns the number of the event."""
        text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        with self._lock:
            self.last += 1
            event = (self.last, f"id: {self.last}\nevent: {kind}\ndata: {text}\n\n".encode())
            self._kept.append(event)
            self._size += len(event[1])
            while self._size > KEPT_BYTES:
                self._size -= len(self._kept.popleft()[1])
            for reader, loop in self._readers.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_hand, reader, event)
            return event[0]

    def close(self) -> None:
        """Let every page's connection end, so that the server can."""
        self.closed = True

    async def events(self, after: int | None, gone: Callable[[], Any]) -> AsyncIterator[bytes]:
        """What a page reads.

        Args:
            after: The number of the last event it has; None begins now.
            gone: Whether the page has left, awaited at every beat.

        Yields:
            Events as bytes; ``lost`` first where some of those missed are no longer kept, or are of another server.
        """
        reader: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(WAITING)
        with self._lock:
            self._readers[reader] = asyncio.get_running_loop()
            missed = [] if after is None else [event for event in self._kept if event[0] > after]
            begun = self._kept[0][0] if self._kept else self.last + 1
            lost = after is not None and (after > self.last or after < begun - 1)
        try:
            yield b"retry: 1000\n\n"
            if lost:
                yield b"event: lost\ndata: {}\n\n"
            for _, content in missed:
                yield content
            silent = 0.0
            while not self.closed:
                try:
                    event = await asyncio.wait_for(reader.get(), BEAT_S)
                except TimeoutError:
                    silent += BEAT_S
                    if silent >= SILENCE_S:
                        silent = 0.0
                        yield b": still here\n\n"
                    if await gone():
                        return
                    continue
                if event is None:  # too far behind: it comes again and hears the rest
                    return
                silent = 0.0
                yield event[1]
        finally:
            with self._lock:
                self._readers.pop(reader, None)


def _hand(reader: asyncio.Queue[tuple[int, bytes] | None], event: tuple[int, bytes]) -> None:
    """Put an event into a reader's queue; one that is full is emptied and closed."""
    if not reader.full():
        reader.put_nowait(event)
        return
    while not reader.empty():
        reader.get_nowait()
    reader.put_nowait(None)
