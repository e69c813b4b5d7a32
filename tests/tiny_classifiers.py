"""A tiny random classifier and a folder of pictures for it."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from PIL import Image
from torch import nn

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


@cache
def tiny_class_folder() -> ClassFolder:
    """The same folder for all who only read it."""
    return load_classes(class_folder(Path(mkdtemp(dir=os.environ["PHOTOPIC_CACHE"])) / "pictures"))


@cache
def tinted_class_folder() -> ClassFolder:
    """Pictures whose classes can be told apart."""
    return load_classes(class_folder(Path(mkdtemp(dir=os.environ["PHOTOPIC_CACHE"])) / "tinted", tint=60))
