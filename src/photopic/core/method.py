"""``@method``: what makes a function of a published method a member of the library.

The body is a generator of events that returns its result. Around it the decorator checks the arguments, times the stages, stamps
where the result comes from, and binds a run folder to what was given, so that none of this is written in a method's file.
``photopic.methods`` lists all of them, and the commands are derived from their types.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import is_dataclass, replace
from functools import update_wrapper
from importlib import import_module, resources
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload, runtime_checkable

from photopic.core.about import About
from photopic.core.config import Config, check_value, hints_of, unpacked
from photopic.core.digests import PLAIN, digest_of, hashed, plain, short
from photopic.core.errors import DataError, ModelError
from photopic.core.events import Event, Steps, last
from photopic.core.provenance import peak_bytes, stamped, versions
from photopic.core.runs import Run
from photopic.core.view import View

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


@runtime_checkable
class HasEdits(Protocol):
    """A handle: it has a stack of edits, and says what it is."""

    name: str
    edits: Any

    def digest(self) -> str:
        """Hex sha256 of the weights."""


class Method(Generic[P, R]):
    """A method: called, it returns its result; ``events`` drives the same computation step by step.

    Attributes:
        about: Its name, paper, presets and words.
        body: The generator function as written.
    """

    def __init__(self, body: Callable[P, Generator[Event[Any], None, R]], about: About, allow_edits: bool):
        update_wrapper(self, body)
        self.body, self.about, self.allow_edits = body, about, allow_edits
        self.signature = inspect.signature(body)
        self.trains = "run" in self.signature.parameters

    @property
    def name(self) -> str:
        """Dotted path under ``photopic``."""
        return self.about.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return last(self.events(*args, **kwargs))  # type: ignore[arg-type]  # run may be among them

    def events(self, *args: Any, run: Run | None = None, **kwargs: Any) -> Iterator[Event[R]]:
        """The same call step by step; the last event carries the result.

        Args:
            args: As of the method.
            run: A run folder to checkpoint in and to resume from, for a method that learns.
            kwargs: As of the method.

        Raises:
            DataError: If a config holds a value out of its range, or ``run`` is given to a method that does not learn.
            ModelError: If a model has edits in force.
            RunMismatchError: If the run folder holds a computation with other arguments.
            RunInUseError: If another process is writing to the run folder.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {name: value for name, value in bound.arguments.items() if name != "run"}
        self._check(given)
        if run is not None and not self.trains:
            raise DataError(f"{self.name}: keeps nothing to go on from, found a run folder; leave run out")
        digests = {name: digest_of(name, value) for name, value in given.items()}
        if self.trains:
            identity = hashed(json.dumps([self.name, digests], sort_keys=True).encode())
            bound.arguments["run"] = run = run if run is None else run.bound(identity)
        steps = self._timed(self.body(*bound.args, **bound.kwargs), given, digests)
        return steps if run is None else _in_folder(steps, run)

    def _check(self, given: Mapping[str, Any]) -> None:
        for name, value in given.items():
            if isinstance(value, HasEdits) and not self.allow_edits and value.edits.names():
                raise ModelError(
                    f"{value.name}: has edits applied ({', '.join(value.edits.names())}); remove them first, what is found on an "
                    "edited model is not true of its base"
                )
            annotation = hints_of(self.body).get(name)
            if unpacked(annotation)[1]:  # a range; without one any type that Python lets through is the body's to judge
                check_value(name, value, annotation)

    def _timed(self, steps: Steps[R], given: Mapping[str, Any], digests: Mapping[str, Any]) -> Iterator[Event[R]]:
        """Add the times of each event, and after the body one event with the stamped result."""
        clock = began = time.monotonic()
        stage, first = "", 0
        while True:
            try:
                event = next(steps)
            except StopIteration as stop:
                body_result = stop.value
                break
            now = time.monotonic()
            if event.stage != stage:  # the pace is that of the stage; what a resumed run had done took no time
                stage, first, began = event.stage, event.done, now
            pace = (now - began) / max(event.done - first, 1)
            yield replace(event, elapsed_s=now - clock, eta_s=pace * max(event.total - event.done, 0))
        # monotonic: a clock that is set while a method runs changes no time
        elapsed = time.monotonic() - clock
        result = stamped(body_result, self.provenance(given, digests, elapsed))
        yield Event("done", elapsed_s=elapsed, result=result)

    def provenance(self, given: Mapping[str, Any], digests: Mapping[str, Any], elapsed: float) -> dict[str, Any]:
        """What is stamped on a result: the method, what it was given, on what it ran; of learning, how long and how large."""
        config = given.get("config")
        models = [each for each in given.values() if isinstance(each, HasEdits)]
        data = {name: short(value) for name, value in digests.items() if _is_data(given[name])}
        found: dict[str, Any] = {"method": self.name, "paper": self.about.paper, "data": data}
        if is_dataclass(config):
            found |= {"config": plain(config), "seed": getattr(config, "seed", None)}
        if models:
            import torch  # who has a model has imported it; who has none does without

            device = getattr(models[0], "device", torch.device("cpu"))
            dtype = str(getattr(models[0], "dtype", torch.float32)).removeprefix("torch.")
            found |= {"model": models[0].name, "device": str(device), "dtype": dtype}
            if self.trains:  # what only computes from what it is given saves to the same bytes every time
                found["peak_bytes"] = peak_bytes(device)
        return found | {"versions": versions()} | ({"elapsed_s": round(elapsed, 1)} if self.trains else {})


