"""General knowledge transfer on tiny real models: who teaches which picture, what is learnt, and that two strangers will do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from photopic.core.errors import DataError, ModelError
from photopic.data.few_shot import LabelledImages
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing
from photopic.train.distillation.knowledge_transfer import KnowledgeTransferConfig, knowledge_transfer, partition
from tests.tiny_classifiers import (
    CLASSES,
    knowing_classifier,
    saved_classifier,
    tinted_class_folder,
    tiny_class_folder,
    tiny_classifier,
)

COLOURS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250], [240, 240, 20]])


def accuracy(model: Classifier) -> float:
    found = tinted_class_folder()
    return float(np.mean(model.logits(found).argmax(1).numpy() == found.labels(CLASSES)))


def test_a_picture_is_taught_by_who_is_surer_of_it() -> None:
    own = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 1.0, 0.0]])
    taught = torch.tensor([[0.0, 3.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.1]])
    assert partition(own, taught, "confidence").tolist() == [True, False, False]
    assert partition(own, taught, "labels", torch.tensor([0, 1, 2])).tolist() == [False, False, True]
    assert partition(own, taught, "none").all()
    assert not partition(own, own, "confidence").any()  # nobody is surer: the student keeps it


def test_what_the_teacher_is_less_sure_of_is_taught_by_the_student_itself() -> None:
    """A teacher that is the student with softened logits teaches no picture: the loss is the student's own entropy."""
    model, soft, data = tiny_classifier(), tiny_classifier(), tinted_class_folder()
    with torch.no_grad():
        soft.head.weight.div_(50), soft.head.bias.div_(50)
    losses = {}
    for how in ("confidence", "none"):
        config = KnowledgeTransferConfig(steps=1, batch=len(data), partition=how)  # type: ignore[arg-type]
        events = list(knowledge_transfer.events(model, soft, data, config=config))
        losses[how] = next(event.numbers["loss"] for event in events if event.done)
        assert events[-1].result is not None and events[-1].result.provenance["taught"] == float(how == "none")
    own, taught = (each.logits(data).softmax(1) for each in (model, soft))
    assert losses["confidence"] == pytest.approx(float(-(own * own.log()).sum(1).mean()), rel=1e-5)
    assert losses["none"] == pytest.approx(float(-(taught * own.log()).sum(1).mean()), rel=1e-5)


def test_a_student_learns_from_a_teacher_with_other_inputs_and_its_classes_in_another_order() -> None:
    teacher = knowing_classifier()
    order = [2, 0, 3, 1]
    with torch.no_grad():
        teacher.head.weight.copy_(teacher.head.weight[order]), teacher.head.bias.copy_(teacher.head.bias[order])
    teacher = Classifier(
        teacher.network, preprocess=Preprocessing(resize=(12, 12)), labels=[CLASSES[each] for each in order]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(300, 16), nn.ReLU(), nn.Linear(16, 4))  # a module of one's own
    model = Classifier(network, preprocess=Preprocessing(resize=(10, 10)), labels=CLASSES)
    before, config = accuracy(model), KnowledgeTransferConfig(steps=150, lr=1e-2, batch=20)
    edit = knowledge_transfer(model, teacher, tinted_class_folder(), config=config)
    assert accuracy(model) == before
    with model.edits.applied(edit):
        assert accuracy(model) > max(before, 0.7)


def test_weight_interpolation_moves_less_and_with_one_step_exactly_its_share() -> None:
    model, teacher, data = tiny_classifier(), knowing_classifier(), tinted_class_folder()
    fast, slow = (
        knowledge_transfer(model, teacher, data, config=KnowledgeTransferConfig(steps=1, lr=1e-2, momentum=momentum))
        for momentum in (0.0, 0.75)
    )
    for name, delta in fast.parts[0].deltas.items():
        torch.testing.assert_close(slow.parts[0].deltas[name], 0.25 * delta, rtol=1e-4, atol=1e-6)


def test_asking_once_is_asking_at_every_step() -> None:
    """Without augmentation the answers are kept; a mirror that never turns a picture asks anew and says the same."""
    model, teacher, data = tiny_classifier(), knowing_classifier(), tinted_class_folder()
    both_ways = [np.concatenate([each, each[:, ::-1]], 1) for each in data[:]]
    palindromes = LabelledImages(both_ways, np.array(data.labels(CLASSES)), CLASSES)
    edits = [
        knowledge_transfer(model, teacher, palindromes, config=KnowledgeTransferConfig(steps=3, flip=flip))
        for flip in (False, True)
    ]
    for name, delta in edits[0].parts[0].deltas.items():
        torch.testing.assert_close(edits[1].parts[0].deltas[name], delta, rtol=1e-3, atol=1e-6)


def test_folders_of_transformers_teach_and_save_again(tmp_path: Path) -> None:
    teacher = Classifier.load(saved_classifier(tmp_path / "teacher", CLASSES, COLOURS))
    model = Classifier.load(saved_classifier(tmp_path / "student", CLASSES, COLOURS[::-1]))
    edit = knowledge_transfer(model, teacher, tiny_class_folder(), config=KnowledgeTransferConfig(steps=2))
    with model.edits.applied(edit):
        model.save(tmp_path / "taught")
        taught = model.logits(tiny_class_folder())
    again = Classifier.load(tmp_path / "taught")
    torch.testing.assert_close(again.logits(tiny_class_folder()), taught)
    assert again.labels == model.labels and again.digest() != model.digest()
    with pytest.raises(ModelError, match="keep the edit"):
        tiny_classifier().save(tmp_path / "own")


def test_what_cannot_be_taught_is_refused() -> None:
    model, data = tiny_classifier(), tiny_class_folder()
    other = Classifier(model.network, preprocess=model.preprocess, labels=["bear", "mug", "brown owl", "fox"])
    with pytest.raises(ModelError, match=r"expected the 4 classes of tiny-cnn.*only model has 'fox'"):
        knowledge_transfer(model, other, data)
    alone = LabelledImages(data[:2], np.array([0, 0]), ("a stone",))
    with pytest.raises(DataError, match="found 'a stone'"):
        knowledge_transfer(model, model, alone)
    loose = type(data)(data.files, None)
    with pytest.raises(DataError, match="--partition labels, found pictures alone"):
        knowledge_transfer(model, model, loose, config=KnowledgeTransferConfig(partition="labels"))
