"""Independence deficit: a planted dependency is found, and fitting one class's samples alone looks better than it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photopic.core.errors import DataError
from photopic.measure.independence_deficit import (
    DeficitConfig,
    Replacement,
    independence_deficit,
    published_fits,
)
from photopic.models.classifier import Classifier

CLASSES, PER_CLASS = 8, 20
CONFIG = DeficitConfig(keep=3, steps=300, rate=1e-3, penalty=0.1)


def classifier(weight: Tensor | None = None) -> Classifier:
    """Logits are the pixels themselves, so that a test can choose them."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, CLASSES, bias=False))
    network[1].weight.data = torch.eye(CLASSES, 48) if weight is None else weight

    def preprocess(images: Any) -> Tensor:
        return torch.tensor(np.stack(images), dtype=torch.float32).permute(0, 3, 1, 2) / 25

    return Classifier(network, preprocess=preprocess, labels=[f"class {each}" for each in range(CLASSES)])


def pictures(dependent: bool = True) -> tuple[np.ndarray, list[int]]:
    """Pictures whose own class's logit is raised; with ``dependent`` the head makes class 5 a sum of 1 and 2."""
    generator = np.random.default_rng(0)
    labels = [each for each in range(CLASSES) for _ in range(PER_CLASS)]
    flat = generator.integers(0, 120, (len(labels), 48), dtype=np.uint8)
    flat[np.arange(len(labels)), labels] += 130
    return flat.reshape(-1, 3, 4, 4).transpose(0, 2, 3, 1).copy(), labels


def planted() -> Classifier:
    weight = torch.eye(CLASSES, 48)
    weight[5] = 1.5 * weight[1] - 0.5 * weight[2] + 0.02 * torch.eye(48)[40]
    return classifier(weight)


def rows(report: Any, fit: str) -> dict[str, dict[str, Any]]:
    return {row["class"]: row for row in report.rows if row["fit"] == fit}


def test_a_planted_dependency_is_found_by_every_fit() -> None:
    images, labels = pictures()
    report = independence_deficit(planted(), images, labels=labels, classes=["class 5", "class 6"], config=CONFIG)
    for fit in ("published", "positives", "all samples"):
        found = rows(report, fit)["class 5"]
        assert {"class 1", "class 2"} <= set(found["support"]), fit
    found = rows(report, "all samples")["class 5"]
    weights = dict(zip(found["support"], found["weights"], strict=True))
    assert weights["class 1"] == pytest.approx(1.5, abs=0.05) and weights["class 2"] == pytest.approx(-0.5, abs=0.05)
    assert found["error_all"] < 0.05 < 0.5 < rows(report, "all samples")["class 6"]["error_all"]
    assert abs(found["recall"] - found["recall_replaced"]) < 0.3


def test_fitting_the_positives_alone_looks_better_than_it_is() -> None:
    images, labels = pictures()
    values = independence_deficit(classifier(), images, labels=labels, config=replace(CONFIG, keep=7)).values
    assert values["positives"]["fit_error"] < values["all samples"]["fit_error"]  # the optimism of the published choice
    assert values["positives"]["error_all"] > 2 * values["positives"]["fit_error"]
    assert values["all samples"]["error_all"] < values["positives"]["error_all"]
    assert values["published"]["error_all"] > values["published"]["fit_error"]


def test_the_published_descent_is_the_plain_recipe_class_by_class() -> None:
    generator = torch.Generator().manual_seed(3)
    samples = [torch.randn(count, 6, generator=generator).double() for count in (5, 9)]
    together = published_fits(samples, [2, 4], steps=50, rate=1e-3, penalty=20.0, keep=6)
    for number, each in enumerate((2, 4)):
        x = samples[number].float()
        y, others = x[:, each], [k for k in range(6) if k != each]
        w = torch.zeros(5, requires_grad=True)
        for _ in range(50):
            loss = ((x[:, others] @ w - y) ** 2).mean() + 20 * w.abs().sum()
            (gradient,) = torch.autograd.grad(loss, w)
            w = (w - 1e-3 * gradient).detach().requires_grad_(True)
        alone = dict(zip(together[number].support, together[number].weights, strict=True))
        assert np.allclose([alone.get(k, 0.0) for k in others], w.tolist(), atol=1e-6)
        assert each not in together[number].support and together[number].offset == 0


