"""Unified tuners on a tiny vision transformer: what is learnt, kept in one file, taken away, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from photopic.core.edits import Adapters, ClassifierHead, Edit, compose
from photopic.core.edits import file as edit_file
from photopic.core.errors import DataError, EditError, ModelError
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.parameters.adapters import AdapterSpec, parameter_count
from photopic.learning.tuned_classifier import TunedClassifier
from photopic.tune.few_shot.unified_tuners import BRANCHES, UnifiedTunersConfig, unified_tuners
from tests.tiny_encoders import DIM, tiny_dual_encoder

QUICK = UnifiedTunersConfig(tuners=BRANCHES["tri"], length=2, steps=6, lr=1e-2, batch=8, augment=False)


def tuned(model: Any, data: LabelledImages, config: UnifiedTunersConfig) -> TunedClassifier:
    return TunedClassifier(model, unified_tuners(model, FewShotTask(data), config=config))


@pytest.fixture(scope="module")
def task() -> LabelledImages:
    return emoji_task("held-out-style", classes=3, train_per_class=4, test_per_class=1, size=32)[0]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_dual_encoder()


@pytest.fixture(scope="module")
def classifier(model: Any, task: LabelledImages) -> TunedClassifier:
    return tuned(model, task, QUICK)


def test_training_changes_no_frozen_byte_and_lowers_the_loss(model: Any, task: LabelledImages) -> None:
    before, hooks = model.digest(), [len(part._forward_hooks) for part in model.network.modules()]
    events = unified_tuners.events(model, FewShotTask(task), config=replace(QUICK, steps=20, batch=12))
    losses = [event.numbers["loss"] for event in events if event.numbers]
    assert len(losses) == 20 and losses[-1] < losses[0]
    assert model.digest() == before
    assert [len(part._forward_hooks) for part in model.network.modules()] == hooks
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.network.parameters())


def test_everything_that_is_trained_moves(model: Any, task: LabelledImages, classifier: TunedClassifier) -> None:
    start = tuned(model, task, replace(QUICK, lr=1e-12))
    for before, after in zip(start.edit.parts, classifier.edit.parts, strict=True):
        assert type(before) is type(after)
        if isinstance(before, Adapters):
            still = [name for name in before.tensors if torch.equal(before.tensors[name], after.tensors[name])]
            assert not still
    assert len(classifier.edit.parts) == 2


def test_trained_numbers_are_the_formulas_and_the_head(classifier: TunedClassifier) -> None:
    branches = sum(parameter_count(spec, DIM, blocks=2) for spec in QUICK.specs)
    assert classifier.trainable == branches + 3 * DIM + 3
    assert classifier.edit.provenance["trained"] == classifier.trainable


@pytest.mark.parametrize("name", BRANCHES)
def test_before_training_every_preset_is_the_zero_shot_model(name: str, model: Any, task: LabelledImages) -> None:
    config = replace(QUICK, tuners=BRANCHES[name], steps=1, lr=1e-30, weight_decay=0.0)
    found = tuned(model, task, config).logits(task.images)
    torch.testing.assert_close(found, model.zero_shot(task.images, task.names), atol=1e-5, rtol=1e-5)
    empty = tuned(model, task, replace(config, head="zeros")).logits(task.images)
    assert float(empty.abs().max()) < 1e-6


def test_one_file_holds_the_classifier(model: Any, task: LabelledImages, classifier: Any, tmp_path: Path) -> None:
    plain = model.image_features(task.images)
    logits = classifier.logits(task.images)
    classifier.save(tmp_path / "pets.edit")
    read = TunedClassifier.load(model, tmp_path / "pets.edit")
    assert torch.equal(read.logits(task.images), logits)
    assert read.labels == task.names and set(read.predict(task.images)) <= set(task.names)
    assert classifier.size_bytes == (tmp_path / "pets.edit").stat().st_size
    assert edit_file.to_bytes(read.edit) == edit_file.to_bytes(classifier.edit)
    assert torch.equal(model.image_features(task.images), plain)
    with model.edits.applied(read.edit, weight={"*.mlp": 0.0}):
        assert not torch.equal(model.image_features(task.images), plain)
    other = tiny_dual_encoder(seed=1)
    with pytest.raises(EditError, match="made for base tiny-vit"):
        TunedClassifier(other, read.edit).logits(task.images)


def test_a_classifier_needs_one_head(model: Any, classifier: TunedClassifier) -> None:
    alone = Edit(tuple(part for part in classifier.edit.parts if isinstance(part, Adapters)), model.fingerprint())
    with pytest.raises(EditError, match="expected an edit with a head, found tuner"):
        TunedClassifier(model, alone)
    head = classifier.head
    second = Edit((ClassifierHead(head.labels, head.weight, head.bias + 1),), model.fingerprint())
    with pytest.raises(EditError, match="two heads"):
        compose(classifier.edit, second)
    assert len(compose(classifier.edit, alone).parts) == 2


def test_the_rate_rises_and_falls() -> None:
    config = UnifiedTunersConfig(steps=100, lr=1.0)
    rates = [config.rate(step) for step in range(100)]
    assert rates[:2] == [0.1, 0.2] and max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 0.001
    assert UnifiedTunersConfig(steps=4, lr=1.0, warm_up=0.0).rate(0) == 1.0


def test_bad_input_is_named(model: Any, task: LabelledImages) -> None:
    with pytest.raises(DataError, match="warm_up: expected less than 1, found 1"):
        UnifiedTunersConfig(warm_up=1.0)
    with pytest.raises(DataError, match="two or more to tell apart"):
        tuned(model, task.classes([0]), QUICK)
    unnamed = LabelledImages(task.images, task.labels, (*task.names[:-1], " "))
    with pytest.raises(DataError, match="expected words, found none"):
        tuned(model, unnamed, QUICK)
    with pytest.raises(ModelError, match="expected an image tower of transformer blocks"):
        tuned(tiny_dual_encoder("cnn"), task, QUICK)
    with pytest.raises(DataError, match="several beside ffn"):
        tuned(model, task, replace(QUICK, tuners=(AdapterSpec("ffn"), AdapterSpec("ffn", "prefix"))))
