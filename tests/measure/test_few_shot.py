"""Learning curves: the same shots for all, resumed to the same numbers, refused before anything takes time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from photopic.core.edits import ClassifierHead, Edit
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.runs import Run, RunMismatchError
from photopic.data.few_shot import LabelledImages, ShotPool
from photopic.learning.classifiers import TextClassifier, Tuned
from photopic.learning.tuned_classifier import TunedClassifier
from photopic.measure._few_shot_methods import METHODS, able
from photopic.measure.few_shot import LearningCurveConfig, learning_curve
from photopic.models.dual_encoder import DualEncoder
from tests.tiny_encoders import SIDE, tiny_dual_encoder

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "white": (230, 230, 230)}
CONFIG = LearningCurveConfig(shots=(1, 2), seeds=2)


def colours(each: int, seed: int) -> LabelledImages:
    rng = np.random.default_rng(seed)
    images = np.concatenate([rng.normal(colour, 30, (each, SIDE, SIDE, 3)) for colour in COLOURS.values()])
    return LabelledImages(images.clip(0, 255).astype(np.uint8), np.repeat(range(4), each), tuple(COLOURS))


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return tiny_dual_encoder("vit")


@pytest.fixture(scope="module")
def pool() -> ShotPool:
    return ShotPool(colours(3, seed=0), colours(5, seed=1))


class Watched:
    """Methods that learn by counting, and remember the shots they were given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, int, str]] = []

    def nearest(self, model: DualEncoder, data: LabelledImages, seed: int) -> Steps[Tuned]:
        self.given.append(("nearest", seed, data.digest))
        features = model.image_features(data.images)
        means = torch.stack([features[data.labels == label].mean(0) for label in range(len(data.names))])
        yield Event("learning", 1, 1, {"accuracy": 0.25})
        head = ClassifierHead(data.names, means, -means.square().sum(1) / 2)
        return TunedClassifier(model, Edit((head,), model.fingerprint()))

    def names(self, model: DualEncoder, data: LabelledImages, seed: int) -> Steps[Tuned]:
        self.given.append(("names", seed, data.digest))
        yield Event("learning")
        return TextClassifier(model, model.class_features(data.names), trainable=3)

    def nothing(self, model: DualEncoder, data: LabelledImages, seed: int) -> Steps[Tuned]:
        self.given.append(("nothing", seed, data.digest))
        yield Event("learning")
        return TextClassifier(model, model.class_features(data.names))

    def all(self) -> dict[str, Any]:
        return {"nothing": self.nothing, "nearest": self.nearest, "names": self.names}


