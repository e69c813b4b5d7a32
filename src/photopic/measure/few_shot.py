"""Learning curves: how well methods that learn from few pictures do, by the number of shots, on the same shots and pictures.

Every method gets the same shots of a seed and is measured on the same test pictures; what a cell of methods x shots x seeds found
is kept, so that an interrupted measurement goes on and more shots or methods can be added later.

Protocols: all classes; or base-to-new as in CoCoOp (arXiv:2203.05557): learn the first half of the classes, be measured on both.
Claim: ``few_shot.accuracy`` of benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from photopic.core.errors import DataError
from photopic.core.results import Report, provenance
from photopic.core.runs import Run, write_atomically
from photopic.data.few_shot import LabelledImages, base_and_new
from photopic.learning.classifiers import Transferable, Tuned, tuned_of
from photopic.measure._common import Measuring, finished
from photopic.metrics.few_shot import Outcome, learning_curve_table
from photopic.models.dual_encoder import DualEncoder

Method = Callable[[DualEncoder, LabelledImages, int], Iterable[Any]]
"""A method: from the model, the shots and a seed to events, of which the last carries a ``Tuned`` as ``tuned``."""
NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class LearningCurveConfig:
    """What to measure."""

    shots: tuple[int, ...] = (1, 2, 4, 8, 16)  # pictures of each class
    seeds: tuple[int, ...] = (0, 1, 2)  # each draws its own shots, and seeds the methods
    protocol: Literal["all", "base-to-new"] = "all"  # measured on all classes, or learnt on half of them
    reference: str | None = "zero-shot"  # the method gains are over, if it is among them

    def __post_init__(self) -> None:
        for name, least in (("shots", 1), ("seeds", 0)):
            found = getattr(self, name)
            if not found or len(set(found)) < len(found) or min(found) < least:
                raise DataError(f"{name}: expected different numbers from {least}, found {', '.join(map(str, found))}")
        if self.protocol not in ("all", "base-to-new"):
            raise DataError(f"protocol: expected all or base-to-new, found {self.protocol!r}")


@dataclass(frozen=True)
class CurveEvent(Measuring):
    """One event of a learning curve.

    Attributes:
        cell: Method, shots and seed of what is going on, in words.
        accuracy: Of the shots while a method learns, of the test pictures once a cell is done.
        step: Steps of the method done.
        steps: Steps of the method.
    """

    cell: str = ""
    accuracy: float | None = None
    step: int = 0
    steps: int = 0


def learning_curve(model: DualEncoder, train: LabelledImages, test: LabelledImages, **options: Any) -> Report:
    """Measure learning curves; drives ``trace_learning_curve`` to its end. See there for arguments and errors.

    Example:
        >>> report = learning_curve(model, train, test, methods={"zero-shot": zero_shot})  # doctest: +SKIP
        >>> report.rows[0]["score"]  # doctest: +SKIP
        0.41
    """
    return finished(trace_learning_curve(model, train, test, **options))


def trace_learning_curve(
    model: DualEncoder,
    train: LabelledImages,
    test: LabelledImages,
    *,
    methods: Mapping[str, Method],
    config: LearningCurveConfig = LearningCurveConfig(),
    folder: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[CurveEvent]:
    """Measure learning curves, reporting after every step of every method; the last event carries the report.

    Args:
        model: What the methods tune; it is the same afterwards.
        train: What shots are drawn from.
        test: What is measured on: other pictures of the same classes.
        methods: By the name in the report, in its order.
        config: Shots, seeds and protocol.
        folder: Where to keep what is done and go on from; it may have been made with other shots, seeds and methods.
        settings: JSON values that say how the methods were set up; another setup is refused in the same folder.

    Returns:
        Rows as ``metrics.few_shot.learning_curve_table`` has them.

    Raises:
        DataError: If train and test have different classes, a class has too few pictures, or a method's name is no word.
        RunMismatchError: If the folder holds another model, other data or another setup.

    Example:
        >>> for event in trace_learning_curve(model, train, test, methods=methods): print(event.cell)  # doctest: +SKIP
    """
    learnt, judged = _checked(train, test, methods, config)
    identity = {
        "model": model.digest(),
        "train": train.digest,
        "test": test.digest,
        "protocol": config.protocol,
        "settings": dict(settings or {}),
    }
    cells = _Cells(None if folder is None else Run(folder, identity).folder / "cells")
    plan = [(method, shots, seed) for shots in config.shots for method in methods for seed in config.seeds]
    for number, cell in enumerate(plan):
        method, shots, seed = cell
        said = f"{method}, {shots} {'shot' if shots == 1 else 'shots'}, seed {seed}"
        if not cells.has(cell):
            began, tuned = time.monotonic(), None
            for event in methods[method](model, learnt.shots(shots, seed), seed):
                tuned = tuned_of(event)
                step, steps, accuracy = (getattr(event, name, 0) for name in ("step", "steps", "accuracy"))
                warning = getattr(event, "warning", "")
                yield CurveEvent("measuring", number, len(plan), warning, None, said, accuracy or None, step, steps)
            if tuned is None:
                raise DataError(f"method {method}: expected its last event to carry what it tuned, found none")
            cells.keep(cell, _measured(tuned, judged, time.monotonic() - began))
        yield CurveEvent("measuring", number + 1, len(plan), cell=said, accuracy=cells.accuracy(cell))
    outcomes = {
        (method, shots): cells.outcome([(method, shots, seed) for seed in config.seeds])
        for method in methods
        for shots in config.shots
    }
    reference = config.reference if config.reference in methods else None
    values = {
        "classes": len(train.names),
        "test_pictures": [len(each) for each in judged],
        "protocol": config.protocol,
        "reference": reference,
    }
    facts = identity | {"model": model.name, "base": identity["model"], "seeds": list(config.seeds)}
    rows = learning_curve_table(outcomes, reference)
    report = Report("learning_curve", values, rows, provenance("measure.few_shot", **facts))
    yield CurveEvent("done", len(plan), len(plan), report=report)


def _checked(
    train: LabelledImages, test: LabelledImages, methods: Mapping[str, Method], config: LearningCurveConfig
) -> tuple[LabelledImages, list[LabelledImages]]:
    """What shots are drawn from, and what is measured on; everything is refused before anything takes time."""
    if not methods:
        raise DataError("methods: expected one or more, found none")
    for name in methods:
        if not NAME.fullmatch(name):
            raise DataError(f"method {name!r}: expected a name of letters, digits, dots and hyphens")
    if train.names != test.names:
        raise DataError(
            f"test pictures: expected the classes of the training pictures ({_some(train.names)}), found {_some(test.names)}"
        )
    for name, count in zip(test.names, test.counts, strict=True):
        if not count:
            raise DataError(f"class {name}: expected one test picture or more, found none; add some or leave it out")
    train.shots(max(config.shots), 0)
    if config.protocol == "all":
        return train, [test]
    base, new = base_and_new(train.names)
    return train.classes(base), [test.classes(base), test.classes(new)]


def _measured(tuned: Tuned, judged: Sequence[LabelledImages], seconds: float) -> dict[str, Any]:
    """What is kept of a cell: which test pictures were named right, as a string of 0 and 1."""
    found = {"correct": _right(tuned, judged[0]), "new": None}
    if len(judged) > 1 and isinstance(tuned, Transferable):
        found["new"] = _right(tuned.for_names(judged[1].names), judged[1])
    costs = {"trainable": tuned.trainable, "size_bytes": tuned.size_bytes, "seconds": round(seconds, 3)}
    return {**found, **costs}


def _right(tuned: Tuned, data: LabelledImages) -> str:
    right = tuned.logits(data.images).argmax(1).numpy() == data.labels
    return "".join("1" if each else "0" for each in right)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


class _Cells:
    """What was measured, one file a cell if there is a folder. What learns nothing is measured once for all its cells."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.found: dict[tuple[str, int, int], dict[str, Any]] = {}
        self.constant: dict[str, dict[str, Any]] = {}
        if folder is not None:
            folder.mkdir(exist_ok=True)

    def has(self, cell: tuple[str, int, int]) -> bool:
        """Whether a cell need not be measured."""
        if cell not in self.found and cell[0] in self.constant:
            self.found[cell] = self.constant[cell[0]]
        if cell not in self.found and self.folder is not None and (path := self._path(cell)).exists():
            self._put(cell, json.loads(path.read_text()))
        return cell in self.found

    def keep(self, cell: tuple[str, int, int], found: dict[str, Any]) -> None:
        """Keep what was measured."""
        self._put(cell, found)
        if self.folder is not None:
            write_atomically(self._path(cell), json.dumps(found).encode())

    def accuracy(self, cell: tuple[str, int, int]) -> float:
        """Share of the test pictures named right; of the base classes where there are two parts."""
        return self.found[cell]["correct"].count("1") / len(self.found[cell]["correct"])

    def outcome(self, cells: Sequence[tuple[str, int, int]]) -> Outcome:
        """The cells of all seeds together."""
        found = [self.found[cell] for cell in cells]
        correct, new = (
            None if any(each[part] is None for each in found) else np.array([[*map(int, each[part])] for each in found])
            for part in ("correct", "new")
        )
        assert correct is not None
        seconds = tuple(each["seconds"] for each in found)
        return Outcome(correct, new, found[0]["trainable"], found[0]["size_bytes"], seconds)

    def _put(self, cell: tuple[str, int, int], found: dict[str, Any]) -> None:
        self.found[cell] = found
        if found["trainable"] == 0 and found["size_bytes"] == 0:
            self.constant[cell[0]] = found

    def _path(self, cell: tuple[str, int, int]) -> Path:
        assert self.folder is not None
        method, shots, seed = cell
        return self.folder / f"{method}-{shots}-{seed}.json"
