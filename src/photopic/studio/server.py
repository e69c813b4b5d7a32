"""The server: a socket of this machine alone, the worker beside it, and an end that leaves nothing half done."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import uvicorn

from photopic.core.errors import PhotopicError
from photopic.serve.counts import Counts
from photopic.serve.limits import Limits
from photopic.serve.protocol import HEADER_BYTES, protocol
from photopic.studio.app import application
from photopic.studio.asking import Studio
from photopic.studio.security import Guarded, Keys

ADDRESS = "127.0.0.1"
HEADER_SECONDS = 10.0  # for the headers of a request: who sends none holds no connection
CONNECTIONS = 128  # six a browser, and a stream for each tab


class Server(uvicorn.Server):
    """A server whose pages' streams end when it is to."""

    def __init__(self, config: uvicorn.Config, studio: Studio):
        super().__init__(config)
        self._studio = studio

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On Ctrl-C and SIGTERM: an end in order, in which what runs is kept; a second Ctrl-C waits for no page."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.end()

    def end(self) -> None:
        """Ask it to stop, from any thread; streams end by themselves, which would else keep their connections for ever."""
        self._studio.stream.close()
        self.should_exit = True


@dataclass
class Opened:
    """A server that is ready to run.

    Attributes:
        server: To be run in this thread or another.
        socket: That it listens at.
        port: Of the socket.
        keys: What opens its page.
    """

    server: Server
    socket: socket.socket
    port: int
    keys: Keys

    @property
    def address(self) -> str:
        """What a person opens, with the token."""
        return f"http://{ADDRESS}:{self.port}/?token={self.keys.token}"

    @property
    def address_once(self) -> str:
        """What a browser is started with: it opens the page once."""
        return f"http://{ADDRESS}:{self.port}/?token={self.keys.ticket()}"

    def run(self) -> None:
        """Answer until it is asked to stop."""
        self.server.run(sockets=[self.socket])


@contextmanager
def serving(studio: Studio, port: int = 0) -> Iterator[Opened]:
    """A server around a studio, with its worker at work; afterwards both are closed.

    Args:
        studio: See ``open_studio``.
        port: To listen at; 0 takes a free one.

    Raises:
        PhotopicError: If the port is taken.
    """
    place = _listening(port)
    number = place.getsockname()[1]
    keys = Keys()
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs bytes of what it cannot read
    config = uvicorn.Config(
        Guarded(application(studio), keys, number),
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,  # it would write the token
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        http=protocol(Limits(send_seconds=HEADER_SECONDS, connections=CONNECTIONS), Counts()),
        timeout_graceful_shutdown=5,
    )
    try:
        studio.worker.start()
        yield Opened(Server(config, studio), place, number, keys)
    finally:
        studio.stream.close()
        studio.worker.stop()
        place.close()
        studio.workspace.close()


def _listening(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((ADDRESS, port))
    except OSError as error:
        made.close()
        said = (error.strerror or "").lower()
        raise PhotopicError(f"--port {port}: cannot be listened at ({said}); choose another, or 0") from None
    made.listen(128)
    return made
