"""Who may ask: only pages of this server, in a browser that was shown the token it printed.

Every request passes here before anything of it is read. A page elsewhere is refused by its Host, its Origin, what the browser says
of where the request came from, and because a cookie of ``SameSite=Strict`` does not travel with it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_BYTES = 200 * 2**20
JSON_BYTES = 4 * 2**20
DRAIN_S = 2.0
READING = ("GET", "HEAD")
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-src 'self'; frame-ancestors 'none'"
)
# a result's own page: no script, nothing fetched, an origin of its own; the studio may show it in a frame
RESULT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox"


class Keys:
    """The token of one start, and tickets that are exchanged for it once.

    A ticket is what a browser is opened with: the words of a command can be read by other users of the machine.

    Example:
        >>> keys = Keys()
        >>> ticket = keys.ticket()
        >>> keys.opens(ticket), keys.opens(ticket), keys.opens(keys.token)
        (True, False, True)
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)  # 256 bits
        self._tickets: set[str] = set()

    def ticket(self) -> str:
        """A word that opens the page once."""
        self._tickets.add(made := secrets.token_urlsafe(32))
        return made

    def opens(self, word: str) -> bool:
        """Whether a word of an address is the token, or a ticket that was not used yet."""
        if word in self._tickets:
            self._tickets.discard(word)
            return True
        return self.is_token(word)

    def is_token(self, word: str) -> bool:
        """Whether a word is the token; how long that takes says nothing of it."""
        return hmac.compare_digest(word.encode(), self.token.encode())


class Guarded:
    """An application behind the checks.

    Args:
        application: What answers those who may ask.
        keys: What lets them in.
        port: That it listens at, part of its name.
    """

    def __init__(self, application: Application, keys: Keys, port: int):
        self.application, self.keys = application, keys
        self.cookie = f"photopic_studio_{port}"  # cookies know no ports: two studios would take each other's
        names = [f"{host}:{port}" for host in ("127.0.0.1", "localhost")]
        self.hosts = [*names, *(("127.0.0.1", "localhost") if port == 80 else ())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not."""
        if scope["type"] == "lifespan":
            return await self.application(scope, receive, send)
        if scope["type"] != "http":
            return None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        answer = self._refusal(scope, headers) or self._entrance(scope, headers)
        if answer is not None:
            return await _answer(send, *answer)
        limited = _Limited(receive, headers)
        if limited.claimed_too_much:
            await limited.drain()
            return await _answer(send, 413, limited.reason)
        return await self.application(scope, limited.receive, _with_headers(send, scope["path"]))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Why a request is none of a page of ours."""
        host, origin, site = (headers.get(name, "") for name in ("host", "origin", "sec-fetch-site"))
        if host not in self.hosts:
            return 421, f"expected the address {self.hosts[0]}, found another Host"
        if origin and origin != f"http://{host}":
            return 403, "expected a page of this studio, found another Origin"
        # a link elsewhere may open the page itself, at the top of a window and nowhere else
        opens = (scope["method"], scope["path"], headers.get("sec-fetch-dest")) == ("GET", "/", "document")
        if site not in ("", "same-origin", "none") and not opens:
            return 403, "expected a page of this studio, found a request from another site"
        if scope["method"] not in READING and not origin and site != "same-origin":
            return 403, "expected a page of this studio, found a request that does not say where it comes from"
        return None

    def _entrance(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | tuple[int, str, list[Any]] | None:
        """The way in by the printed address, or a refusal without the cookie."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["method"] == "GET" and scope["path"] == "/" and "token" in query:
            if not self.keys.opens(query["token"][0]):
                return 401, "expected the token that photopic studio printed, found another; it is new at each start"
            cookie = f"{self.cookie}={self.keys.token}; HttpOnly; SameSite=Strict; Path=/"
            return 303, "", [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        if not self.keys.is_token(self._cookie_of(headers.get("cookie", ""))):
            return 401, "expected the address that photopic studio printed, found no token; open that address"
        return None

    def _cookie_of(self, header: str) -> str:
        try:
            found = SimpleCookie(header).get(self.cookie)
        except CookieError:
            return ""
        return found.value if found else ""


class _Limited:
    """A body that ends at the limit: whoever reads on is told that its sender has gone."""

    def __init__(self, receive: Receive, headers: dict[str, str]):
        is_form = headers.get("content-type", "").startswith("multipart/form-data")
        self.limit = REQUEST_BYTES if is_form else JSON_BYTES
        claimed = headers.get("content-length", "0")
        self.claimed_too_much = not claimed.isdecimal() or int(claimed) > self.limit
        self.reason = f"expected a request of at most {self.limit:,} bytes, found {claimed[:20]}"
        self._receive, self._read = receive, 0

    async def receive(self) -> MutableMapping[str, Any]:
        """The next piece, or the end of a sender that sends too much."""
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read <= self.limit:
            return message
        await self.drain(more=message.get("more_body", False))
        return {"type": "http.disconnect"}

    async def drain(self, *, more: bool = True) -> None:
        """Read on for a moment and keep nothing: who still sends would not read why it is refused."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while more:
                    more = (await self._receive()).get("more_body", False)


def headers_for(path: str) -> Iterable[tuple[bytes, bytes]]:
    """What every answer carries."""
    yield b"x-content-type-options", b"nosniff"
    yield b"referrer-policy", b"no-referrer"
    yield b"cross-origin-resource-policy", b"same-origin"
    yield b"cross-origin-opener-policy", b"same-origin"
    yield b"content-security-policy", PAGE_POLICY.encode()
    yield b"cache-control", b"no-store" if path.startswith("/api/") or path == "/" else b"no-cache"


def _with_headers(send: Send, path: str) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message.get("headers", [])}
            more = [each for each in headers_for(path) if each[0] not in there]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, reason: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    body = json.dumps({"error": reason, "field": None}).encode() if reason else b""
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    if reason:  # what is still on its way is not read
        own.append((b"connection", b"close"))
    start = {"type": "http.response.start", "status": status, "headers": [*own, *headers_for("/api/")]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
