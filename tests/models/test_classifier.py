"""One handle over classifiers of any architecture; what is wrong with one is said in a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    MobileNetV1Config,
    MobileNetV1ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

import photopic
from photopic.core.edits import DenseDelta, Edit, ZeroedWeights
from photopic.core.errors import DataError, ModelError
from photopic.models import classifier_files, files
from photopic.models.classifier import Classifier, bundled_classifiers
from photopic.models.preprocessing import Preprocessing

CLASSES = 7
SIZE = {"size": {"height": 32, "width": 32}}
VIT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, patch_size=8)


def tiny(kind: str) -> nn.Module:
    labels = {"id2label": {i: f"thing {i}" for i in range(CLASSES)}}
    torch.manual_seed(0)
    if kind == "resnet":
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", **labels)
        return ResNetForImageClassification(config)
    if kind == "vit":
        return ViTForImageClassification(ViTConfig(image_size=32, **VIT, **labels))
    if kind == "convnext":
        config = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, **labels)
        return ConvNextForImageClassification(config)
    return MobileNetV1ForImageClassification(MobileNetV1Config(depth_multiplier=0.25, **labels))


def save(network: nn.Module, folder: Path, preprocessor: object = SIZE) -> Path:
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 40, 48, 3), dtype=np.uint8)


def mlp(width: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(48, 24), nn.GELU(), nn.Linear(24, width), nn.GELU(), nn.Linear(width, 3)
    )


def plain(network: nn.Module, **options: object) -> Classifier:
    given = {"preprocess": Preprocessing(resize=(4, 4)), "labels": ["a", "b", "c"]} | options
    return Classifier(network, **given)  # type: ignore[arg-type]


WIDTHS = {"resnet": 16, "vit": 16, "convnext": 16, "mobilenet": 256}


@pytest.mark.parametrize("kind", WIDTHS)
def test_a_transformers_folder_gives_the_logits_of_its_network(kind: str, tmp_path: Path, images: np.ndarray) -> None:
    network = tiny(kind).eval()
    model = Classifier.load(save(network, tmp_path / kind))
    assert model.name == kind and model.labels == tuple(f"thing {i}" for i in range(CLASSES))
    pixels = model.preprocess(images)
    with torch.no_grad():
        logits = network(pixels).logits  # kernels take another path where weights lie otherwise in memory
        torch.testing.assert_close(model.logits(images), logits, rtol=1e-4, atol=0)
    assert model.head.in_features == WIDTHS[kind]
    assert len(model.blocks) >= 3


@pytest.mark.parametrize("kind", WIDTHS)
def test_features_are_what_enters_the_head(kind: str, tmp_path: Path, images: np.ndarray) -> None:
    model = Classifier.load(save(tiny(kind), tmp_path / kind))
    features = model.features(images, batch=2)
    assert features.shape == (5, WIDTHS[kind])
    assert torch.allclose(features @ model.head.weight.T + model.head.bias, model.logits(images), atol=1e-5)


def test_the_batch_size_changes_nothing(images: np.ndarray) -> None:
    model = plain(mlp())
    assert torch.allclose(model.logits(images, batch=1), model.logits(images, batch=64), atol=1e-6)


def test_the_layers_of_known_architectures(tmp_path: Path) -> None:
    resnet = Classifier.load(save(tiny("resnet"), tmp_path / "resnet"))
    stages = ("stages.0.layers.0", "stages.1.layers.0", "stages.1.layers.1")
    expected = ("resnet.embedder", *(f"resnet.encoder.{stage}" for stage in stages), "resnet.pooler")
    assert resnet.blocks == expected
    assert resnet.layers("*.stages.?") == ("resnet.encoder.stages.0", "resnet.encoder.stages.1")
    vit = Classifier.load(save(tiny("vit"), tmp_path / "vit"))
    assert len(vit.blocks) == 3 and vit.blocks[0] == "vit.embeddings"


def test_a_plain_module_and_its_layers(images: np.ndarray) -> None:
    model = plain(mlp().train(), name="digits")
    assert not model.network.training and not any(each.requires_grad for each in model.network.parameters())
    assert model.blocks == ("1", "2", "3", "4") and model.head is model.network[5]  # type: ignore[index]
    assert model.logits(images).shape == (5, 3) and model.features(images).shape == (5, 12)
    assert plain(mlp(), blocks=["2", "4"]).blocks == ("2", "4")
    assert plain(mlp(3)).head_name == "5"  # the last of two that have three outputs


def test_the_digest_follows_every_weight() -> None:
    model, same = plain(mlp()), plain(mlp())
    assert model.digest() == same.digest()
    with torch.no_grad():
        model.head.bias[0] += 1
    assert model.digest() != same.digest()


def test_gradients_reach_the_pixels() -> None:
    pixels = torch.zeros(1, 3, 4, 4, requires_grad=True)
    plain(mlp()).forward(pixels).sum().backward()
    assert pixels.grad is not None and bool(pixels.grad.any())


# --- pictures


def test_preprocessing_does_what_pil_and_the_file_say() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    config = {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": {"height": 16, "width": 12}}
    rest = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "resample": 3}
    found = Preprocessing.of({**config, **rest})([image])
    small = np.asarray(image.resize((30, 20), Image.Resampling.BICUBIC))[2:18, 9:21]
    expected = (torch.from_numpy(small.copy()).float() / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor(
        [0.5, 0.6, 0.7]
    )
    assert torch.allclose(found[0].permute(1, 2, 0), expected, atol=1e-6)


def test_the_share_of_a_crop_that_convnext_keeps() -> None:
    steps = Preprocessing.of({"size": {"shortest_edge": 224}, "crop_pct": 0.875})
    assert (steps.resize, steps.crop, steps.size) == (256, (224, 224), (224, 224))


def test_pictures_of_any_size_and_kind_in_one_list() -> None:
    grey, clear = Image.new("L", (9, 5), 255), Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    pixels = Preprocessing(resize=(4, 4))([grey, clear, np.full((7, 3, 3), 255, np.uint8)])
    assert torch.equal(pixels, torch.ones(3, 3, 4, 4))


def test_gray_channels_first_and_single_pictures_are_the_same_picture() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (6, 8), dtype=np.uint8)
    colour = np.repeat(gray[:, :, None], 3, 2)
    model = photopic.load(mlp(), preprocess=Preprocessing(resize=(4, 4)), labels=["a", "b", "c"], device="cpu")
    batch, first = np.stack([colour, colour]), np.stack([colour, colour]).transpose(0, 3, 1, 2)
    expected = model.preprocess(batch)
    for same in (first, torch.from_numpy(first.copy()), [gray, Image.fromarray(gray)], [gray[None], gray[:, :, None]]):
        assert torch.equal(model.preprocess(same), expected)
    for one in (gray, colour, first[0], torch.from_numpy(gray), Image.fromarray(colour)):
        assert torch.equal(model.preprocess(one), expected[:1])
        assert model.logits(one).shape == (1, 3)


def test_a_network_of_gray_pictures_with_a_preprocessing_of_its_own() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model = photopic.load(
        network, preprocess=lambda images: torch.from_numpy(np.stack(images)).float()[:, None] / 255, labels=["a", "b"]
    )
    gray = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    assert model.logits(list(gray)).shape == (3, 2) and model.name == "Sequential"
    torch.testing.assert_close(model.logits(gray[0]), model.logits(list(gray))[:1])


def test_channels_the_other_way_round() -> None:
    red = Image.new("RGB", (2, 2), "red")
    assert Preprocessing(blue_first=True)([red])[0, :, 0, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ([], "found none"),
        ([np.zeros((4, 4, 3), np.float32)], r"number 0 should be .* found float32 \(4, 4, 3\)"),
        (
            [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 5), np.uint8)],
            r"number 1 should be .* found uint8 \(4, 4, 5\)",
        ),
        (["bear.png"], "number 0 should be .* found str"),
        ([np.zeros((0, 4, 3), np.uint8)], "number 0 is empty"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], "expected one size"),
    ],
)
def test_pictures_that_cannot_be_read(wrong: list[object], match: str) -> None:
    with pytest.raises(DataError, match=match):
        Preprocessing()(wrong)


def test_no_picture_is_an_error_of_the_handle_too() -> None:
    with pytest.raises(DataError, match="found none"):
        plain(mlp()).logits([])


@pytest.mark.parametrize("config", [{"do_pad": True, "size": 4}, {}, {"size": {"longest_edge": 4}}])
def test_preprocessing_that_is_not_done_here(config: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"not done here|expected a size"):
        Preprocessing.of(config)


# --- edits, and classifiers that a function makes


@pytest.mark.parametrize("kind", ["resnet", "vit", "plain"])
def test_an_edit_is_in_force_and_then_gone_to_the_byte(kind: str, images: np.ndarray) -> None:
    pixels, labels = Preprocessing(resize=(32, 32)), [f"thing {i}" for i in range(CLASSES)]
    model = plain(mlp()) if kind == "plain" else Classifier(tiny(kind), preprocess=pixels, labels=labels)
    head = f"network.{model.head_name}.weight"
    first = next(iter(model.parameters("*.weight")))
    parts = (ZeroedWeights({first: torch.arange(0, 90, 2)}), DenseDelta({head: torch.ones_like(model.head.weight)}))
    edit = Edit(parts, model.fingerprint(first, head), {"noun": "bear"})
    before, logits = model.digest(), model.logits(images)
    by_hand = {name: value.clone() for name, value in model.parameters(first, head).items()}
    by_hand[first].view(-1)[:90:2] = 0
    by_hand[head] += 1
    with model.edits.applied(edit):
        assert model.digest() != before
        found = model.logits(images)
        assert torch.equal(model.parameters(first)[first], by_hand[first])
    assert torch.equal(found, model.functional(by_hand)(model.preprocess(images)))
    assert not torch.equal(found, logits)
    assert model.digest() == before and torch.equal(model.logits(images), logits)


FACTORIES = """
import numpy, torch
from torch import nn
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

