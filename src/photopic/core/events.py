"""Events: what a long computation says while it runs; the last event carries the result.

The body of a method is a generator of events that returns its result (``Steps``). The command line, the page and the tests all
drive the same generator.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True)
class Event(Generic[R]):
    """One event of a long computation.

    Attributes:
        stage: What is going on, such as ``preparing`` or ``learning``.
        done: Steps of the stage that are done.
        total: Steps of the stage in all, 0 where that is not known.
        numbers: What the step measured, by name, such as ``loss``; ``accuracy`` and ``share`` are from 0 to 1.
        warning: One line the user should see, or empty.
        elapsed_s: Seconds since this process began the computation.
        eta_s: Seconds the stage still takes at the pace so far.
        result: What came of it, with the last event only.
        preview: Makes the result as it would be if the computation ended here, or None where there is none yet; to be called
            before the next event is asked for. Only some methods have one.

    Example:
        >>> Event("learning", 3, 10, {"loss": 0.5}).numbers["loss"]
        0.5
    """

    stage: str
    done: int = 0
    total: int = 0
    numbers: Mapping[str, float] = field(default_factory=dict)
    warning: str = ""
    elapsed_s: float = 0.0
    eta_s: float = 0.0
    result: R | None = None
    preview: Callable[[], R | None] | None = None


Steps = Generator[Event[Any], None, R]  # the body of a method: yields its progress, returns its result


def last(steps: Iterable[Event[R]]) -> R:
    """Drive the events of a method to their end and return the result.

    Example:
        >>> last([Event("measuring"), Event("done", result=3)])
        3
    """
    *_, event = steps
    assert event.result is not None, "the last event of a method carries its result"
    return event.result


def finished(steps: Steps[R]) -> R:
    """Drive the body of a method, whose result is what it returns, to its end.

    Example:
        >>> def body():
        ...     yield Event("measuring")
        ...     return 3
        >>> finished(body())
        3
    """
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: R = stop.value
            return result


def with_result(steps: Steps[R]) -> Iterator[Event[R]]:
    """The events of a body, and one more that carries its result: what a progress bar follows.

    Example:
        >>> def body():
        ...     yield Event("measuring")
        ...     return 3
        >>> last(with_result(body()))
        3
    """
    yield Event("done", result=(yield from steps))