def test_only_the_largest_weights_are_kept() -> None:
    samples = [torch.randn(30, 6, generator=torch.Generator().manual_seed(1)).double()]
    whole = published_fits(samples, [0], steps=20, rate=1e-2, penalty=0.0, keep=6)[0]
    kept = published_fits(samples, [0], steps=20, rate=1e-2, penalty=0.0, keep=2)[0]
    largest = sorted(zip(whole.weights, whole.support, strict=True), key=lambda pair: -abs(pair[0]))[:2]
    assert {(support, weight) for weight, support in largest} == set(zip(kept.support, kept.weights, strict=True))


def test_a_replacement_is_the_sum_it_says() -> None:
    logits = torch.arange(6.0).reshape(2, 3)
    assert Replacement((0, 2), (2.0, -1.0), 0.5).of(logits).tolist() == [-1.5, 1.5]
    assert Replacement((), (), 0.5).of(logits).tolist() == [0.5, 0.5]


def test_no_fit_sees_what_it_is_judged_on_and_classes_with_few_pictures_are_left_out() -> None:
    images, labels = pictures()
    kept = [index for index, label in enumerate(labels) if label != 7 or index == len(labels) - 1]
    events = list(
        independence_deficit.events(classifier(), images[kept], labels=[labels[i] for i in kept], config=CONFIG)
    )
    report = events[-1].result
    assert report is not None
    assert any("1 classes have fewer than three images" in event.warning for event in events)
    assert "class 7" not in {row["class"] for row in report.rows}
    assert {row["samples"] for row in report.rows if row["fit"] == "published"} == {PER_CLASS * 3 // 4}
    assert report.provenance["held_out"] == 7 * PER_CLASS // 4


def test_bad_input_is_said_in_a_line() -> None:
    images, labels = pictures()
    model = classifier()
    with pytest.raises(DataError, match="labels: expected a whole number for each of 160 images"):
        independence_deficit(model, images, labels=labels[:-1], config=CONFIG)
    with pytest.raises(DataError, match="labels: expected 0 to 7, found 0 to 9"):
        independence_deficit(model, images, labels=[*labels[:-1], 9], config=CONFIG)
    with pytest.raises(DataError, match="expected a class with three images"):
        independence_deficit(model, images[::20], labels=labels[::20], config=CONFIG)
    with pytest.raises(DataError, match="diverges at a step size of 10"):
        independence_deficit(model, images, labels=labels, config=replace(CONFIG, rate=10.0))
    weight = torch.eye(CLASSES, 48)
    weight[3] = 0
    events = list(independence_deficit.events(classifier(weight), images, labels=labels, config=CONFIG))
    assert any("logits of 1 classes are constant" in event.warning for event in events)
    model.head.weight.data[0, 0] = torch.inf
    with pytest.raises(DataError, match="logits: image 0 has"):
        independence_deficit(model, images, labels=labels, config=CONFIG)


def test_fewer_samples_than_classes_is_said() -> None:
    images, labels = pictures()
    few = [index for index in range(len(labels)) if index % PER_CLASS < 3 and labels[index] < 3]
    events = independence_deficit.events(classifier(), images[few], labels=[labels[i] for i in few], config=CONFIG)
    assert any("one solution of many" in event.warning for event in events)


def test_without_a_rate_the_published_one_is_taken_where_it_converges_and_a_smaller_one_where_not() -> None:
    generator = torch.Generator().manual_seed(0)
    small = [torch.randn(30, 5, generator=generator)]
    options = {"steps": 40, "penalty": 0.5, "keep": 5}
    assert published_fits(small, [1], rate=None, **options) == published_fits(small, [1], rate=1e-5, **options)
    large = [1e3 * each for each in small]
    with pytest.raises(DataError, match="diverges"):
        published_fits(large, [1], rate=1e-5, steps=400, penalty=0.5, keep=5)
    (found,) = published_fits(large, [1], rate=None, steps=400, penalty=0.5, keep=5)
    others = large[0].clone()
    others[:, 1] = 0
    best = torch.linalg.lstsq(others[:, [0, 2, 3, 4]], large[0][:, 1]).solution
    assert torch.allclose(torch.tensor(found.weights), best.float(), atol=0.05)
