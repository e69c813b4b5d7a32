"""The demo as a job: its report opens in the studio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from photopic.core.events import Event
from photopic.studio.forms import DemoForm, checked
from photopic.studio.refusals import Refused

if TYPE_CHECKING:
    from photopic.studio.worker import Work

PAGE = "demo.html"


def check(form: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The title of a job and its form.

    Raises:
        Refused: If there is no such subject.
    """
    from photopic.data.splits import SUBJECTS

    found = checked(DemoForm, form)
    if found.subject not in SUBJECTS:
        raise Refused(
            422, f"subject: expected one of {', '.join(sorted(SUBJECTS))}, found {found.subject!r}", field="subject"
        )
    return f"demo: {found.subject}", found.model_dump()


def demonstrate(work: Work) -> Iterator[Event[Any]]:
    """What ``photopic demo`` does, kept where an interrupted one goes on from."""
    from photopic.core.files import write_atomically
    from photopic.demo.report import report_events
    from photopic.demo.teach import DemoConfig
    from photopic.studio.jobs import CHECKPOINTS

    form = checked(DemoForm, work.job.form)
    config = DemoConfig(
        subject=form.subject,
        noun=_noun(form.subject),
        steps=form.steps,
        tune_steps=form.tune,
        pictures=form.pictures,
        sampling_steps=form.sampling_steps,
        seed=form.seed,
    )
    page = yield from report_events(work.models.current, work.folder / CHECKPOINTS, config, with_pair=form.pair)
    write_atomically(work.folder / PAGE, page.encode())
    work.add("page", PAGE)


def _noun(subject: str) -> str:
    from photopic.data.splits import SUBJECTS

    return SUBJECTS[subject]
