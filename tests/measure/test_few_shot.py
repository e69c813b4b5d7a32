"""Learning curves: the same shots for all, resumed to the same numbers, refused before anything takes time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.core.runs import RunMismatchError
from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import LinearHead, TextClassifier
from photopic.learning.few_shot_batches import Step
from photopic.measure.few_shot import LearningCurveConfig, learning_curve, trace_learning_curve
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.few_shot.methods import NAMES, able, learner
from tests.tiny_encoders import SIDE, tiny_dual_encoder

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "white": (230, 230, 230)}
CONFIG = LearningCurveConfig(shots=(1, 2), seeds=(0, 1))


def colours(each: int, seed: int) -> LabelledImages:
    rng = np.random.default_rng(seed)
    images = np.concatenate([rng.normal(colour, 30, (each, SIDE, SIDE, 3)) for colour in COLOURS.values()])
    return LabelledImages(images.clip(0, 255).astype(np.uint8), np.repeat(range(4), each), tuple(COLOURS))


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return tiny_dual_encoder("vit")


@pytest.fixture(scope="module")
def parts() -> tuple[LabelledImages, LabelledImages]:
    return colours(3, seed=0), colours(5, seed=1)


class Watched:
    """Methods that learn by counting, and remember the shots they were given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, int, str]] = []

    def nearest(self, model: DualEncoder, data: LabelledImages, seed: int) -> Iterator[Step]:
        self.given.append(("nearest", seed, data.digest))
        features = model.image_features(data.images)
        means = torch.stack([features[data.labels == label].mean(0) for label in range(len(data.names))])
        yield Step("tuning", 1, 1, 0.5, 0.25)
        yield Step("done", tuned=LinearHead(model, means, -means.square().sum(1) / 2))

    def names(self, model: DualEncoder, data: LabelledImages, seed: int) -> Iterator[Step]:
        self.given.append(("names", seed, data.digest))
        yield Step("done", tuned=TextClassifier(model, model.class_features(data.names), trainable=3))

    def nothing(self, model: DualEncoder, data: LabelledImages, seed: int) -> Iterator[Step]:
        self.given.append(("nothing", seed, data.digest))
        yield Step("done", tuned=TextClassifier(model, model.class_features(data.names)))

    def all(self) -> dict[str, Any]:
        return {"nothing": self.nothing, "nearest": self.nearest, "names": self.names}


