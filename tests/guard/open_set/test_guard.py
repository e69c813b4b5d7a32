"""A guard around a classifier: its promise, its verdicts, its state and file; choosing a scorer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from photopic.core.errors import DataError, ModelError
from photopic.guard.guardfile import GuardFileError, SavedCheck, SavedGuard, load, save
from photopic.guard.open_set import FEW_SHOT, KNN, MSP, SCORERS, MaxLogit
from photopic.guard.open_set.guard import OpenSetConfig, OpenSetGuard
from photopic.guard.open_set.selection import select
from photopic.models.classifier import Classifier
from tests.guard.open_set.small import coloured, small_classifier, strange


@pytest.fixture(scope="module")
def model() -> Classifier:
    return small_classifier()


def fitted(model: Classifier, scorer: str, rate: float = 0.1) -> OpenSetGuard:
    images, labels = coloured(200, seed=1)
    shots = strange(12, seed=2) if scorer in FEW_SHOT else None
    return OpenSetGuard(model, OpenSetConfig(scorer, rate)).fit(images, labels, references=shots)


@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_keeps_its_rate_leaves_the_model_alone_and_comes_back_from_its_state(
    model: Classifier, scorer: str, tmp_path: Path
) -> None:
    before = model.digest()
    guard = fitted(model, scorer)
    verdicts = guard.predict(coloured(400, seed=3)[0])
    rejected = np.mean([not verdict.accepted for verdict in verdicts])
    assert rejected < 0.2  # 0.1 asked for; 3 standard deviations of 100 to 200 calibration pictures
    assert model.digest() == before
    verdict = verdicts[0]
    assert verdict.accepted == (verdict.evidence["score"] <= verdict.evidence["threshold"])
    assert verdict.evidence["label"] in verdict.reason and verdict.provenance["caveats"]
    save(SavedGuard("small", before, [SavedCheck("open_set", *guard.state())]), tmp_path / "guard")
    saved = load(tmp_path / "guard").checks[0]
    again = OpenSetGuard.of_state(model, saved.settings, saved.arrays)
    images = strange(20, seed=4)
    np.testing.assert_array_equal(again.score(images), guard.score(images))
    assert [each.to_dict() for each in again.predict(images)] == [each.to_dict() for each in guard.predict(images)]


def test_unknown_pictures_are_rejected_far_more_often_than_clean_ones(model: Classifier) -> None:
    for scorer in ("knn", "fs-knns"):
        guard = fitted(model, scorer, 0.05)
        accepted = np.mean([verdict.accepted for verdict in guard.predict(strange(100, seed=5))])
        assert accepted < 0.3, scorer


def test_p_values_are_those_of_split_conformal_prediction(model: Classifier) -> None:
    guard = fitted(model, "msp")
    assert guard.calibration is not None and len(guard.calibration) == 200  # nothing is learned: all calibrate
    images = [*coloured(200, seed=1)[0], *coloured(30, seed=6)[0]]  # those of calibration too: every p-value is seen
    for verdict, score in zip(guard.predict(images), guard.score(images), strict=True):
        assert verdict.evidence["p_value"] == (1 + (guard.calibration >= score).sum()) / 201
        assert verdict.accepted == (verdict.evidence["p_value"] > 0.1)
    assert len(fitted(model, "knn").calibration) == 100  # type: ignore[arg-type]


def test_batches_make_no_difference(model: Classifier) -> None:
    guard, images = fitted(model, "vim"), strange(7, seed=7)
    whole = [verdict.evidence["score"] for verdict in guard.predict(images)]
    assert whole == pytest.approx([verdict.evidence["score"] for verdict in guard.predict(images, batch=2)], rel=1e-5)


def test_what_cannot_guard_is_refused(model: Classifier) -> None:
    images, labels = coloured(30, seed=8)
    with pytest.raises(DataError, match="needs references"):
        OpenSetGuard(model, OpenSetConfig("fs-knns")).fit(images)
    with pytest.raises(DataError, match="takes no references"):
        OpenSetGuard(model).fit(images, references=images)
    with pytest.raises(DataError, match="99 or more clean inputs"):
        OpenSetGuard(model, OpenSetConfig(false_positive_rate=0.01)).fit(images)
    with pytest.raises(DataError, match="labels: expected 30"):
        OpenSetGuard(model).fit(images, labels[:3])
    with pytest.raises(ModelError, match="not fitted"):
        OpenSetGuard(model).predict(images)
    with pytest.raises(DataError, match="expected one of msp"):
        OpenSetConfig("softmax")
    with pytest.raises(DataError, match="found a KNN"):
        OpenSetGuard(model, detector=KNN())
    settings, arrays = fitted(model, "knn").state()
    for broken in (
        ({**settings, "config": {}, "detector": None}, arrays),
        (settings, {**arrays, "bank_": arrays["bank_"][:, 1:]}),
        (settings, {**arrays, "bank_": arrays["bank_"] * np.nan}),
        (settings, {**arrays, "more": arrays["bank_"]}),
        (settings, {**arrays, "calibration": arrays["calibration"][::-1]}),
        ({**settings, "detector": {**settings["detector"], "offset": "0"}}, arrays),
    ):
        with pytest.raises(DataError):
            OpenSetGuard.of_state(model, *broken)


# --- the file


def test_a_guard_saves_to_the_same_bytes_and_damage_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.guard"
    guard = SavedGuard("net", "ab" * 32, [SavedCheck("open_set", {"k": 1}, {"bank": np.arange(6.0).reshape(2, 3)})])
    save(guard, file)
    content = file.read_bytes()
    save(guard, file)
    assert file.read_bytes() == content
    assert load(file).checks[0].arrays["bank"].tolist() == [[0, 1, 2], [3, 4, 5]]
    damaged = bytearray(content)
    damaged[-3] ^= 1
    for broken, message in (
        (bytes(damaged), "checksum"),
        (content[:-8], "something else"),
        (content.replace(b"guard 1", b"guard 2"), "another version"),
        (content.replace(b'\\"photopic guard 1\\"', b"2".ljust(20)), "expected a guard, found an edit"),
        (content.replace(b'\\"kind\\"', b'\\"mind\\"'), "expected the fields"),
        (b"", "something else"),
    ):
        file.write_bytes(broken)
        with pytest.raises(GuardFileError, match=message):
            load(file)
    save_file({"bank": np.zeros(3)}, tmp_path / "other")
    with pytest.raises(GuardFileError, match="another file"):
        load(tmp_path / "other")
    with pytest.raises(GuardFileError, match="nothing there"):
        load(tmp_path / "none")


# --- choosing


def test_the_better_scorer_is_chosen_and_its_threshold_keeps_the_rate(model: Classifier) -> None:
    train = model.features(coloured(100, seed=10)[0]).double().numpy()
    images, labels = coloured(300, seed=11)
    pictures = np.concatenate([images, strange(100, seed=12)])
    validation = model.features(pictures).double().numpy()
    known = np.arange(400) < 300
    correct = np.append(model.logits(images).argmax(1).numpy() == labels, np.zeros(100, bool))
    noise = MaxLogit(head=(np.random.default_rng(0).normal(size=(3, 16)), np.zeros(3)))
    candidates = {"noise": noise, "knn": KNN()}
    chosen = select(
        candidates, train, validation=validation, known=known, correct=correct, false_positive_rate=0.1, resamples=200
    )
    assert chosen.name == "knn" and chosen.interval.low <= chosen.interval.value <= chosen.interval.high
    assert sum(row["win_share"] for row in chosen.report.rows) == pytest.approx(1.0)
    rejected = chosen.detector.predict(validation[correct]) == -1
    assert rejected.mean() <= 0.1
    assert not hasattr(candidates["knn"], "bank_")  # candidates are copied
    by_f1 = select(candidates, train, validation=validation, known=known, correct=correct, metric="aurc", resamples=50)
    assert by_f1.name == "knn" and by_f1.threshold == -by_f1.detector.offset_
    with pytest.raises(DataError, match="1 of 400 samples are training samples"):
        select(candidates, np.append(train, validation[:1], 0), validation=validation, known=known, correct=correct)
    with pytest.raises(DataError, match="metric accuracy"):
        select(candidates, train, validation=validation, known=known, correct=correct, metric="accuracy")
    with pytest.raises(DataError, match="found none"):
        select({}, train, validation=validation, known=known, correct=correct)
    with pytest.raises(DataError, match="not defined"):
        select({"msp": MSP()}, train, validation=validation[:1], known=[True], correct=[True])
