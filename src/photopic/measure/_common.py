"""What the measurements of a classifier share: the event they report while they run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from photopic.core.results import Report


@dataclass(frozen=True)
class Measuring:
    """One event of a measurement; the last one carries the report.

    Attributes:
        stage: What is going on, in a word or two.
        done: Steps finished of this stage.
        total: Steps of this stage.
        warning: One line the user should see, or empty.
        report: With the last event only.
    """

    stage: str
    done: int = 0
    total: int = 0
    warning: str = ""
    report: Report | None = None


def finished(events: Iterator[Measuring]) -> Report:
    """The report of a measurement, its events read to the end."""
    *_, last = events
    assert last.report is not None
    return last.report
