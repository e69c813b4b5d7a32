"""Progress bars on stderr, driven by the events of the library's generators; stdout stays free for results."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from photopic.core.errors import printable
from photopic.report.terminal import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.status import Status

    from photopic.core.events import Event

R = TypeVar("R")
SHARES = ("accuracy", "share")  # numbers from 0 to 1 that are shown in per cent


def console() -> Console:
    """The console for progress and remarks."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def waiting(text: str) -> Status:
    """A block with a spinner before a line such as ``loading my-model``, whatever the name says."""
    return console().status(plain(text))


@contextmanager
def bars(*, hidden: bool = False) -> Iterator[Bars]:
    """A block with progress bars: description, bar, count, time left and a remark; warnings inside become notes.

    Args:
        hidden: Show and say nothing, as all but one of several processes should.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}", style="dim"),
    )
    place = console()
    place.quiet = hidden
    silent = hidden or not place.is_interactive  # into a file or a pipe rich would print an empty line in their place
    with Bars(*columns, console=place, transient=True, disable=silent) as shown, warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _note(shown, str(message))
        yield shown


def follow_events(events: Iterable[Event[R]], shown: Bars) -> R:
    """Show the events of a method, one bar a stage with what its steps measure, and return its result.

    Args:
        events: Of a method; the last carries the result.
        shown: Where to show them.
    """
    tasks: dict[str, Any] = {}
    result = None
    for event in events:
        if event.warning:
            _note(shown, event.warning)
        if event.stage not in tasks:
            for task in tasks.values():  # what went before is done
                shown.update(task, visible=False)
            tasks[event.stage] = shown.add_task(plain(event.stage), total=None, remark="")
        remark = plain(", ".join(_spoken(name, value) for name, value in event.numbers.items()))
        shown.update(tasks[event.stage], completed=event.done, total=event.total or None, remark=remark)
        result = event.result
    assert result is not None, "the last event of a method carries its result"
    return result


def _spoken(name: str, value: float) -> str:
    """``loss 0.0123``, ``accuracy 45.0%``."""
    words = name.replace("_", " ")
    return f"{words} {value:.1%}" if name in SHARES else f"{words} {value:.4g}"


def _note(shown: Bars, text: str) -> None:
    shown.console.print(f"note: {printable(text)}", style="yellow", markup=False)
