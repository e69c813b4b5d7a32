"""Training on mixed pictures: it learns, statistics of normalisation come along, runs go on exactly, bad input is one error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from photopic.core.edits import DenseDelta
from photopic.core.edits.file import load, save
from photopic.core.errors import DataError
from photopic.core.runs import Run
from photopic.data.few_shot import LabelledImages
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing
from photopic.train.adaptation.fmix import FMixConfig, MixedTraining, fmix
from tests.tiny_classifiers import CLASSES, tiny_classifier

CONFIG = FMixConfig(steps=5, batch=8, augment=False)
LABELS = np.arange(24) % 4
RNG = np.random.default_rng(0)
IMAGES = (RNG.integers(0, 60, (24, 16, 16, 3)) + 60 * LABELS[:, None, None, None]).astype(np.uint8)
DATA = LabelledImages(IMAGES, LABELS, CLASSES)


@pytest.mark.parametrize("mixing", ["fmix", "cutmix", "mixup", "none"])
def test_a_classifier_learns_its_classes_from_mixed_pictures(mixing: str) -> None:
    model = tiny_classifier()
    before = model.digest()
    edit = fmix(model, DATA, config=replace(CONFIG, mixing=mixing, steps=150, lr=0.03))
    assert model.digest() == before and edit.provenance["mixing"] == mixing
    with model.edits.applied(edit):
        right = (model.logits(DATA.images).argmax(1).numpy() == LABELS).mean()
    assert right > 0.8 and model.digest() == before


def test_the_edited_model_is_the_trained_copy_statistics_included(tmp_path: Path) -> None:
    model, learner = tiny_classifier(), MixedTraining(tiny_classifier(), DATA, CONFIG)
    for step in range(CONFIG.steps):
        learner.step(step)
    edit = fmix(model, DATA, config=CONFIG)
    save(edit, tmp_path / "x.edit")
    names = edit.of(DenseDelta)[0].names()
    assert {"network.1.running_mean", "network.1.running_var", "network.0.weight"} <= set(names)
    pixels = model.preprocess(IMAGES)
    with model.edits.applied(load(tmp_path / "x.edit")):
        assert torch.allclose(model.forward(pixels), learner.network.eval()(pixels), atol=1e-4)


def test_an_interrupted_run_ends_in_the_same_edit(tmp_path: Path) -> None:
    parts = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    torch.manual_seed(0)
    network = nn.Sequential(*parts, nn.Linear(4, 4))
    model = Classifier(network, preprocess=Preprocessing(resize=(12, 12)), labels=CLASSES, name="dropped")
    whole = fmix(model, DATA, config=CONFIG)
    events = fmix.events(model, DATA, config=CONFIG, run=Run(tmp_path / "run"))
    for event in events:
        if event.done == 3:
            break
    events.close()  # type: ignore[attr-defined]
    again = fmix(model, DATA, config=CONFIG, run=Run(tmp_path / "run"))
    for one, other in zip(whole.parts, again.parts, strict=True):
        assert all(torch.equal(one.deltas[name], other.deltas[name]) for name in one.names())  # type: ignore[attr-defined]


def test_bad_input_is_one_error() -> None:
    model = tiny_classifier()
    with pytest.raises(DataError, match="the model names, found 'whale'"):
        fmix(model, LabelledImages(IMAGES, LABELS, ("bear", "mug", "brown owl", "whale")))
    with pytest.raises(DataError, match="two or more in sub-folders named as classes, found one picture"):
        fmix(model, DATA.take([0]))
