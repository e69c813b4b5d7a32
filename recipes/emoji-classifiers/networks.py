"""The four networks of the bank: a residual CNN and a ViT, each with a head of 64 and of 256 dimensions."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from photopic.core.fingerprint import fingerprint
from photopic.data import renderings

sys.path.append(str(Path(__file__).parents[1]))  # recipes/, which holds _common
SIZE = 32  # pixels
MEAN, SPREAD = 0.75, 0.25  # of the pixel values, most of which are light background
INITIAL_SEED = 64256  # both seeds of a network start from these weights


@dataclass(frozen=True)
class Shape:
    """One architecture at one width; ``initial`` is the digest of its initial weights."""

    kind: str
    steps: int
    initial: str
    options: dict[str, Any]


SHAPES = {
    "resnet-64": Shape(
        "resnet",
        2000,
        "fd9b729090604f7e",
        dict(embedding_size=32, hidden_sizes=[48, 96, 64], depths=[1, 1, 1], layer_type="basic"),
    ),
    "vit-64": Shape(
        "vit",
        3000,
        "2cf5998ff06ca95d",
        dict(hidden_size=64, num_hidden_layers=6, num_attention_heads=4, intermediate_size=128, patch_size=8),
    ),
    "resnet-256": Shape(
        "resnet",
        1800,
        "919577188f5162a3",
        dict(embedding_size=32, hidden_sizes=[64, 128, 256], depths=[1, 2, 2], layer_type="bottleneck"),
    ),
    "vit-256": Shape(
        "vit",
        1300,
        "ac25956b357510cf",
        dict(hidden_size=256, num_hidden_layers=2, num_attention_heads=8, intermediate_size=128, patch_size=8),
    ),
}
PREPROCESSOR = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 2,
    "image_mean": [MEAN] * 3,
    "image_std": [SPREAD] * 3,
    "image_processor_type": "ViTImageProcessor",
}


def build(name: str) -> nn.Module:
    """The network with its initial weights, the same on every call.

    Raises:
        RuntimeError: If this version of torch or transformers draws other numbers: then the two seeds of the bank that are
            there already do not share their start with what would be trained now.
    """
    shape = SHAPES[name]
    options = shape.options | {"id2label": dict(enumerate(renderings.classes())), "label2id": {}}
    with torch.random.fork_rng():
        torch.manual_seed(INITIAL_SEED)
        network = (
            ResNetForImageClassification(ResNetConfig(**options))
            if shape.kind == "resnet"
            else ViTForImageClassification(ViTConfig(**options, image_size=SIZE))
        )
    found = fingerprint({"network": network}, name).digest[:16]
    if found != shape.initial:
        raise RuntimeError(
            f"{name}: expected the initial weights {shape.initial}, drew {found}; use the pinned versions"
        )
    return network
