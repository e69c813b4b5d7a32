"""Network rank: counts are those of the singular values, tools agree where they must, and the classifier is not touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photopic.core.errors import DataError, ModelError
from photopic.core.events import finished
from photopic.measure.network_rank import (
    NetworkRankConfig,
    classification_dimension,
    free_patch,
    jacobian_ranks,
    network_rank,
    perturbation_ranks,
)
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

EXACT = NetworkRankConfig(patch=None, dtype="float64", jacobian_images=2, perturbed_images=2, samples=60)
EPS32 = 1.1920928955078125e-07


def rows(events: Any) -> tuple[dict[str, Any], ...]:
    return finished(events).rows


def decaying(outputs: int, inputs: int, last: float) -> nn.Linear:
    """A linear layer with log-spaced singular values from 1 to ``last``."""
    generator = torch.Generator().manual_seed(0)
    small = min(outputs, inputs)
    left = torch.linalg.qr(torch.randn(outputs, small, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(inputs, small, generator=generator, dtype=torch.float64)).Q
    layer = nn.Linear(inputs, outputs).double()
    values = torch.logspace(0, np.log10(last), small, dtype=torch.float64)
    layer.weight.data = left @ torch.diag(values) @ right.T
    return layer.requires_grad_(False)


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)]
    network = nn.Sequential(*parts, nn.Flatten(), nn.Linear(6, 4))
    return Classifier(network, preprocess=Preprocessing(resize=(12, 12)), labels=["a", "b", "c", "d"])


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 14, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (600, 30)])
def test_the_jacobian_count_is_that_of_the_singular_values(shape: tuple[int, int]) -> None:
    layer = decaying(*shape, last=1e-4)
    values = torch.linalg.svdvals(layer.weight)
    config = replace(EXACT, thresholds=(1e-2, 1e-3, 1e-8), mode="forward")
    found = {row["threshold"]: row["rank"] for row in rows(jacobian_ranks(layer, torch.ones(1, shape[1]), [], config))}
    published = (30 * EPS32) ** 0.5
    assert set(found) == {published, 1e-2, 1e-3, 1e-8}
    for threshold, rank in found.items():
        assert rank == (values > threshold * values[0]).sum()
    assert found[1e-8] == 30 and found[1e-2] < 20


def test_single_precision_gives_the_same_counts_where_it_resolves_them_and_none_where_it_does_not() -> None:
    layer = decaying(600, 30, last=1e-3)
    pixels = torch.ones(1, 30)
    double = {row["threshold"]: row["rank"] for row in rows(jacobian_ranks(layer, pixels, [], EXACT))}
    single = {
        row["threshold"]: row["rank"] for row in rows(jacobian_ranks(layer.float(), pixels, [], replace(EXACT, dtype="float32")))
    }  # fmt: skip
    assert single[1e-2] == double[1e-2] and single[(30 * EPS32) ** 0.5] == double[(30 * EPS32) ** 0.5]
    assert double[1e-8] == 30 and single[1e-8] is None


def test_the_dimension_of_noise_after_a_linear_layer_is_the_rank_of_its_weight() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(20, 50)
    layer.weight.data = torch.randn(50, 7) @ torch.randn(7, 20)
    layer.requires_grad_(False)
    for config in (replace(EXACT, samples=400), replace(EXACT, samples=400, dtype="float32")):
        found = [row for row in rows(perturbation_ranks(layer, torch.randn(2, 20), [], config))]
        assert [row["rank"] for row in found if row["rule"] == "published"] == [7.0]
    few = rows(perturbation_ranks(layer, torch.randn(1, 20), [], replace(EXACT, samples=5)))
    assert next(row["rank"] for row in few if row["rule"] == "published") == 4  # at most the copies less one


def test_neither_chunks_nor_memory_nor_mode_change_the_numbers(model: Classifier, images: np.ndarray) -> None:
    config = NetworkRankConfig(patch=8, dtype="float64", jacobian_images=2, perturbed_images=1, samples=40, noise=1e-9)
    whole = network_rank(model, images, config=config)
    for other in (
        replace(config, chunk=5),
        replace(config, memory=40_000),
        replace(config, mode="reverse"),
    ):
        again = network_rank(model, images, config=other)
        assert [row["rank"] for row in again.rows] == [row["rank"] for row in whole.rows]
        floors = [
            [row["floor"] for row in report.rows] for report in (whole, again)
        ]  # follow the largest value of the noise
        assert np.allclose(*floors, rtol=1e-4, atol=0)
        spectra = zip(whole.values["spectra"].values(), again.values["spectra"].values(), strict=True)
        assert all(np.allclose(a, b, atol=1e-12) for a, b in spectra)
    assert network_rank(model, images, config=replace(config, mode="reverse")).values["mode"] == "reverse"


def test_the_report_says_what_it_rests_on(model: Classifier, images: np.ndarray) -> None:
    config = NetworkRankConfig(patch=8, jacobian_images=2, perturbed_images=1, samples=30)
    report = network_rank(model, images, config=config)
    assert {row["layer"] for row in report.rows} == {*model.blocks, "logits"}
    assert all(row["inputs"] == 192 for row in report.rows if row["tool"] == "jacobian")
    assert report.provenance["config"]["dtype"] == "float32" and report.provenance["digest"] == model.digest()
    assert report.values["free"] == 192 and report.values["classification"]["judge"] == "own predictions"
    pooled = [row for row in report.rows if row["layer"] == "3" and row["rule"] == "published"]
    assert all(row["rank"] <= 6 for row in pooled)  # global pooling: at most the channels


def test_the_classifier_is_byte_for_byte_as_it_was_also_after_an_exception(
    model: Classifier, images: np.ndarray
) -> None:
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    config = NetworkRankConfig(patch=8, jacobian_images=1, perturbed_images=1, samples=30)

    def same() -> bool:
        hooks = any(part._forward_hooks or part._forward_pre_hooks for part in model.network.modules())
        return not hooks and all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())

    for dtype in ("float32", "float64"):
        network_rank(model, images, config=replace(config, dtype=dtype))
        assert same()
    for stage in ("jacobian", "perturbation"):
        events = network_rank.events(model, images, config=config)
        assert any(event.stage == stage for event in events)  # leaves the generator in the middle
        with pytest.raises(KeyError):
            events.throw(KeyError(stage))
        assert same()


def test_the_patch_is_where_the_published_one_is() -> None:
    image = torch.arange(3 * 224 * 224.0).reshape(1, 3, 224, 224)
    place, at = free_patch(image, 16, "zero")
    assert torch.equal(at.reshape(3, 16, 16), image[0, :, 104:120, 104:120])
    assert int((place(at) != 0).sum()) == 768
    assert torch.equal(free_patch(image, 16, "image")[0](at), image)
    whole, everything = free_patch(image, None, "zero")
    assert torch.equal(whole(everything), image)


def planted(width: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Features with a large mean whose first four dimensions alone decide, and their head."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(600, width, generator=generator) * 0.1
    features[:, :4] += 10 * torch.randn(600, 4, generator=generator)
    weight = torch.zeros(4, width)
    weight[:, :4] = torch.eye(4)
    return features, weight, torch.zeros(4)


def test_the_classification_dimension_of_features_that_need_four() -> None:
    features, weight, bias = planted()
    found = classification_dimension(features, weight, bias, keep=0.99)
    assert found["centred"] == found["uncentred"] == 4
    assert found["curve"]["centred"][-1] == found["accuracy"] == 1 and len(found["curve"]["centred"]) == 12
    shifted = features + 100 * torch.nn.functional.one_hot(torch.tensor(11), 12)
    assert classification_dimension(shifted, weight, bias, keep=0.99)["centred"] == 4  # the mean is put back
    weight[0, 11], bias[0] = 1.0, -100.0
    lost = classification_dimension(shifted, weight, bias, keep=0.99)
    assert lost["centred"] == 4 and lost["uncentred"] > 4  # the published way loses a mean that the head reads


def test_each_k_is_what_projecting_gives() -> None:
    features, weight, bias = planted()
    labels = (features @ weight.T).argmax(1).tolist()
    curve = classification_dimension(features, weight, bias, labels)["curve"]
    mean = features.double().mean(0)
    vectors = torch.linalg.eigh(torch.cov(features.double().T)).eigenvectors.flip(1)
    for k in (1, 2, 5):
        projector = vectors[:, :k] @ vectors[:, :k].T
        kept = {"centred": (features - mean) @ projector + mean, "uncentred": features.double() @ projector}
        for name, each in kept.items():
            right = ((each @ weight.double().T).argmax(1) == torch.tensor(labels)).double().mean()
            assert curve[name][k - 1] == pytest.approx(float(right), abs=1e-12)


def test_bad_input_is_said_in_a_line(model: Classifier, images: np.ndarray) -> None:
    config = NetworkRankConfig(patch=8, jacobian_images=1, perturbed_images=1, samples=10)
    with pytest.raises(DataError, match="patch of 16 pixels: larger than the network's input of 12 x 12"):
        network_rank(model, images, config=replace(config, patch=16))
    with pytest.raises(ModelError, match=r"'nowhere\.\*' matches no submodule"):
        network_rank(model, images, config=replace(config, layers=("nowhere.*",)))
    with pytest.raises(DataError, match="expected one for each of 9 images, found 3"):
        network_rank(model, images, labels=[0, 1, 2], config=config)
    with pytest.raises(DataError, match="expected at least one, found none"):
        network_rank(model, images[:0], config=config)
    wrong = [(int(each) + 1) % 4 for each in model.logits(images).argmax(1)]
    with pytest.raises(DataError, match="predicts none of them"):
        network_rank(model, images, labels=wrong, config=config)
    broken = nn.Sequential(nn.Linear(3, 3), nn.Identity())
    broken[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match="layer 0: its outputs or derivatives hold NaN"):
        list(jacobian_ranks(broken, torch.ones(1, 3), ["0"], NetworkRankConfig(patch=None)))
