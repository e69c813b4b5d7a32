"""Grad-CAM: known maps of hand-sized networks, the definition by autograd, completeness, and one line for what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from photopic.core import mapfile
from photopic.core.errors import DataError, ModelError
from photopic.core.events import finished
from photopic.locate.attribution import _common
from photopic.locate.attribution.grad_cam import GradCAMConfig, grad_cam, guided_gradients
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing
from tests.cli.conftest import refusal, run
from tests.models.test_classifier import CLASSES, tiny

SIGNED = GradCAMConfig(relu=False)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def by_hand(head: list[list[float]], channels: list[list[float]]) -> Classifier:
    """Channels that are weighted sums of the colours, their means, and a head."""
    network = nn.Sequential(
        nn.Conv2d(3, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, len(head))
    )
    network[0].weight.data = torch.tensor(channels).view(2, 3, 1, 1)
    network[3].weight.data, network[3].bias.data = torch.tensor(head), torch.full((len(head),), 0.5)
    return Classifier(network, preprocess=Preprocessing(), labels=["red", "blue", "both"][: len(head)])


def transformers(kind: str) -> Classifier:
    labels = [f"thing {i}" for i in range(CLASSES)]
    return Classifier(tiny(kind), preprocess=Preprocessing(resize=(32, 32)), labels=labels)


RED_AND_BLUE = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
HALVES = np.zeros((1, 2, 2, 3), np.uint8)  # red on the left, blue on the right
HALVES[:, :, 0, 0], HALVES[:, :, 1, 2] = 255, 255


def test_a_map_worked_out_by_hand_moves_with_the_class_asked_for() -> None:
    model = by_hand([[2.0, -1.0], [-1.0, 4.0]], RED_AND_BLUE)
    found = grad_cam(model, HALVES, config=SIGNED, classes=["red", "blue"])
    # the gradient of a logit by a channel at each of 4 positions is its weight over 4
    expected = np.array([[[2.0, -1.0], [2.0, -1.0]], [[-1.0, 4.0], [-1.0, 4.0]]]) / 4
    np.testing.assert_allclose(found.values[0], expected, atol=1e-6)
    assert found.labels == ("red", "blue") and found.provenance["layer"] == "0"
    np.testing.assert_array_equal(found.images, HALVES)
    kept = grad_cam(model, HALVES, classes=["blue"])
    np.testing.assert_allclose(kept.values[0, 0], expected[1].clip(0), atol=1e-6)


def test_maps_are_linear_in_the_logits() -> None:
    model = by_hand([[2.0, -1.0], [-1.0, 4.0], [1.0, 3.0]], RED_AND_BLUE)  # the third logit is the sum of the others
    red, blue, both = grad_cam(model, HALVES, classes=["red", "blue", "both"], config=SIGNED).values[0]
    np.testing.assert_allclose(both, red + blue, atol=1e-6)


def test_centred_maps_do_not_depend_on_what_softmax_does_not_see() -> None:
    model, names = by_hand([[2.0, -1.0], [-1.0, 4.0]], RED_AND_BLUE), ["red", "blue"]
    lowered = by_hand([[-2.0, -9.0], [-5.0, -4.0]], RED_AND_BLUE)  # the same classes by 4 and 8 less of both channels
    with pytest.warns(UserWarning, match=r"every map is empty.*--centred"):
        assert not grad_cam(lowered, HALVES, classes=names).values.any()
    centred = [grad_cam(each, HALVES, classes=names, config=GradCAMConfig(centred=True)) for each in (model, lowered)]
    # red: 2 - (2 - 1) / 2 and -1 - (4 - 1) / 2 over 4 positions, without what is negative
    np.testing.assert_allclose(centred[0].values[0, 0], np.array([[1.5, 0.0], [1.5, 0.0]]) / 4, atol=1e-6)
    np.testing.assert_allclose(centred[1].values, centred[0].values, atol=1e-6)


@pytest.mark.parametrize(("kind", "layer"), [("resnet", "resnet.encoder.stages.0.layers.0"), ("vit", "vit.layers.0")])
def test_each_map_is_the_definition_taken_alone(kind: str, layer: str, images: np.ndarray) -> None:
    model, names = transformers(kind), ["thing 4", "thing 1"]
    found = grad_cam(model, images, classes=names, config=replace(SIGNED, layer=layer)).values
    module = model.network.get_submodule(layer)
    for number, image in enumerate(images):
        for place, index in enumerate((4, 1)):
            seen: list[Any] = []
            hook = module.register_forward_hook(lambda m, a, output, seen=seen: seen.append(output))
            pixels = model.preprocess(image).requires_grad_()
            logit = model.network(pixels).logits[0, index]
            hook.remove()
            (slope,) = torch.autograd.grad(logit, seen[0])
            layers, slopes = seen[0][0].detach(), slope[0]  # (c, h, w), or (tokens, width)
            if kind == "vit":
                layers, slopes = (each[1:].T.reshape(16, 4, 4) for each in (layers, slopes))
            expected = sum(slopes[k].mean() * layers[k] for k in range(len(layers)))
            np.testing.assert_allclose(found[number, place], expected, rtol=1e-3, atol=1e-7)


def test_after_global_pooling_a_map_adds_up_to_the_logit(images: np.ndarray) -> None:
    model = transformers("resnet")
    found = grad_cam(model, images, classes=["thing 2"], config=SIGNED)
    assert found.provenance["layer"] == "resnet.encoder.stages.1.layers.1"
    logits = model.logits(images)[:, 2] - model.head.bias[2]
    np.testing.assert_allclose(found.values.sum((1, 2, 3)), logits, rtol=1e-4)


def test_a_class_token_leaves_the_last_layers_positions_out(images: np.ndarray) -> None:
    model = transformers("vit")
    found = grad_cam(model, images)
    assert found.provenance["layer"] == "vit.layers.0" and found.values.shape[2:] == (4, 4)
    named = model.logits(images).argmax(1)
    assert found.labels == tuple(model.labels[i] for i in sorted(set(named.tolist())))
    with pytest.raises(ModelError, match="the logits do not depend on its positions; choose a layer before it"):
        grad_cam(model, images, config=GradCAMConfig(layer="vit.layers.1"))


def test_neither_batches_nor_other_classes_change_a_map(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    model = transformers("resnet")
    whole = grad_cam(model, images, classes=["thing 0", "thing 3"], config=SIGNED).values
    monkeypatch.setattr(_common, "BATCH", 2)
    other = grad_cam(model, list(images), classes=["thing 3"], config=SIGNED)
    np.testing.assert_allclose(other.values[:, 0], whole[:, 1], atol=1e-6)
    assert all(each.grad is None for each in model.network.parameters())
    single = grad_cam(model, images[3], classes=["thing 0"], config=SIGNED)
    np.testing.assert_allclose(single.values[0], whole[3, :1], atol=1e-6)


def test_a_layer_that_the_next_one_overwrites(images: np.ndarray) -> None:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    plain = Classifier(nn.Sequential(*parts), preprocess=Preprocessing(), labels=["a", "b"])
    expected = grad_cam(plain, images, classes=["a"], config=GradCAMConfig(layer="0")).values
    parts[1] = nn.ReLU(inplace=True)
    written = Classifier(nn.Sequential(*parts), preprocess=Preprocessing(), labels=["a", "b"])
    np.testing.assert_array_equal(
        grad_cam(written, images, classes=["a"], config=GradCAMConfig(layer="0")).values, expected
    )


def test_what_is_wrong_is_said_in_a_line(images: np.ndarray) -> None:
    model = transformers("resnet")
    with pytest.raises(ModelError, match="has no class 'thing'; nearest: thing"):
        grad_cam(model, images, classes=["thing"])
    with pytest.raises(ModelError, match="'nowhere' matches no submodule"):
        grad_cam(model, images, config=GradCAMConfig(layer="nowhere"))
    with pytest.raises(ModelError, match=r"layer resnet\.pooler: puts out .* which has no positions"):
        grad_cam(model, images, config=GradCAMConfig(layer="resnet.pooler"))
    with pytest.raises(DataError, match="expected at least one, found none"):
        grad_cam(model, images[:0])
    twice = nn.ReLU()
    parts = [nn.Conv2d(3, 4, 3), twice, twice, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    repeated = Classifier(nn.Sequential(*parts), preprocess=Preprocessing(), labels=["a", "b"])
    with pytest.raises(ModelError, match="layer 1: runs 2 times in one pass"):
        grad_cam(repeated, images, config=GradCAMConfig(layer="1"))
    mixed = [images[0], images[1, :20]]
    with pytest.raises(DataError, match="expected one size"):
        grad_cam(repeated, mixed, config=GradCAMConfig(layer="0"))


def test_the_command_writes_pictures_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tiny_classifiers import class_folder

    (tmp_path / "cam_models.py").write_text("from tests.tiny_classifiers import tiny_classifier as net")
    monkeypatch.chdir(tmp_path)
    pictures = class_folder(tmp_path / "pictures", each=1)
    out = tmp_path / "out"
    run("locate", "grad-cam", "cam_models:net", pictures, "--class", "mug", "--class", "bear", "-o", out)
    (kept,) = out.glob("*.safetensors")
    found = mapfile.load(kept)
    assert found.labels == ("mug", "bear") and found.values.shape == (4, 2, 5, 5)
    assert found.provenance["method"] == "locate.attribution.grad_cam" and found.provenance["layer"] == "2"
    assert len(list(out.glob("*.png"))) == 4 * 3 + 1  # each picture, two maps of each, a sheet
    said = refusal("locate", "grad-cam", "cam_models:net", pictures, "--class", "spoon", "-o", out)
    assert "has no class 'spoon'; nearest: " in said


def test_guided_maps_go_only_along_paths_that_raise_a_logit() -> None:
    """y = relu(a) - relu(b) with a = 2 red, b = blue: the gradient by blue is -1, and guided it is stopped."""
    parts = [
        nn.Conv2d(3, 2, 1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 2, bias=False),
    ]
    parts[0].weight.data = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).view(2, 3, 1, 1)
    parts[4].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    model = Classifier(nn.Sequential(*parts), preprocess=Preprocessing(), labels=["red", "blue"])
    slopes = finished(guided_gradients(model, HALVES, ["red", "blue"]))[0]
    # 2 / 4 at each red pixel; of blue pixels nothing, as the only path lowers the logit; in the second row of blue 1 / 4
    np.testing.assert_allclose(slopes, [[[0.5, 0.0]] * 2, [[0.0, 0.25]] * 2], atol=1e-6)
    fine = grad_cam(model, HALVES, classes=["red"], config=GradCAMConfig(layer="1", guided=True))
    coarse = grad_cam(model, HALVES, classes=["red"], config=GradCAMConfig(layer="1"))
    np.testing.assert_allclose(fine.values[0, 0], coarse.values[0, 0] * slopes[0].numpy(), atol=1e-6)
    parts[0].weight.data[1] = parts[0].weight.data[
        0
    ]  # now both channels are 2 red, one for the class and one against it
    assert finished(guided_gradients(model, HALVES, ["red"]))[0, 0, 0, 0] == 0.5  # the plain gradient is 0
    with pytest.raises(ModelError, match="--guided: expected ReLU modules in the network, found none"):
        grad_cam(by_hand([[1.0, 0.0]], RED_AND_BLUE), HALVES, classes=["red"], config=GradCAMConfig(guided=True))


def test_alpha_names_the_channels_of_a_class() -> None:
    model = by_hand([[2.0, -1.0], [-1.0, 4.0]], RED_AND_BLUE)
    config = GradCAMConfig(relu=False, neurons=1)
    named = grad_cam(model, HALVES, classes=["red", "blue"], config=config).provenance["neurons"]
    assert named == {"red": [[0, 0.5]], "blue": [[1, 1.0]]}  # the head's weight over 4 positions
