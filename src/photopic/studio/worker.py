"""The one thread that owns the model: it does one job after the other, and no request ever waits for it.

A job is a generator of events. Between two of them it is asked whether to go on, so that a cancelled one stops at its next step,
its contexts are left as usual, and the model is as it was.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photopic.calls.problems import line_of, ran_out_of_memory
from photopic.core.errors import FieldError
from photopic.core.events import Event
from photopic.core.runs import Run
from photopic.studio.fields import SUBJECT, commands, named_by
from photopic.studio.jobs import CHECKPOINTS, Job, Jobs, result
from photopic.studio.models import Models
from photopic.studio.pictures import Pictures
from photopic.studio.refusals import Refused
from photopic.studio.workspace import Workspace

LOG = logging.getLogger("photopic.studio")


@dataclass(frozen=True)
class Work:
    """What the body of a job has to work with."""

    job: Job
    jobs: Jobs
    models: Models
    pictures: Pictures

    @property
    def workspace(self) -> Workspace:
        """Where files are."""
        return self.jobs.workspace

    @property
    def folder(self) -> Path:
        """The job's own."""
        return self.jobs.folder(self.job)

    @property
    def run(self) -> Run:
        """Where it checkpoints, and goes on from."""
        return Run(self.folder / CHECKPOINTS)

    def add(self, kind: str, file: str, *, name: str = "", **more: Any) -> None:
        """A result that lies in the job's folder; ``jobs.save`` tells it."""
        url = f"/api/files/{self.job.id}/{file}"
        self.job.results.append(result(kind, name or file, url, file=file, **more))

    def sample(self, file: str, step: int) -> None:
        """A picture of how far it is."""
        found = {"url": f"/api/files/{self.job.id}/{file}", "file": file, "step": step}
        self.job.samples.append(found)
        self.jobs.stream.publish("sample", {"job": self.job.id, "url": found["url"], "step": step})


Body = Callable[[Work], Iterator[Event[Any]]]


class Worker:
    """The queue and its thread.

    Args:
        jobs: Where jobs are kept.
        models: Whose models are used by this thread alone.
        pictures: What was uploaded.
        bodies: How each kind of job is done.
    """

    def __init__(self, jobs: Jobs, models: Models, pictures: Pictures, bodies: Mapping[str, Body]):
        self.jobs, self.models, self.pictures, self.bodies = jobs, models, pictures, bodies
        self._ready = threading.Condition()
        self._queue: deque[Job] = deque(job for job in reversed(jobs.all()) if job.state == "waiting")
        self._running: Job | None = None
        self._cancelled: set[str] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="photopic-studio", daemon=True)

    def start(self) -> None:
        """Load the model, then begin with what waits."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """End at the next step; what runs is interrupted and can go on after the next start."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue."""
        with self._ready:
            self._queue.append(job)
            self._ready.notify_all()

    def again(self, job: Job) -> None:
        """Put a job that is over into the queue as it is; it goes on from what it kept.

        Raises:
            Refused: If it is not over.
        """
        with self._ready:
            if job.state in ("waiting", "running"):
                raise Refused(409, f"job {job.id}: is {job.state}; wait for it, or cancel it first")
            job.state = "waiting"
            self.jobs.save(job)
            self._queue.append(job)
            self._ready.notify_all()

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or stop it at its next step.

        Raises:
            Refused: If it is over.
        """
        with self._ready:
            if job in self._queue:
                self._queue.remove(job)
                self.jobs.end(job, "cancelled")
            elif job is self._running:
                self._cancelled.add(job.id)
            else:
                raise Refused(409, f"job {job.id}: expected one that waits or runs, found it {job.state}")

    def _work(self) -> None:
        self.models.load_first()
        while True:
            with self._ready:
                while not self._queue and not self._stopping:
                    self._ready.wait()
                if self._stopping:
                    return
                self._running = job = self._queue.popleft()
            try:
                self._do(job)
            finally:
                with self._ready:
                    self._running = None
                    self._cancelled.discard(job.id)

    def _do(self, job: Job) -> None:
        """Do a job to its end, whichever that is; nothing it does ends the thread."""
        try:
            self.jobs.begin(job)
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: self.jobs.warn(job, str(message))
                state = self._steps(job)
            self.jobs.end(job, state)
        except Exception as error:
            with suppress(OSError):  # of a disk that is full: the state is told, and the next job may do better
                field = _field(job, error) if isinstance(error, FieldError) else getattr(error, "field", None)
                self.jobs.end(job, "failed", self._line(job, error), field)

    def _steps(self, job: Job) -> Any:
        work = Work(job, self.jobs, self.models, self.pictures)
        steps: Any = self.bodies[job.kind](work)
        with closing(steps):  # leaves what the job has in force, wherever it stops
            for event in steps:
                self.jobs.progress(job, event)  # first: what it measured is in its checkpoint already
                if job.id in self._cancelled:
                    return "cancelled"
                if self._stopping:
                    return "interrupted"
        return "done"

    def _line(self, job: Job, error: Exception) -> str:
        """What the user is told; a bug of ours goes to the log with its traceback."""
        if ran_out_of_memory(error):
            return "memory ran out; ask for fewer pictures or a smaller batch, or use a smaller model"
        line = line_of(error)
        if line is None:
            LOG.error("job %s (%s) failed", job.id, job.kind, exc_info=error)
            said = next(iter(str(error).splitlines()), "")[:200]
            line = f"{type(error).__name__}: {said} (a bug; the terminal of photopic studio shows where)"
        return self.jobs.workspace.said(line)


def _field(job: Job, error: FieldError) -> str:
    """The field of the job's form that a method refuses, which calls it by its option."""
    if job.kind not in ("method", "subject"):
        return error.field
    name = named_by(commands()[job.form.get("command", SUBJECT)], error.field)
    return f"options.{name}" if job.kind == "subject" and name not in job.form else name
