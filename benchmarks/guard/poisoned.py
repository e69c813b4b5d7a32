"""Small classifiers with a backdoor in them, and the pictures they are trained and tested on: digits and a hundred emoji."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from benchmarks.harness.cache import ResultCache
from benchmarks.harness.code import code_of
from photopic.data import emoji_world, scenes
from photopic.guard.attacks import Attack, poison
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

SIDE = 32
TARGET = 0
RATE = {"keep": 0.8}  # of the target class, for clean labels; otherwise of everything:
POISON_RATE = 0.1
EMOJI_CLASSES = 100
MEAN, STD = (0.5,) * 3, (0.25,) * 3


@dataclass(frozen=True, eq=False)
class Pictures:
    """Training, clean (what a defender has) and test pictures, with their classes."""

    train: tuple[np.ndarray, np.ndarray]
    clean: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    labels: tuple[str, ...]
    epochs: int


@cache
def digits() -> Pictures:
    """The digits of scikit-learn, enlarged to 32 pixels: 1,000 to train on, 300 clean, 497 to test."""
    found = load_digits()
    small = torch.from_numpy(found.images).float()[:, None] / 16
    large = F.interpolate(small, (SIDE, SIDE), mode="bilinear").expand(-1, 3, -1, -1)
    images = (large * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    mixed = np.random.default_rng(0).permutation(len(images))
    parts = [(images[rows], found.target[rows]) for rows in np.split(mixed, [1000, 1300])]
    return Pictures(parts[0], parts[1], parts[2], tuple(map(str, range(10))), epochs=20)


@cache
def emoji() -> Pictures:
    """A hundred concepts in the six training styles on coloured grounds, moved and resized: 48 a class to train on, 6 and 12."""
    known = [item for item in emoji_world.select(split="known") if len(item.styles) == len(emoji_world.STYLES)]
    names = tuple(item.name for item in known[:EMOJI_CLASSES])
    rng = np.random.default_rng(1)

    def drawn(times: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = [], []
        for label, name in enumerate(names):
            for style in emoji_world.TRAINING_STYLES:
                for _ in range(times):
                    centre = tuple(0.5 + rng.uniform(-0.08, 0.08, 2))
                    place = scenes.Placement(name, style, centre, rng.uniform(0.65, 0.85))
                    ground = scenes.Background(str(rng.choice(tuple(scenes.COLOURS))))
                    images.append(scenes.compose([place], ground, size=SIDE).image)
                    labels.append(label)
        mixed = rng.permutation(len(labels))
        return np.stack(images)[mixed], np.array(labels)[mixed]

    return Pictures(drawn(8), drawn(1), drawn(2), names, epochs=15)


DATA: dict[str, Callable[[], Pictures]] = {"digits": digits, "emoji": emoji}


def network(kind: str, classes: int) -> torch.nn.Module:
    """A residual network of 15 batch normalisations, or a small ViT."""
    if kind == "resnet":
        sizes: dict[str, Any] = {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [2, 2, 2]}
        return ResNetForImageClassification(ResNetConfig(**sizes, layer_type="basic", num_labels=classes))
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = ViTConfig(**sizes, **dropout, image_size=SIDE, patch_size=8, num_labels=classes)
    return ViTForImageClassification(config)


def handle(module: torch.nn.Module, data: Pictures, name: str) -> Classifier:
    """The handle over a network of these pictures."""
    prepare = Preprocessing(resize=(SIDE, SIDE), mean=MEAN, std=STD)
    return Classifier(module, preprocess=prepare, labels=data.labels, name=name)


def trained(
    cache: ResultCache, dataset: str, attack: Attack | None, seed: int, *, kind: str = "resnet", epochs: int = 0
) -> Classifier:
    """A classifier trained on poisoned pictures, or on clean ones; kept.

    Args:
        cache: Where weights are.
        dataset: Of ``DATA``.
        attack: What the pictures are poisoned with; None: nothing.
        seed: Of the poisoning, the initial weights and the order.
        kind: Of `network`.
        epochs: 0: what the pictures say.
    """
    data = DATA[dataset]()
    name = f"{dataset}-{attack.name if attack else 'clean'}-{seed}"
    steps = epochs or data.epochs
    code = code_of("photopic.guard.attacks", network, poisoned, train, digits, emoji)
    key = {"poisoned": name, "kind": kind, "epochs": steps, "rate": POISON_RATE, "code": code}

    def make(path: Path) -> None:
        torch.manual_seed(seed)
        module = network(kind, len(data.labels))
        train(module, *poisoned(data, attack, seed), steps, seed)
        save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path)
        print(f"trained {name} {kind}", flush=True)

    module = network(kind, len(data.labels))
    module.load_state_dict(load_file(cache.file(key, ".safetensors", make)))
    return handle(module, data, name)


def poisoned(data: Pictures, attack: Attack | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training pictures and their classes, a share of them poisoned."""
    images, labels = data.train
    if attack is None:
        return images, labels
    rate = RATE.get(attack.relabel, POISON_RATE)
    found = poison(attack, images, labels, classes=len(data.labels), rate=rate, seed=seed)
    return found.images, found.labels


def train(
    module: torch.nn.Module, images: np.ndarray, labels: np.ndarray, epochs: int, seed: int, batch: int = 64
) -> None:
    """AdamW with one cycle of the rate, pixels shifted by up to two; the module ends in evaluation mode."""
    rng = np.random.default_rng((seed, 5))
    pixels = Preprocessing(mean=MEAN, std=STD)(images)
    target = torch.from_numpy(labels.astype(np.int64))
    steps = epochs * (len(labels) // batch)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    module.train()
    for _ in range(epochs):
        mixed = rng.permutation(len(labels))
        for start in range(0, len(labels) - batch + 1, batch):
            rows = mixed[start : start + batch]
            shift = tuple(int(each) for each in rng.integers(-2, 3, 2))
            loss = F.cross_entropy(module(pixels[rows].roll(shift, (2, 3))).logits, target[rows], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    module.eval()