@overload
def method(body: C, /) -> C: ...
@overload
def method(body: Callable[P, Generator[Event[Any], None, R]], /) -> Method[P, R]: ...
@overload
def method(
    *,
    paper: str = "",
    claims: str = "",
    presets: Mapping[str, Any] = ...,
    command: str = "",
    examples: Sequence[str] = (),
    view: Callable[[Any], View] | None = None,
    after: Sequence[str] = (),
    page: bool = True,
    failed: Callable[[Any], bool] | None = None,
    allow_edits: bool = False,
) -> _Decorator: ...
def method(
    body: Any = None,
    /,
    *,
    paper: str = "",
    claims: str = "",
    presets: Mapping[str, Any] = {},
    command: str = "",
    examples: Sequence[str] = (),
    view: Callable[[Any], View] | None = None,
    after: Sequence[str] = (),
    page: bool = True,
    failed: Callable[[Any], bool] | None = None,
    allow_edits: bool = False,
) -> Any:
    """Make a method of a generator function, or of a ``Control`` class, which is its own result.

    Args:
        body: The function, where nothing else is to be said.
        paper: See ``About``, as for the next six.
        claims: See ``About``.
        presets: See ``About``.
        command: See ``About``.
        examples: See ``About``.
        view: See ``About``.
        after: See ``About``.
        page: See ``About``.
        failed: See ``About``.
        allow_edits: Take models with edits in force too.

    Example:
        >>> @method(paper="arXiv:0000.00000")
        ... def counted(words: Sequence[str]) -> Steps[int]:
        ...     yield Event("counting")
        ...     return len(words)
        >>> counted(["a", "b"])
        2
    """

    def decorate(body: Any) -> Any:
        about = About(body, paper, claims, presets, command, examples, view, after, page, failed)
        if isinstance(body, type):
            body.about = about  # type: ignore[attr-defined]
            return body
        return Method(body, about, allow_edits)

    return decorate if body is None else decorate(body)


class _Decorator(Protocol):
    @overload
    def __call__(self, body: C, /) -> C: ...
    @overload
    def __call__(self, body: Callable[P, Generator[Event[Any], None, R]], /) -> Method[P, R]: ...


def method_named(name: str) -> Method[Any, Any]:
    """The method that provenance calls by a name, found by the manifest, so that none has to import another.

    Args:
        name: Such as ``tune.few_shot.lora``.

    Example:
        >>> method_named("tune.few_shot.mask_tuning").about.command
        'tune mask'
    """
    entries = json.loads(resources.files("photopic").joinpath("methods.json").read_text(encoding="utf-8")).values()
    path = next(each["function"] for each in entries if each["method"] == name)
    module, _, function = path.partition(":")
    found: Method[Any, Any] = getattr(import_module(module), function)
    return found


def _in_folder(events: Iterator[Event[R]], run: Run) -> Iterator[Event[R]]:
    """The events of a computation that has its run folder for itself."""
    with run.computing():
        yield from events


def _is_data(value: Any) -> bool:
    """Whether an argument is data: neither a model, a config, nor a plain word or number."""
    plain_words = isinstance(value, PLAIN) or (isinstance(value, Sequence) and all(isinstance(e, PLAIN) for e in value))
    return not (plain_words or isinstance(value, HasEdits | Config) or callable(value))