def parts():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), Preprocessing(resize=(4, 4)), ["cat", "dog"]

def whole():
    network, preprocess, labels = parts()
    return Classifier(network, preprocess=preprocess, labels=labels, name="whole one")

def other():
    return "bear"

def broken():
    raise OSError("no such checkpoint")

missing = 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_models.py").write_text(FACTORIES)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('hides the library')")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield "own_models"
    sys.modules.pop("own_models", None)
    assert sys.path == path


def test_a_function_makes_a_classifier(factories: str) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    found = [photopic.load(f"{factories}:{name}", "cpu") for name in ("parts", "whole")]
    assert [each.name for each in found] == ["own_models:parts", "whole one"]
    assert torch.equal(found[0].logits(image), found[1].logits(image))
    half = Classifier.load(f"{factories}:whole", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.digest() != found[1].digest()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("own_models:other", r"expected a Classifier or \(module, preprocess, labels\), found str"),
        ("own_models:broken", "failed with OSError: no such checkpoint"),
        ("own_models:missing", "own_models has no function missing"),
        ("no_models:parts", "there is no module no_models"),
        ("colorsys:rgb_to_hsv", "failed with TypeError"),  # the library's own, which wants arguments
    ],
)
def test_a_function_that_makes_none(factories: str, name: str, match: str) -> None:
    refused(match, lambda: photopic.load(name))


