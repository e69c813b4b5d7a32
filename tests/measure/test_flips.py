"""Flips of two classifiers, against pictures whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from photopic.core.errors import DataError
from photopic.data.few_shot import LabelledImages
from photopic.measure.flips import flips, flips_view
from photopic.models.classifier import Classifier
from tests.tiny_classifiers import tiny_class_folder, tiny_classifier


class Says(nn.Module):
    """Names the class that the red channel says, exchanged as told."""

    def __init__(self, table: list[int]):
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.table = table

    def forward(self, pixels: Tensor) -> Tensor:
        said = [self.table[round(float(each))] for each in pixels[:, 0, 0, 0] * 255]
        return self.head(nn.functional.one_hot(Tensor(said).long(), 3).float())


def classifier(table: list[int], labels: str) -> Classifier:
    network = Says(table)
    network.head.weight.data.copy_(Tensor([[float(a == b) for b in "abc"] for a in labels]))
    return Classifier(
        network,
        preprocess=lambda images: Tensor(np.stack(images)).permute(0, 3, 1, 2) / 255,
        labels=tuple(labels),
        name=labels,
    )


def test_shares_are_those_of_a_hand_made_table() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    first = [0, 0, 1, 1, 1, 2, 2, 2]  # right on 0, 1, 4, 7
    second = [0, 1, 0, 0, 1, 1, 2, 0]  # right on 0, 2, 3, 4, 5; its classes stand in another order
    pictures = np.zeros((8, 2, 2, 3), np.uint8)
    pictures[..., 0] = np.arange(8)[:, None, None]
    report = flips(classifier(first, "abc"), classifier(second, "cab"), LabelledImages(pictures, truth, tuple("abc")))
    values = report.values
    assert (values["accuracy"], values["other_accuracy"]) == (4 / 8, 5 / 8)
    assert (values["positive"], values["negative"]) == (3 / 8, 2 / 8)  # 2, 3, 5 and 1, 7
    assert (values["both"], values["neither"]) == (2 / 8, 1 / 8)
    assert values["positive_interval"][0] < 3 / 8 < values["positive_interval"][1]
    assert [(row["class"], row["pictures"], row["positive"], row["negative"]) for row in report.rows] == [
        ("a", 4, 2 / 4, 1 / 4), ("b", 3, 1 / 3, 0.0), ("c", 1, 0.0, 1.0),
    ]  # fmt: skip
    view = flips_view(report)
    assert "37.5%" in view.lead and "25.0%" in view.lead


def test_pictures_without_classes_say_nothing() -> None:
    data = tiny_class_folder()
    with pytest.raises(DataError, match="found pictures alone"):
        flips(tiny_classifier(), tiny_classifier(seed=1), type(data)(data.files, None))
