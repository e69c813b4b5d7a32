"""What pages ask: state, methods, pictures, edits, jobs and the stream of events. Every answer is JSON, a picture or a file."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from photopic import __version__
from photopic.core.errors import DataError, printable
from photopic.core.files import finite, write_atomically
from photopic.studio.asking import Studio
from photopic.studio.fields import rows
from photopic.studio.guard import guards
from photopic.studio.pictures import PICTURE_BYTES
from photopic.studio.refusals import Refused
from photopic.studio.security import REQUEST_BYTES, RESULT_POLICY
from photopic.studio.settings import restored

FORM_FILES = 1000  # files of one request
# endings of files that methods read: weights, reports and rankings, bags of concepts, pictures
UPLOADS = (".safetensors", ".json", ".jsonl", ".txt", ".png", ".jpg", ".jpeg", ".webp")
TYPES = {
    "": "application/octet-stream", ".png": "image/png", ".jpg": "image/jpeg", ".json": "application/json",
    ".html": "text/html; charset=utf-8",
}  # fmt: skip


def state_routes(studio: Studio) -> APIRouter:
    """State, methods, the stream of events, the model."""
    api = APIRouter()

    @api.get("/api/state")
    def state() -> Any:
        last = studio.stream.last  # before the jobs: what happens meanwhile is told twice, not lost
        return JSONResponse(
            finite(
                {
                    "version": __version__,
                    "event": last,
                    "model": {**studio.models.state, "names": studio.models.names(DRAWS)},
                    "workspace": studio.workspace.folder.name,
                    "jobs": [job.summary() for job in studio.jobs.all()],
                    "models": studio.models.all(),
                    "limits": {"picture_bytes": PICTURE_BYTES, "request_bytes": REQUEST_BYTES, "pictures": FORM_FILES},
                    "nouns": studio.nouns(),
                    "subjects": studio.subjects(),
                    "schedulers": studio.schedulers(),
                    "reports": studio.reports(),
                }
            )
        )

    @api.get("/api/methods")
    def methods() -> Any:
        return rows(studio.models)

    @api.post("/api/model", status_code=202)
    async def model(request: Request) -> Any:
        name = str((await _json(request)).get("name", ""))
        return await run_in_threadpool(studio.ask, "model", {"name": name})

    @api.get("/api/events")
    async def events(request: Request) -> Response:
        said = request.headers.get("last-event-id") or request.query_params.get("after") or ""
        after = int(said) if said.isdecimal() and len(said) < 12 else None
        return StreamingResponse(studio.stream.events(after, request.is_disconnected), media_type="text/event-stream")

    @api.get("/api/reports/{name}")
    def report(name: str) -> Response:
        return Response(
            studio.report(name), media_type=TYPES[".html"], headers={"content-security-policy": RESULT_POLICY}
        )

    return api


KEPT = "private, max-age=31536000, immutable"
DRAWS = "photopic.models.text_to_image.handle:TextToImage"


def picture_routes(studio: Studio) -> APIRouter:
    """Pictures and other files that are uploaded."""
    api = APIRouter()

    @api.post("/api/pictures")
    async def add(request: Request) -> Any:
        kept: list[dict[str, Any]] = []
        refused: list[dict[str, str]] = []
        async with request.form(max_files=FORM_FILES) as form:
            for upload in _files(form):
                name = upload.filename or "picture"
                try:
                    content = await _content(upload, PICTURE_BYTES)
                    kept.append(await run_in_threadpool(_kept, studio, name, content))
                except DataError as error:
                    refused.append({"name": printable(name)[-120:], "error": str(error)})
        if not kept and not refused:
            raise Refused(400, "expected pictures as files of multipart/form-data, found none", field="files")
        return {"pictures": kept, "refused": refused}

    @api.get("/api/pictures/{key}")
    def show(key: str, size: int | None = None) -> Response:
        content, kind = studio.pictures.shown(key, size)
        return Response(content, media_type=kind, headers={"cache-control": KEPT})

    @api.post("/api/examples")
    def examples() -> Any:
        return studio.examples()

    @api.post("/api/uploads")
    async def upload(request: Request) -> Any:
        async with request.form(max_files=1) as form:
            found = next(iter(_files(form)), None)
            if found is None:
                raise Refused(400, "expected a file of multipart/form-data, found none", field="file")
            name, content = printable(found.filename or "")[-120:], await found.read()
        ending = next((each for each in UPLOADS if name.lower().endswith(each)), None)
        if ending is None:
            raise Refused(415, f"{name}: expected a name that ends in {' or '.join(UPLOADS)}", field="file")
        key = hashlib.sha256(content).hexdigest()[:32]
        await run_in_threadpool(
            write_atomically, studio.workspace.uploaded("uploads", key).with_suffix(ending), content
        )
        return {"id": key, "name": name, "bytes": len(content)}

    return api


def _kept(studio: Studio, name: str, content: bytes) -> dict[str, Any]:
    """A picture that was kept, with the form of its settings."""
    found = studio.pictures.add(name, content)
    text = found.pop("text")
    return {**found, "settings": restored(text, studio.library, studio.pictures) if text else None}


def edit_routes(studio: Studio) -> APIRouter:
    """The library of edits."""
    api = APIRouter()
    library = studio.library

    @api.get("/api/edits")
    def all_edits() -> Any:
        return JSONResponse(finite(library.all()))

    @api.post("/api/edits", status_code=201)
    async def add(request: Request) -> Any:
        added = []
        async with request.form(max_files=FORM_FILES) as form:
            for upload in _files(form):
                added.append(await run_in_threadpool(library.add, upload.filename or "", await upload.read()))
        if not added:
            raise Refused(400, "expected edit files of multipart/form-data, found none", field="files")
        studio.stream.publish("edits", {"added": added[-1]["name"]})
        return {"edits": finite(added)}

    @api.post("/api/edits/diff")
    async def difference(request: Request) -> Any:
        said = await _json(request)
        return await run_in_threadpool(library.diff, str(said.get("a")), str(said.get("b")))

    @api.post("/api/edits/interference")
    async def interference(request: Request) -> Any:
        return await run_in_threadpool(library.interference, _names(await _json(request)))

    @api.post("/api/edits/verify", status_code=202)
    async def verify(request: Request) -> Any:
        name = (await _json(request)).get("name")
        studio.workspace.edit(name, exists=True)  # type: ignore[arg-type]  # anything else is refused there
        form = {"command": "edit verify", "fields": {"edit": name}}
        return await run_in_threadpool(studio.ask, "method", form)

    @api.post("/api/edits/compose", status_code=201)
    async def compose(request: Request) -> Any:
        said = await _json(request)
        return await run_in_threadpool(studio.compose, _names(said), said)

    @api.get("/api/edits/{name}/view")
    def view(name: str) -> Any:
        return library.view(name)

    @api.get("/api/edits/{name}")
    def download(name: str) -> Response:
        return FileResponse(studio.workspace.edit(name, exists=True), filename=name, media_type=TYPES[""])

    @api.delete("/api/edits/{name}", status_code=204)
    def remove(name: str) -> Response:
        library.remove(name)
        studio.stream.publish("edits", {"removed": name})
        return Response(status_code=204)

    return api


def guard_routes(studio: Studio) -> APIRouter:
    """The guards that were fitted here."""
    api = APIRouter()

    @api.get("/api/guards")
    def all_guards() -> Any:
        return JSONResponse(finite(guards(studio.workspace)))

    @api.get("/api/guards/{name}")
    def download(name: str) -> Response:
        return FileResponse(studio.workspace.guard(name, exists=True), filename=name, media_type=TYPES[""])

    @api.delete("/api/guards/{name}", status_code=204)
    def remove(name: str) -> Response:
        studio.workspace.guard(name, exists=True).unlink()
        studio.stream.publish("guards", {"removed": name})
        return Response(status_code=204)

    return api


def job_routes(studio: Studio) -> APIRouter:
    """Jobs and the files they made."""
    api = APIRouter()

    @api.get("/api/jobs")
    def all_jobs() -> Any:
        return JSONResponse(finite([job.summary() for job in studio.jobs.all()]))

    @api.post("/api/jobs", status_code=202)
    async def ask(request: Request) -> Any:
        said = await _json(request)
        return await run_in_threadpool(studio.ask, said.get("kind"), said.get("form"))

    @api.get("/api/jobs/{job}")
    def one(job: str) -> Any:
        return JSONResponse(finite(studio.detail(job)))

    @api.delete("/api/jobs/{job}")
    def cancel(job: str) -> Any:
        return studio.cancel(job)

    @api.post("/api/jobs/{job}/again", status_code=202)
    async def again(job: str, request: Request) -> Any:
        return await run_in_threadpool(studio.again, job, (await _json(request)).get("changes"))

    @api.get("/api/files/{job}/{name}")
    def file(job: str, name: str) -> Response:
        path = studio.jobs.file(job, name)
        kind = TYPES.get(path.suffix, TYPES[""])
        headers = {"content-security-policy": RESULT_POLICY} if path.suffix == ".html" else {}
        headers |= {"cache-control": KEPT} if path.suffix == ".png" else {}  # the same settings draw the same bytes
        return FileResponse(path, media_type=kind, headers=headers)

    return api


async def _json(request: Request) -> dict[str, Any]:
    """The object that a request sends.

    Raises:
        Refused: If it is none.
    """
    try:
        found = await request.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "expected a JSON object, found something else")
    return found


def _names(said: dict[str, Any]) -> list[str]:
    names = said.get("names")
    if not isinstance(names, list) or len(names) < 2 or len(names) > 32:
        raise Refused(422, "names: expected two edits or more, at most 32", field="names")
    return names


def _files(form: Any) -> list[UploadFile]:
    return [each for _, each in form.multi_items() if isinstance(each, UploadFile)]


async def _content(upload: UploadFile, limit: int) -> bytes:
    """A file of a form, of which no more is read than may be."""
    content = await upload.read(limit + 1)
    if len(content) > limit:
        raise DataError(
            f"{printable(upload.filename or 'file')[-120:]}: expected at most {limit:,} bytes, found more; save it smaller"
        )
    return content
