"""The application: routes, errors as one line of JSON, and the page's own files."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from photopic.calls.problems import line_of
from photopic.core.errors import FieldError, PhotopicError
from photopic.studio.asking import BODIES, Studio
from photopic.studio.jobs import Jobs
from photopic.studio.library import Library
from photopic.studio.models import Models
from photopic.studio.pictures import Pictures
from photopic.studio.refusals import Refused
from photopic.studio.routes import edit_routes, guard_routes, job_routes, picture_routes, state_routes
from photopic.studio.stream import Stream
from photopic.studio.worker import Worker
from photopic.studio.workspace import Workspace

THREADS = 8  # that answer requests
LOG = logging.getLogger("photopic.studio")
TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".json": "application/json", ".txt": "text/plain",
}  # fmt: skip


def open_studio(
    workspace: str | Path, model: str, *, others: tuple[str, ...] = (), device: str | None = None
) -> Studio:
    """A studio over a folder, its worker not yet started.

    Args:
        workspace: Made if missing.
        model: The text-to-image model to begin with.
        others: Further models that methods may use.
        device: Where to compute; None takes the fastest.

    Raises:
        PhotopicError: If another studio works in the folder, or a model is not there.
    """
    stream = Stream()
    models = Models(stream, model, others, device)  # first: where it refuses nothing is left behind
    place = Workspace(workspace)
    jobs, pictures = Jobs(place, stream), Pictures(place)
    return Studio(place, jobs, models, pictures, Library(place), Worker(jobs, models, pictures, BODIES))


def application(studio: Studio) -> FastAPI:
    """The application of a studio, to be put behind ``security.Guarded``."""
    app = FastAPI(title="photopic studio", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_few_threads)
    app.state.workspace = studio.workspace
    for routes in (state_routes, picture_routes, edit_routes, guard_routes, job_routes):
        app.include_router(routes(studio))
    static = _static_files()

    @app.get("/{path:path}")
    def page(path: str) -> Response:
        file = static.get(path or "index.html")
        if file is None and path:
            raise Refused(404, "expected an address of the studio, found another")
        if file is None:
            return PlainTextResponse("photopic studio: its page is not built; see docs/studio.md", status_code=503)
        return FileResponse(file, media_type=TYPES[file.suffix])

    for kind, answer in ((PhotopicError, _refused), (OSError, _refused), (RequestValidationError, _invalid)):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _broken_off)
    app.add_exception_handler(Exception, _failed)
    return app


@asynccontextmanager
async def _few_threads(_: FastAPI) -> AsyncIterator[None]:
    """A page needs few at a time, and the memory that each keeps for itself adds up."""
    current_default_thread_limiter().total_tokens = THREADS
    yield


def _static_files() -> dict[str, Path]:
    """The built page by its addresses; nothing else of the disk is ever looked for."""
    folder = Path(str(resources.files("photopic.studio").joinpath("static")))
    files = [each for each in folder.rglob("*") if each.is_file() and each.suffix in TYPES] if folder.is_dir() else []
    return {each.relative_to(folder).as_posix(): each for each in files}


def _error(status: int, reason: str, field: str | None = None) -> JSONResponse:
    return JSONResponse({"error": reason, "field": field}, status_code=status)


async def _refused(request: Request, error: Exception) -> Response:
    line = line_of(error)
    if line is None:
        return await _failed(request, error)
    line = request.app.state.workspace.said(line)
    if isinstance(error, Refused):
        return _error(error.status, line, error.field)
    return _error(400, line, error.field if isinstance(error, FieldError) else None)


async def _invalid(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    return _error(422, f"{first['loc'][-1]}: {first['msg']}", str(first["loc"][-1]))


async def _http(request: Request, error: Any) -> Response:
    return _error(error.status_code, str(error.detail))


async def _broken_off(request: Request, error: Exception) -> Response:
    return _error(413, "expected a whole request within the limits, found one that was broken off or larger")


async def _failed(request: Request, error: Exception) -> Response:
    LOG.error("%s failed", request.scope["path"], exc_info=error)
    return _error(500, f"{type(error).__name__} (a bug; the terminal of photopic studio shows where)")