def numbers(rows: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_every_method_gets_the_shots_of_a_seed(model: DualEncoder, pool: ShotPool) -> None:
    watched = Watched()
    report = learning_curve(model, pool, others=watched.all(), config=CONFIG)
    train = pool.train
    wanted = [(seed, train.shots(shots, seed).digest) for shots in (1, 2) for seed in (0, 1)]
    for method in ("nearest", "names"):
        assert [(seed, digest) for name, seed, digest in watched.given if name == method] == wanted
    assert [(row["method"], row["shots"]) for row in report.rows] == [
        (name, shots) for name in ("nothing", "nearest", "names") for shots in (1, 2)
    ]
    assert all(row["seeds"] == 2 for row in report.rows)
    assert report.values["test_pictures"] == [20] and report.values["reference"] is None


def test_the_numbers_are_the_classifiers(model: DualEncoder, pool: ShotPool) -> None:
    config = LearningCurveConfig(shots=(2,), seeds=1, seed=4, reference="nothing")
    report = learning_curve(model, pool, others=Watched().all(), config=config)
    test = pool.test
    wanted = (model.zero_shot(test.images, test.names).argmax(1).numpy() == test.labels).mean()
    by_method = {row["method"]: row for row in report.rows}
    assert by_method["nothing"]["score"] == by_method["names"]["score"] == wanted
    assert by_method["names"]["gain"] == 0.0 and by_method["nothing"]["gain"] is None
    assert by_method["nearest"]["score"] > 0.9 and by_method["nearest"]["gain_low"] > 0


def test_what_learns_nothing_is_measured_once(model: DualEncoder, pool: ShotPool) -> None:
    watched = Watched()
    learning_curve(model, pool, others={"nothing": watched.nothing}, config=CONFIG)
    assert len(watched.given) == 1


def test_an_interrupted_curve_goes_on_to_the_same_numbers(model: DualEncoder, pool: ShotPool, tmp_path: Path) -> None:
    whole = learning_curve(model, pool, others=Watched().all(), config=CONFIG)
    first = Watched()
    events = learning_curve.events(model, pool, others=first.all(), config=CONFIG, run=Run(tmp_path / "run"))
    for event in events:
        if event.stage.startswith("5 of 12") and "accuracy" in event.numbers:  # as Ctrl-C would
            break
    events.close()  # type: ignore[attr-defined]
    second = Watched()
    resumed = learning_curve(model, pool, others=second.all(), config=CONFIG, run=Run(tmp_path / "run"))
    assert numbers(resumed.rows) == numbers(whole.rows)
    assert not set(first.given) & set(second.given) and second.given
    third = Watched()
    more = LearningCurveConfig(shots=(1, 2, 3), seeds=2)
    learning_curve(model, pool, others=third.all(), config=more, run=Run(tmp_path / "run"))
    assert [name for name, *_ in third.given] == ["nearest", "nearest", "names", "names"]  # only what 3 shots add


def test_a_folder_of_another_measurement_is_refused(model: DualEncoder, pool: ShotPool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"others": {"nothing": Watched().nothing}, "run": Run(tmp_path / "run")}
    learning_curve(model, pool, config=CONFIG, **options)
    with pytest.raises(RunMismatchError, match="holds another run"):
        learning_curve(model, pool, config=replace(CONFIG, steps=6), **options)
    with pytest.raises(RunMismatchError, match="holds another run"):
        learning_curve(model, ShotPool(pool.train, colours(5, seed=2)), config=CONFIG, **options)


def test_base_to_new_learns_half_and_measures_both(model: DualEncoder, pool: ShotPool) -> None:
    seen: list[tuple[str, ...]] = []

    def names(model: DualEncoder, data: LabelledImages, seed: int) -> Steps[Tuned]:
        seen.append(data.names)
        yield Event("learning")
        return TextClassifier(model, model.class_features(data.names), trainable=1)

    config = LearningCurveConfig(shots=(1,), seeds=1, base_to_new=True)
    report = learning_curve(model, pool, others={"names": names, "nearest": Watched().nearest}, config=config)
    assert seen == [("blue", "green")]  # the first half by name
    named, nearest = report.rows
    test = pool.test.classes([0, 3])  # red and white are new
    wanted = (model.zero_shot(test.images, test.names).argmax(1).numpy() == test.labels).mean()
    assert named["new"] == wanted and 0 <= named["score"] <= 1
    assert nearest["new"] is None and nearest["score"] is None and nearest["base"] > 0.9
    assert report.values["test_pictures"] == [10, 10]


def test_events_say_what_is_going_on(model: DualEncoder, pool: ShotPool) -> None:
    config = LearningCurveConfig(shots=(1,), seeds=1)
    _, first, measured, last = learning_curve.events(model, pool, others={"near": Watched().nearest}, config=config)
    assert (first.stage, first.done, first.numbers) == ("1 of 1: near, 1 shot, seed 0", 1, {"accuracy": 0.25})
    assert measured.stage == first.stage and measured.numbers["accuracy"] > 0.5
    assert last.result is not None and last.result.provenance["model"] == "tiny-vit"


def test_bad_input_is_refused_before_anything_runs(model: DualEncoder, pool: ShotPool) -> None:
    watched = Watched()
    with pytest.raises(DataError, match="expected the classes of the training pictures"):
        ShotPool(pool.train, pool.test.classes([0, 1]))
    with pytest.raises(DataError, match="class white: expected one test picture"):
        ShotPool(pool.train, pool.test.take(range(15)))
    with pytest.raises(DataError, match="class red: expected 4 pictures or more to draw 4 shots, found 3"):
        learning_curve(model, pool, others=watched.all(), config=LearningCurveConfig(shots=(1, 4)))
    for name in ("../up", "lora"):
        with pytest.raises(DataError, match=f"method '{name}': expected a name"):
            learning_curve(model, pool, others={name: watched.nearest}, config=CONFIG)
    with pytest.raises(DataError, match="shots: expected different numbers from 1, found 1, 1"):
        LearningCurveConfig(shots=(1, 1))
    assert not watched.given


def test_every_named_method_runs(model: DualEncoder, pool: ShotPool) -> None:
    before = model.digest()
    config = LearningCurveConfig(methods=tuple(METHODS), shots=(2,), seeds=1, steps=2, batch=4, augment=False)  # type: ignore[arg-type]
    report = learning_curve(model, pool, config=config)
    assert [row["method"] for row in report.rows] == list(METHODS)
    assert model.digest() == before


def test_only_transformers_have_tuners(model: DualEncoder) -> None:
    assert able(("lora", "tuners"), model) == ("lora", "tuners")
    assert able(("lora", "tuners"), tiny_dual_encoder("cnn")) == ("lora",)
