"""What a studio does when it is asked: jobs are checked and put into the queue, everything else is looked up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.responses import JSONResponse

from photopic.core.errors import OverlapError
from photopic.core.events import Event
from photopic.core.files import finite
from photopic.studio import demo, draw, guard, method, subject
from photopic.studio.jobs import Job, Jobs
from photopic.studio.library import OVERLAPS, Library
from photopic.studio.models import Models
from photopic.studio.outcomes import VIEW
from photopic.studio.pictures import Pictures
from photopic.studio.refusals import Refused
from photopic.studio.worker import Body, Work, Worker
from photopic.studio.workspace import FOLDERS, Workspace

REPORT = "index.html"  # of a folder that ``photopic demo`` wrote
REPORT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,99}")
REPORT_BYTES = 64 * 2**20
EXAMPLE_SIDE = 64  # pixels, where no model says its own


def change_model(work: Work) -> Iterator[Event[Any]]:
    """Make another model the one that draws."""
    yield Event("loading")
    work.models.load(work.job.form["name"])
    yield Event("loading", 1, 1)


BODIES: Mapping[str, Body] = {
    "draw": draw.draw, "subject": subject.teach, "method": method.run_method, "check": guard.judge, "demo": demo.demonstrate,
    "model": change_model,
}  # fmt: skip


@dataclass
class Studio:
    """Everything behind the page."""

    workspace: Workspace
    jobs: Jobs
    models: Models
    pictures: Pictures
    library: Library
    worker: Worker

    @property
    def stream(self) -> Any:
        """Where changes are told."""
        return self.jobs.stream

    def ask(self, kind: Any, form: Any) -> dict[str, Any]:
        """A new job.

        Args:
            kind: Of ``BODIES``.
            form: What it is to do.

        Raises:
            Refused: Names what does not fit.
        """
        if not isinstance(kind, str) or kind not in BODIES:
            raise Refused(422, f"kind: expected one of {', '.join(BODIES)}, found {kind!r}"[:200], field="kind")
        if not isinstance(form, dict):
            raise Refused(422, "form: expected an object, found something else", field="form")
        title, checked = self._checked(kind, form)
        job = self.jobs.create(kind, title[:200], checked)
        self.worker.submit(job)
        return asdict(job)

    def _checked(self, kind: str, form: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        if kind == "draw":
            return draw.check(form, self.workspace, self.pictures)
        if kind == "subject":
            return subject.check(form, self.workspace, self.pictures)
        if kind == "check":
            return guard.check(form, self.workspace, self.pictures)
        if kind == "demo":
            return demo.check(form)
        if kind == "model":
            name = self.models.check(str(form.get("name", "")), "photopic.models.text_to_image.handle:TextToImage")
            return f"load {name}", {"name": name}
        return method.check(form, workspace=self.workspace, pictures=self.pictures, models=self.models)

    def detail(self, key: str) -> dict[str, Any]:
        """All of a job: its form and provenance, its curve, its views and their numbers."""
        job = self.jobs.get(key)
        found = {**asdict(job), "curve": self.jobs.curve(job)}
        for each in found["results"]:
            if each["kind"] == "view":
                each["view"] = json.loads((self.jobs.folder(job) / VIEW).read_text())
            if "data_file" in each:
                each["data"] = json.loads((self.jobs.folder(job) / each["data_file"]).read_text())
        return found

    def cancel(self, key: str) -> dict[str, Any]:
        """Stop a job; one that is over is forgotten with its files."""
        job = self.jobs.get(key)
        if job.state in ("waiting", "running"):
            self.worker.cancel(job)
        else:
            self.jobs.remove(job)
        return job.summary()

    def again(self, key: str, changes: Any) -> dict[str, Any]:
        """The same once more with some fields changed; an interrupted job without a change goes on where it was.

        Raises:
            Refused: If it still runs, or a change does not fit.
        """
        job = self.jobs.get(key)
        if changes is not None and not isinstance(changes, dict):
            raise Refused(422, "changes: expected an object, found something else", field="changes")
        if job.state == "interrupted" and not changes:
            self.worker.again(job)
            return asdict(job)
        return self.ask(job.kind, _changed(job, changes or {}))

    def compose(self, names: list[str], said: Mapping[str, Any]) -> Any:
        """Make one edit of several, or say where they touch.

        Raises:
            Refused: If what is asked for does not fit.
        """
        overlap, weights = said.get("overlap") or "error", said.get("weights")
        if overlap not in ("error", *OVERLAPS):
            raise Refused(
                422, f"overlap: expected error, {', '.join(OVERLAPS)}, found {overlap!r}"[:200], field="overlap"
            )
        if weights is not None and not (
            isinstance(weights, list) and all(isinstance(each, int | float) for each in weights)
        ):
            raise Refused(422, "weights: expected a number for each edit, found something else", field="weights")
        output = said.get("output") or ""
        self.workspace.free("edit", output)
        try:
            if overlap in ("sum", "ties") or set(weights or [1.0]) != {
                1.0
            }:  # needs the base, which the worker alone has
                fields = {"edits": names, "overlap": overlap, "weights": weights, "output": output}
                form = {"command": "edit compose", "fields": fields | {"model": self.models.state["name"]}}
                return JSONResponse({"job": self.ask("method", form)}, status_code=202)
            made = self.library.compose(names, overlap, output)
        except OverlapError as error:
            body = {"error": str(error), "field": "overlap", "overlaps": list(OVERLAPS)}
            return JSONResponse({**body, "view": self.library.interference(names)}, status_code=409)
        self.stream.publish("edits", {"added": made["name"]})
        return JSONResponse({"edit": finite(made)}, status_code=201)

    def examples(self) -> dict[str, Any]:
        """Five pictures of a thing that no bundled model has seen, put among the uploads: to try the room Subject with."""
        from photopic.demo.teach import DemoConfig, make_references

        config, size = DemoConfig(), self.models.state["size"] or EXAMPLE_SIDE
        with TemporaryDirectory(dir=self.workspace.folder / "uploads") as folder:
            make_references(Path(folder), config, size)
            files = sorted(Path(folder).glob("*.png"))
            captions = [path.with_suffix(".txt").read_text().strip() for path in files]
            kept = [self.pictures.add(path.name, path.read_bytes()) for path in files]
        pictures = [{**each, "caption": caption} for each, caption in zip(kept, captions, strict=True)]
        return {
            "pictures": pictures,
            "noun": config.noun,
            "token": config.token,
            "prompt": f"a {config.token} {config.noun}",
        }

    def nouns(self) -> list[str]:
        """Words that the bundled models know, for an input to offer."""
        from photopic.data.splits import KNOWN

        return sorted(KNOWN)

    def subjects(self) -> list[str]:
        """Things that no bundled model has seen, for the demo."""
        from photopic.data.splits import SUBJECTS

        return sorted(SUBJECTS)

    def schedulers(self) -> list[str]:
        """Samplers by name, once torch is there."""
        import sys

        known = sys.modules.get("photopic.models.text_to_image.schedulers")
        return list(getattr(known, "SCHEDULERS", ()))  # empty while the worker is still importing it

    def reports(self) -> list[dict[str, str]]:
        """Folders of the workspace that ``photopic demo`` wrote a report into."""
        folders = [
            each for each in self.workspace.folder.iterdir() if REPORT_NAME.fullmatch(each.name) and each.is_dir()
        ]
        names = sorted(each.name for each in folders if each.name not in FOLDERS and (each / REPORT).is_file())
        return [{"name": name, "url": f"/api/reports/{name}"} for name in names]

    def report(self, name: str) -> bytes:
        """The page of such a folder.

        Raises:
            Refused: If there is none of that name.
        """
        path: Path = self.workspace.folder / name / REPORT
        known = [each["name"] for each in self.reports()]
        if name not in known or path.is_symlink() or path.parent.is_symlink() or path.stat().st_size > REPORT_BYTES:
            raise Refused(404, f"report: expected one of {', '.join(known) or 'none yet'}, found {name[:80]!r}")
        return path.read_bytes()


def _changed(job: Job, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The form of a job with some of its fields changed; a name that its result took is found anew."""
    form = _merged(job.form, changes)
    inner = form.get("fields") if job.kind == "method" else form
    if isinstance(inner, dict) and "output" not in (changes.get("fields", {}) if job.kind == "method" else changes):
        inner.pop("output", None)
    return form


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Objects are merged, everything else is replaced; what is merged is a copy."""
    both = {name: _merged(old.get(name) or {}, value) for name, value in new.items() if isinstance(value, dict)}
    kept = {name: dict(value) if isinstance(value, dict) else value for name, value in old.items()}
    return {**kept, **new, **both}