def numbers(rows: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_every_method_gets_the_shots_of_a_seed(
    model: DualEncoder, parts: tuple[LabelledImages, LabelledImages]
) -> None:
    watched = Watched()
    report = learning_curve(model, *parts, methods=watched.all(), config=CONFIG)
    train = parts[0]
    wanted = [(seed, train.shots(shots, seed).digest) for shots in (1, 2) for seed in (0, 1)]
    for method in ("nearest", "names"):
        assert [(seed, digest) for name, seed, digest in watched.given if name == method] == wanted
    assert [(row["method"], row["shots"]) for row in report.rows] == [
        (name, shots) for name in ("nothing", "nearest", "names") for shots in (1, 2)
    ]
    assert all(row["seeds"] == 2 for row in report.rows)
    assert report.values["test_pictures"] == [20] and report.values["reference"] is None


def test_the_numbers_are_the_classifiers(model: DualEncoder, parts: tuple[LabelledImages, LabelledImages]) -> None:
    config = LearningCurveConfig(shots=(2,), seeds=(4,), reference="nothing")
    report = learning_curve(model, *parts, methods=Watched().all(), config=config)
    test = parts[1]
    wanted = (model.zero_shot(test.images, test.names).argmax(1).numpy() == test.labels).mean()
    by_method = {row["method"]: row for row in report.rows}
    assert by_method["nothing"]["score"] == by_method["names"]["score"] == wanted
    assert by_method["names"]["gain"] == 0.0 and by_method["nothing"]["gain"] is None
    assert by_method["nearest"]["score"] > 0.9 and by_method["nearest"]["gain_low"] > 0


def test_what_learns_nothing_is_measured_once(model: DualEncoder, parts: tuple[LabelledImages, LabelledImages]) -> None:
    watched = Watched()
    learning_curve(model, *parts, methods={"nothing": watched.nothing}, config=CONFIG)
    assert len(watched.given) == 1


def test_an_interrupted_curve_goes_on_to_the_same_numbers(
    model: DualEncoder, parts: tuple[LabelledImages, LabelledImages], tmp_path: Path
) -> None:
    whole = learning_curve(model, *parts, methods=Watched().all(), config=CONFIG)
    first = Watched()
    events = trace_learning_curve(model, *parts, methods=first.all(), config=CONFIG, folder=tmp_path / "run")
    for event in events:
        if event.done == 5:  # as Ctrl-C would
            break
    events.close()  # type: ignore[attr-defined]
    second = Watched()
    resumed = learning_curve(model, *parts, methods=second.all(), config=CONFIG, folder=tmp_path / "run")
    assert numbers(resumed.rows) == numbers(whole.rows)
    assert not set(first.given) & set(second.given) and second.given
    third = Watched()
    more = LearningCurveConfig(shots=(1, 2, 3), seeds=(0, 1))
    learning_curve(model, *parts, methods=third.all(), config=more, folder=tmp_path / "run")
    assert [name for name, *_ in third.given] == ["nearest", "nearest", "names", "names"]  # only what 3 shots add


def test_a_folder_of_another_measurement_is_refused(
    model: DualEncoder, parts: tuple[LabelledImages, LabelledImages], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"methods": {"nothing": Watched().nothing}, "config": CONFIG, "folder": tmp_path / "run"}
    learning_curve(model, *parts, settings={"steps": 5}, **options)
    with pytest.raises(RunMismatchError, match="settings"):
        learning_curve(model, *parts, settings={"steps": 6}, **options)
    with pytest.raises(RunMismatchError, match="test="):
        learning_curve(model, parts[0], colours(5, seed=2), settings={"steps": 5}, **options)


def test_base_to_new_learns_half_and_measures_both(
    model: DualEncoder, parts: tuple[LabelledImages, LabelledImages]
) -> None:
    seen: list[tuple[str, ...]] = []

    def names(model: DualEncoder, data: LabelledImages, seed: int) -> Iterator[Step]:
        seen.append(data.names)
        yield Step("done", tuned=TextClassifier(model, model.class_features(data.names), trainable=1))

    config = LearningCurveConfig(shots=(1,), seeds=(0,), protocol="base-to-new")
    report = learning_curve(model, *parts, methods={"names": names, "nearest": Watched().nearest}, config=config)
    assert seen == [("blue", "green")]  # the first half by name
    named, nearest = report.rows
    test = parts[1].classes([0, 3])  # red and white are new
    wanted = (model.zero_shot(test.images, test.names).argmax(1).numpy() == test.labels).mean()
    assert named["new"] == wanted and 0 <= named["score"] <= 1
    assert nearest["new"] is None and nearest["score"] is None and nearest["base"] > 0.9
    assert report.values["test_pictures"] == [10, 10]


def test_events_say_what_is_going_on(model: DualEncoder, parts: tuple[LabelledImages, LabelledImages]) -> None:
    config = LearningCurveConfig(shots=(1,), seeds=(0,))
    first, *_, measured, last = trace_learning_curve(model, *parts, methods={"near": Watched().nearest}, config=config)
    assert (first.cell, first.accuracy, first.step, first.steps) == ("near, 1 shot, seed 0", 0.25, 1, 1)
    assert measured.done == measured.total == 1 and measured.accuracy is not None and measured.accuracy > 0.5
    assert last.report is not None and last.report.provenance["model"] == "tiny-vit"


def test_bad_input_is_refused_before_anything_runs(
    model: DualEncoder, parts: tuple[LabelledImages, LabelledImages]
) -> None:
    train, test = parts
    watched = Watched()
    options: dict[str, Any] = {"methods": {"nearest": watched.nearest}, "config": CONFIG}
    with pytest.raises(DataError, match="expected the classes of the training pictures"):
        learning_curve(model, train, test.classes([0, 1]), **options)
    with pytest.raises(DataError, match="class red: expected 4 pictures or more to draw 4 shots, found 3"):
        learning_curve(model, train, test, methods=watched.all(), config=LearningCurveConfig(shots=(1, 4)))
    with pytest.raises(DataError, match="class white: expected one test picture"):
        learning_curve(model, train, test.take(range(15)), **options)
    with pytest.raises(DataError, match="methods: expected one or more, found none"):
        learning_curve(model, train, test, methods={})
    with pytest.raises(DataError, match=r"method '\.\./up': expected a name"):
        learning_curve(model, train, test, methods={"../up": watched.nearest}, config=CONFIG)
    with pytest.raises(DataError, match="shots: expected different numbers from 1, found 1, 1"):
        LearningCurveConfig(shots=(1, 1))
    with pytest.raises(DataError, match="seeds: expected different numbers from 0, found "):
        LearningCurveConfig(seeds=())
    with pytest.raises(DataError, match="method silent: expected its last event to carry"):
        learning_curve(model, train, test, methods={"silent": lambda *_: iter([Step("done")])}, config=CONFIG)
    assert not watched.given


def test_every_named_method_runs(model: DualEncoder, parts: tuple[LabelledImages, LabelledImages]) -> None:
    before = model.digest()
    methods = {name: learner(name, steps=2, batch=4, augment=False) for name in NAMES}
    config = LearningCurveConfig(shots=(2,), seeds=(0,))
    report = learning_curve(model, *parts, methods=methods, config=config)
    assert [row["method"] for row in report.rows] == list(NAMES)
    assert model.digest() == before
    with pytest.raises(DataError, match=r"method lorra: expected one of .* did you mean lora\?"):
        learner("lorra")


def test_only_transformers_have_tuners(model: DualEncoder) -> None:
    assert able(("lora", "tuners"), model) == ("lora", "tuners")
    assert able(("lora", "tuners"), tiny_dual_encoder("cnn")) == ("lora",)
