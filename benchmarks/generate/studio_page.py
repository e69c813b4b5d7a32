"""A page's side of a studio, without a browser: it has the cookie, says where it is from, and waits for jobs."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from photopic.studio.jobs import ENDED

JobState = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The value that the body says."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The line of a refusal."""
        said: str = self.json["error"]
        return said


class Page:
    """A page of the studio at a port.

    Args:
        port: Of this machine.
        token: That it printed.
    """

    def __init__(self, port: int, token: str):
        self.port = port
        cookie, origin = f"photopic_studio_{port}={token}", f"http://127.0.0.1:{port}"
        self.headers = {"Cookie": cookie, "Origin": origin}

    def ask(self, method: str, path: str, body: Any = None, *, without: tuple[str, ...] = (), **headers: str) -> Answer:
        """One request on a connection of its own; ``without`` leaves headers out, others are added or take their place."""
        said = {name: value for name, value in self.headers.items() if name not in without}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, content, said)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """What an address says; it has to answer."""
        answer = self.ask("GET", path)
        assert answer.status == 200, answer.body
        return answer.json

    def file(self, result: Mapping[str, Any]) -> bytes:
        """The bytes of a result."""
        answer = self.ask("GET", result["url"])
        assert answer.status == 200, answer.body
        return answer.body

    def upload(self, path: str, files: Mapping[str, bytes]) -> Answer:
        """Send files as a form does."""
        lines = [
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="' + name.encode() + b'"\r\n\r\n' + content
            for name, content in files.items()
        ]
        content = b"\r\n".join([*lines, b"--x--\r\n"])
        return self.ask("POST", path, content, Content_Type="multipart/form-data; boundary=x")

    def start(self, kind: str, form: Mapping[str, Any]) -> str:
        """Put a job into the queue; returns its number."""
        answer = self.ask("POST", "/api/jobs", {"kind": kind, "form": form})
        assert answer.status == 202, answer.body
        job: str = answer.json["id"]
        return job

    def wait(self, job: str, until: Callable[[JobState], bool] = lambda job: job["state"] in ENDED) -> JobState:
        """A job once it has come so far; a minute at most."""
        end = time.monotonic() + 60
        while not until(found := self.get(f"/api/jobs/{job}")):
            assert time.monotonic() < end and found["state"] not in ENDED, f"job {job} does not come so far: {found}"
            time.sleep(0.02)
        reached: JobState = found
        return reached

    def do(self, kind: str, form: Mapping[str, Any]) -> JobState:
        """A job from its start to its end, which has to be a good one."""
        found = self.wait(self.start(kind, form))
        assert found["state"] == "done", found["error"]
        return found


class Tab:
    """What one tab hears, by the number of each event.

    Args:
        page: Whose cookie it has.
        after: The number of the last event it knows; None begins now.
    """

    def __init__(self, page: Page, after: int | None = None):
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
        self._connection.request(
            "GET", "/api/events" + ("" if after is None else f"?after={after}"), headers=page.headers
        )
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        said: dict[str, str] = {}
        try:
            for line in iter(self._answer.readline, b""):
                name, _, value = line.decode().rstrip("\n").partition(": ")
                said[name] = value
                if line == b"\n":
                    if "event" in said:
                        self.events.append((int(said.get("id", 0)), said["event"], json.loads(said["data"])))
                    said = {}
        except (OSError, AttributeError, ValueError, http.client.HTTPException):
            return  # closed

    def close(self) -> None:
        """Leave in the middle, as a tab that is closed does."""
        if self._connection.sock is not None:
            with suppress(OSError):  # it has ended by itself
                self._connection.sock.shutdown(socket.SHUT_RDWR)  # close alone waits for whoever reads from it
            self._connection.sock.close()

    def kinds(self, job: str) -> list[str]:
        """The events that are of a job."""
        return [kind for _, kind, data in self.events if job in (data.get("id"), data.get("job"))]

    def states(self, job: str) -> list[str]:
        """The states a job was in, one after the other."""
        found = [data["state"] for _, kind, data in self.events if kind == "job" and data["id"] == job]
        return [state for index, state in enumerate(found) if index == 0 or found[index - 1] != state]

    def until(self, heard: Callable[[Tab], bool]) -> Tab:
        """The same once it has heard something; half a minute at most."""
        end = time.monotonic() + 30
        while not heard(self):
            assert time.monotonic() < end, f"not heard: {self.events[-3:]}"
            time.sleep(0.02)
        return self