# --- what is wrong with a model


def refused(match: str, call: Callable[[], object]) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["emoji-lion", "a/b/c"])
def test_unknown_names(name: str) -> None:
    refused("no such model; give a bundled name", lambda: Classifier.load(name))


def test_an_unreachable_hub_id_is_one_line() -> None:
    refused("nobody/nothing: cannot be loaded", lambda: Classifier.load("nobody/nothing"))


def test_folders_that_hold_no_classifier(tmp_path: Path) -> None:
    refused("holds no model: it has no .*config.json", lambda: Classifier.load(tmp_path))
    (tmp_path / "model_index.json").write_text("{}")
    refused("expected a classifier, found a text-to-image pipeline", lambda: Classifier.load(tmp_path))
    (tmp_path / "model_index.json").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "clip_text_model"}')
    refused("it has no preprocessor_config.json", lambda: Classifier.load(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("[]")
    refused("cannot be loaded as an image classifier", lambda: Classifier.load(tmp_path))
    refused("is a file", lambda: Classifier.load(tmp_path / "config.json"))


def test_a_preprocessor_file_that_cannot_be_read(tmp_path: Path) -> None:
    folder = save(tiny("resnet"), tmp_path / "resnet", [])
    refused("is not a JSON object", lambda: Classifier.load(folder))
    (folder / "preprocessor_config.json").write_text("{")
    refused("cannot be read", lambda: Classifier.load(folder))


def test_a_network_without_its_head(tmp_path: Path) -> None:
    body = ViTModel(ViTConfig(image_size=32, **VIT), add_pooling_layer=False)
    refused("not a whole model: its weights lack classifier", lambda: Classifier.load(save(body, tmp_path / "vit")))


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    folder = save(tiny("resnet"), tmp_path / "resnet")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.1.bias"][2] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(r"classifier\.1\.bias holds NaN or infinity", lambda: Classifier.load(folder))


def test_labels_and_logits_have_to_be_as_many() -> None:
    refused("4 outputs, one a label, but the last one has 3", lambda: plain(mlp(), labels=list("abcd")))
    refused("2 labels but the head 5 has outputs: 3", lambda: plain(mlp(), labels=["a", "b"], head="5"))
    refused("the head 2 has outputs: a GELU", lambda: plain(mlp(), head="2"))
    refused("it has no linear layer", lambda: plain(nn.Flatten()))

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, pixels: Tensor) -> Tensor:
            return self.inner(pixels).repeat(1, 2)

    image = np.zeros((1, 4, 4, 3), np.uint8)
    refused(r"expected logits of shape \(1, 3\).*found \(1, 6\)", lambda: plain(Twice()).logits(image))


def test_logits_that_are_not_the_heads_are_no_features() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, pixels: Tensor) -> Tensor:
            return 2 * self.inner(pixels)

    image = np.zeros((1, 4, 4, 3), np.uint8)
    refused("its logits are not the output of inner.5", lambda: plain(Scaled()).features(image))


def test_images_of_a_size_the_network_refuses(tmp_path: Path, images: np.ndarray) -> None:
    refused("refuses images of 5 x 5 pixels", lambda: plain(mlp(), preprocess=Preprocessing((5, 5))).logits(images))
    wrong = save(tiny("vit"), tmp_path / "vit", {"size": {"height": 24, "width": 24}})
    refused(r"reads images of \(32, 32\) pixels, but .* makes \(24, 24\)", lambda: Classifier.load(wrong))


def test_a_device_that_does_not_exist(tmp_path: Path) -> None:
    refused("device cuda:99: cannot be used", lambda: Classifier.load(save(tiny("resnet"), tmp_path / "r"), "cuda:99"))


def test_a_bundled_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tiny("resnet"), tmp_path / "bundled" / "small")
    for module in (files, classifier_files):
        monkeypatch.setattr(module, "BUNDLED", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert bundled_classifiers() == ("small",) and Classifier.load("small").name == "small"
