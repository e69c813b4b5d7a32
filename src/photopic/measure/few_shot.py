"""Learning curves: how well methods that learn from few pictures do, by the number of shots, on the same shots and pictures.

Every method gets the same shots of a seed and is measured on the same test pictures; what a cell of methods x shots x seeds found
is kept, so that an interrupted measurement goes on and more shots or methods can be added later.

Protocols: all classes; or base-to-new as in CoCoOp (arXiv:2203.05557): learn the first half of the classes, be measured on both.
Claim: ``few_shot.accuracy`` of benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError, FieldError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.runs import Run, write_atomically
from photopic.data.few_shot import LabelledImages, ShotPool, base_and_new
from photopic.learning.classifiers import Transferable, Tuned
from photopic.measure._few_shot_methods import METHODS, Learn, able, learner
from photopic.measure._few_shot_view import few_shot_view
from photopic.metrics.few_shot import Outcome, learning_curve_table
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates

NAME = re.compile(r"[\w.+-]+")
ADDED_LATER = ("methods", "shots", "seeds", "reference")  # what may differ in a folder that is gone on with
Name = Literal[
    "zero-shot", "linear-probe", "linear-adam", "coop", "tip-adapter", "tip-adapter-f", "lora", "bitfit", "full", "mask",
    "mask-plain", "tuners",
]  # fmt: skip
USUAL: tuple[Name, ...] = (
    "zero-shot", "linear-probe", "coop", "tip-adapter", "lora", "bitfit", "full", "mask", "tuners",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LearningCurveConfig(Config):
    """What to measure, and the budget that every method gets."""

    methods: tuple[Name, ...] | None = (
        None  # methods to compare, commas between; without it all usual ones that the model can do
    )
    shots: Annotated[tuple[int, ...], Ge(1)] = (1, 2, 4, 8, 16)  # pictures of each class to learn from, commas between
    seeds: Annotated[int, Ge(1)] = 3  # how often each is repeated, every time with other shots
    seed: Annotated[int, Ge(0)] = 0  # first of the seeds, which draw the shots and seed the methods
    base_to_new: bool = False  # learn the first half of the classes by name, measure on both halves
    steps: Annotated[int, Ge(1)] = 200  # steps of every method that takes steps
    batch: Annotated[int, Ge(1)] = 32  # pictures a step; all where there are fewer
    augment: bool = True  # crop pictures at random while learning
    rate: Annotated[float, Gt(0)] = (
        1.0  # multiplies the learning rates, which fit the bundled encoders; larger models need less
    )
    reference: Annotated[str | None, Flags()] = "zero-shot"  # the method that gains are over, if it is among them

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shots or len(set(self.shots)) < len(self.shots):
            raise FieldError("shots", f"expected different numbers from 1, found {', '.join(map(str, self.shots))}")
        if self.methods is not None and not self.methods:
            raise FieldError("methods", "expected one or more names with commas between, found none")


@method(
    claims="few_shot.",
    command="measure fewshot",
    examples=(
        "Example: photopic measure fewshot emoji:held-out-style --methods zero-shot,tip-adapter,lora,mask --shots 1,4,16",
        "Your pictures: photopic measure fewshot pictures/ --model openai/clip-vit-base-patch32",
    ),
    view=few_shot_view,
)
def learning_curve(
    model: DualEncoder,
    data: ShotPool,
    *,
    templates: Templates = TEMPLATES,
    others: Annotated[Mapping[str, Learn], Flags()] = {},
    config: LearningCurveConfig = LearningCurveConfig(),
    run: Run | None = None,
) -> Steps[Report]:
    """How well methods do with 1, 2, 4, ... pictures of each class, on the same shots and test pictures.

    Interrupted with Ctrl-C, the same command goes on where it stopped. With --run, more shots or methods can be added later.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: What shots are drawn from, and what is measured on.
        templates: Sentence with {} where a class name goes; several times.
        others: Methods of your own by name, besides those of the config: generators from model, shots and seed that return
            something with ``logits``, ``trainable`` and ``size_bytes``.
        config: Methods, shots, seeds and budget.
        run: A folder to keep what is done and go on from; it may have been made with other shots, seeds and methods.

    Returns:
        Rows as ``metrics.few_shot.learning_curve_table`` has them.

    Raises:
        DataError: If a class has too few pictures, or a method's name is no word.
        RunMismatchError: If the folder holds another model, other data or another budget.

    Example:
        >>> config = LearningCurveConfig(methods=("zero-shot", "lora"), shots=(4,))
        >>> learning_curve(model, data, config=config).rows[0]["score"]  # doctest: +SKIP
        0.41
    """
    learnt, judged = _parts(data, others, config)
    yield Event("preparing")
    methods = _learners(model, templates, others, config)
    cells = _Cells(None if run is None else run.bound(_identity(model, data, templates, config)))
    seeds = tuple(range(config.seed, config.seed + config.seeds))
    plan = [(name, shots, seed) for shots in config.shots for name in methods for seed in seeds]
    for number, cell in enumerate(plan):
        name, shots, seed = cell
        said = f"{number + 1} of {len(plan)}: {name}, {shots} {'shot' if shots == 1 else 'shots'}, seed {seed}"
        if not cells.has(cell):
            began = time.monotonic()
            tuned = yield from _renamed(methods[name](model, learnt.shots(shots, seed), seed), said)
            cells.keep(cell, _measured(tuned, judged, time.monotonic() - began))
        yield Event(said, 1, 1, {"accuracy": cells.accuracy(cell)})
    outcomes = {
        (name, shots): cells.outcome([(name, shots, seed) for seed in seeds])
        for name in methods
        for shots in config.shots
    }
    reference = config.reference if config.reference in methods else None
    values = {
        "classes": len(data.train.names),
        "test_pictures": [len(each) for each in judged],
        "protocol": "base-to-new" if config.base_to_new else "all",
        "reference": reference,
        "seeds": config.seeds,
        "weights": model.parameter_count,
    }
    return Report("learning_curve", values, learning_curve_table(outcomes, reference))


def _parts(
    data: ShotPool, others: Mapping[str, Learn], config: LearningCurveConfig
) -> tuple[LabelledImages, list[LabelledImages]]:
    """What shots are drawn from, and what is measured on; everything is refused before anything takes time."""
    for name in others:
        if not NAME.fullmatch(name) or name in METHODS:
            raise DataError(f"method {name!r}: expected a name of letters, digits, dots and hyphens that no method has")
    data.train.shots(max(config.shots), 0)
    if not config.base_to_new:
        return data.train, [data.test]
    base, new = base_and_new(data.train.names)
    return data.train.classes(base), [data.test.classes(base), data.test.classes(new)]


def _learners(
    model: DualEncoder, templates: Sequence[str], others: Mapping[str, Learn], config: LearningCurveConfig
) -> dict[str, Learn]:
    """The methods asked for: all that the model can do where none is named, own ones behind."""
    usual = () if others else able(USUAL, model)
    names = usual if config.methods is None else dict.fromkeys(config.methods)
    budget = {"steps": config.steps, "batch": config.batch, "augment": config.augment}
    return {name: learner(name, budget, rate=config.rate, templates=templates) for name in names} | dict(others)


def _identity(model: DualEncoder, data: ShotPool, templates: Sequence[str], config: LearningCurveConfig) -> str:
    """What has to be the same for a folder to be gone on with; shots, seeds and methods may be added."""
    budget = {each.name: getattr(config, each.name) for each in fields(config) if each.name not in ADDED_LATER}
    given = [model.digest(), data.digest, list(templates), budget]
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def _renamed(steps: Steps[Tuned], stage: str) -> Steps[Tuned]:
    """The events of one method, as a stage of the measurement."""
    while True:
        try:
            event = next(steps)
        except StopIteration as stop:
            tuned: Tuned = stop.value
            return tuned
        yield Event(stage, event.done, event.total, event.numbers, event.warning)


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


class _Cells:
    """What was measured, one file a cell if there is a folder. What learns nothing is measured once for all its cells."""

    def __init__(self, run: Run | None):
        self.run, self.folder = run, None if run is None else run.folder / "measured"
        self.found: dict[tuple[str, int, int], dict[str, Any]] = {}
        self.constant: dict[str, dict[str, Any]] = {}
        if run is not None and self.folder is not None:
            run.resume()  # refuses the cells of another measurement
            self.folder.mkdir(exist_ok=True)

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
        if self.run is not None:
            self.run.checkpoint({}, len(self.found))
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
