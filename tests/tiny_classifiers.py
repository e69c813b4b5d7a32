"""A tiny random classifier and a folder of pictures for it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from photopic.data.class_folder import ClassFolder, load_classes
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

CLASSES = ("bear", "mug", "brown owl", "rocket")


def tiny_classifier(*, seed: int = 0) -> Classifier:
    """One convolution, batch normalisation, pooling and a head, on pictures of 12 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = [nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)]
        network = nn.Sequential(*parts, nn.Flatten(), nn.Linear(6, len(CLASSES)))
    return Classifier(network, preprocess=Preprocessing(resize=(12, 12)), labels=CLASSES, name="tiny-cnn")


def class_folder(folder: Path, *, each: int = 5, tint: int = 0) -> Path:
    """Noise in one sub-folder a class; with a tint the classes differ in how bright they are."""
    generator = np.random.default_rng(0)
    for place, name in enumerate(CLASSES):
        (folder / name.replace(" ", "_")).mkdir(parents=True)
        for number in range(each):
            pixels = generator.integers(0, 256 - 3 * tint, (20, 18, 3), dtype=np.uint8) + np.uint8(place * tint)
            Image.fromarray(pixels).save(folder / name.replace(" ", "_") / f"{number}.png")
    return folder


def knowing_classifier() -> Classifier:
    """The same with a head that names pictures of ``tinted_class_folder`` right: the class whose mean feature is nearest."""
    model, found = tiny_classifier(), tinted_class_folder()
    features, labels = model.features(found), torch.tensor(found.labels(CLASSES))
    means = torch.stack([features[labels == each].mean(0) for each in range(len(CLASSES))])  # (classes, width)
    with torch.no_grad():
        model.head.weight.copy_(2e4 * means), model.head.bias.copy_(-1e4 * means.square().sum(1))
    return model


def saved_classifier(folder: Path, labels: Sequence[str], colours: np.ndarray) -> Path:
    """A tiny random ResNet on disk whose head tells colours apart: the class whose mean feature is nearest."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=dict(enumerate(labels))
    )
    network = ResNetForImageClassification(config)
    model = Classifier(network, preprocess=Preprocessing(resize=(16, 16)), labels=labels)
    means = model.features([np.tile(each.astype(np.uint8), (16, 16, 1)) for each in colours])  # (classes, width)
    with torch.no_grad():
        model.head.weight.copy_(2 * means), model.head.bias.copy_(-means.square().sum(1))
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 16, "width": 16}}))
    return folder


@cache
def tiny_class_folder() -> ClassFolder:
    """The same folder for all who only read it."""
    return load_classes(class_folder(Path(mkdtemp(dir=os.environ["PHOTOPIC_CACHE"])) / "pictures"))


@cache
def tinted_class_folder() -> ClassFolder:
    """Pictures whose classes can be told apart."""
    return load_classes(class_folder(Path(mkdtemp(dir=os.environ["PHOTOPIC_CACHE"])) / "tinted", tint=60))
