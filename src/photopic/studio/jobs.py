"""Jobs: what was asked for, how far it is and what came of it; kept in the workspace, so that they are there after a restart."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from dataclasses import field as made
from pathlib import Path
from typing import Any, Literal

from photopic.core.events import Event
from photopic.core.files import finite, write_atomically
from photopic.core.runs import goes_on
from photopic.studio.refusals import Refused
from photopic.studio.stream import Stream
from photopic.studio.workspace import JOB_ID, Workspace

State = Literal["waiting", "running", "done", "failed", "cancelled", "interrupted"]
ENDED = ("done", "failed", "cancelled", "interrupted")
RECORD = "job.json"
CURVE = "curve.jsonl"  # one line a step that measured something
CHECKPOINTS = "checkpoints"  # folder of what an interrupted job goes on from
LONG = ("form", "provenance")  # what is told once and not with every step
TOLD_EVERY_S = 0.1  # between two tellings of a job that only went a step further
WARNINGS = 50  # of a job that are kept


@dataclass(eq=False)
class Job:
    """One job.

    Attributes:
        id: Its number, six digits.
        kind: ``draw``, ``subject``, ``method``, ``demo``, ``verify`` or ``model``.
        title: What a person calls it.
        form: What was asked for.
        state: Where it is.
        created: Seconds since 1970.
        started: When it began to run.
        ended: When it came to an end, whichever.
        stage: What goes on.
        done: Steps of the stage.
        total: Steps of the stage in all, 0 where that is not known.
        eta_s: Seconds the stage still takes at the pace so far.
        numbers: What the last step measured.
        warnings: What the user should see.
        error: Why it failed, one line.
        field: Of the form, where that is at fault.
        provenance: Where its result comes from.
        results: What came of it, see ``result``.
        samples: Pictures drawn while it was at work.
    """

    id: str
    kind: str
    title: str
    form: dict[str, Any]
    state: State = "waiting"
    created: float = made(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    stage: str = ""
    done: int = 0
    total: int = 0
    eta_s: float | None = None
    numbers: dict[str, float] = made(default_factory=dict)
    warnings: list[str] = made(default_factory=list)
    error: str | None = None
    field: str | None = None
    provenance: dict[str, Any] = made(default_factory=dict)
    results: list[dict[str, Any]] = made(default_factory=list)
    samples: list[dict[str, Any]] = made(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """What is told with every step."""
        found = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in LONG}
        return {**found, "results": [dict(each) for each in self.results]}


def result(kind: str, name: str, url: str, **more: Any) -> dict[str, Any]:
    """What came of a job, as pages know it: a ``picture``, ``edit``, ``page``, ``view`` or ``file`` at an address."""
    empty: dict[str, Any] = {"width": None, "height": None, "seed": None, "view": None, "data": None, "words": []}
    return {"kind": kind, "name": name, "url": url, **empty, **more}


class Jobs:
    """All jobs of a workspace, from any thread.

    Args:
        workspace: Where they are kept.
        stream: Where changes are told.
    """

    def __init__(self, workspace: Workspace, stream: Stream):
        self.workspace, self.stream = workspace, stream
        self._lock = threading.RLock()
        self._told: dict[str, float] = {}
        self._paces: dict[str, tuple[int, float]] = {}  # of what runs: steps done at the stage's first event, and when
        self._jobs = {job.id: job for job in _read(workspace)}
        numbers = [int(path.name) for path in (workspace.folder / "runs").iterdir() if JOB_ID.fullmatch(path.name)]
        self._last = max(numbers, default=0)  # the highest there ever was: an address never means another file

    def all(self) -> list[Job]:
        """Every job, the newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)

    def get(self, job: str) -> Job:
        """One job.

        Raises:
            Refused: If there is none.
        """
        with self._lock:
            if job not in self._jobs:
                raise Refused(404, f"job: expected the number of a job, found {job[:40]!r}")
            return self._jobs[job]

    def folder(self, job: Job) -> Path:
        """Where a job's files are; made now."""
        folder = self.workspace.run(job.id)
        folder.mkdir(exist_ok=True)
        return folder

    def create(self, kind: str, title: str, form: Mapping[str, Any]) -> Job:
        """A new job that waits."""
        with self._lock:
            self._last += 1
            job = Job(f"{self._last:06d}", kind, title, dict(form))
            self._jobs[job.id] = job
            self.save(job)
        return job

    def save(self, job: Job) -> None:
        """Write a job and tell all of it: it changed its state, or has a result more."""
        with self._lock:
            content = json.dumps(finite(asdict(job)), ensure_ascii=False, indent=1)
            try:
                write_atomically(self.folder(job) / RECORD, content.encode())
            finally:  # a full disk takes the record, not the news
                self.stream.publish("job", asdict(job))

    def begin(self, job: Job) -> None:
        """It runs now, from the start or from its checkpoints."""
        for each in (*job.results, *job.samples):
            (self.folder(job) / each["file"]).unlink(missing_ok=True) if each.get("file") else None
        if not goes_on(self.folder(job) / CHECKPOINTS):
            (self.folder(job) / CURVE).unlink(missing_ok=True)
        job.results, job.samples, job.warnings, job.numbers = [], [], [], {}
        job.state, job.started, job.ended, job.error, job.field = "running", time.time(), None, None, None
        self.save(job)

    def end(self, job: Job, state: State, error: str | None = None, field: str | None = None) -> None:
        """It is over; what it could go on from goes unless it was interrupted."""
        if state != "interrupted":  # first: whoever sees that the job is over finds nothing left
            shutil.rmtree(self.folder(job) / CHECKPOINTS, ignore_errors=True)
        job.state, job.error, job.field, job.ended, job.eta_s = state, error, field, time.time(), None
        self._told.pop(job.id, None), self._paces.pop(job.id, None)
        self.save(job)

    def progress(self, job: Job, event: Event[Any]) -> None:
        """A step further: told at once where a stage begins or warns, else a few times a second; numbers are told all."""
        is_new = event.stage != job.stage or bool(event.warning)
        job.eta_s = event.eta_s or self._left_s(job, event)
        job.stage, job.done, job.total = event.stage, event.done, event.total
        if event.warning:
            self.warn(job, event.warning)
        if event.numbers:
            job.numbers = {name: float(value) for name, value in event.numbers.items()}
            point = {"step": event.done, "stage": event.stage, "numbers": finite(job.numbers)}
            with (self.folder(job) / CURVE).open("a") as file:
                file.write(json.dumps(point) + "\n")
            self.stream.publish("numbers", {"job": job.id, **point})
        now = time.monotonic()
        if is_new or now - self._told.get(job.id, 0.0) >= TOLD_EVERY_S:
            self._told[job.id] = now
            self.stream.publish("job", job.summary())

    def _left_s(self, job: Job, event: Event[Any]) -> float | None:
        """Seconds that a stage still takes at the pace since its first event here."""
        now = time.monotonic()
        if event.stage != job.stage or job.id not in self._paces:
            self._paces[job.id] = (event.done, now)
        first, began = self._paces[job.id]
        return (now - began) / (event.done - first) * (event.total - event.done) if event.done > first else None

    def warn(self, job: Job, text: str) -> None:
        """Keep a remark for the user, once."""
        line = " ".join(text.split())
        if line not in job.warnings and len(job.warnings) < WARNINGS:
            job.warnings.append(line)

    def curve(self, job: Job) -> list[list[Any]]:
        """What its steps measured: (step, numbers, stage) each."""
        path = self.folder(job) / CURVE
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        points = [json.loads(line) for line in lines if line.endswith("\n")]  # a kill may cut the last one
        last = {(point["stage"], point["step"]): point["numbers"] for point in points}  # what was done again counts
        return [[step, numbers, stage] for (stage, step), numbers in last.items()]

    def remove(self, job: Job) -> None:
        """Forget a job that is over, with its folder."""
        with self._lock:
            self._jobs.pop(job.id, None)
            shutil.rmtree(self.workspace.run(job.id), ignore_errors=True)
        self.stream.publish("removed", {"job": job.id})

    def file(self, job: str, name: str) -> Path:
        """A file that a job made, by the name it was told under; no other is ever served.

        Raises:
            Refused: If the job made none of that name.
        """
        found = self.get(job)
        names = [each.get("file") for each in (*found.results, *found.samples)]
        names += [each["data_file"] for each in found.results if "data_file" in each]
        names += [file for each in found.results for file in each.get("files", ())]
        path = self.workspace.run(job) / name
        if name not in names or path.is_symlink() or not path.is_file():
            raise Refused(404, f"{name[:80]}: expected a file of job {job}, found none")
        return path


def _read(workspace: Workspace) -> Iterator[Job]:
    """The jobs of the folder; one that ran when the last server ended was interrupted."""
    names = {each.name for each in fields(Job)}
    for folder in sorted((workspace.folder / "runs").iterdir()):
        path = folder / RECORD
        if not JOB_ID.fullmatch(folder.name) or not path.is_file():
            continue
        try:
            said = json.loads(path.read_text())
            job = Job(**{name: value for name, value in said.items() if name in names})
        except (ValueError, TypeError, AttributeError):
            continue  # what somebody else wrote there is not a job
        if job.state == "running":
            job.state = "interrupted"
        if job.id == folder.name:
            yield job
