"""A small classifier, clean pictures it knows and pictures it does not."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

COLOURS = np.array([[230, 30, 30], [30, 220, 30], [30, 30, 230]])
LABELS = ("red thing", "green thing", "blue thing")


def small_classifier() -> Classifier:
    """Random features of 4 x 4 pictures and a head fitted by least squares: it tells colours."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 3))
    model = Classifier(network, preprocess=Preprocessing(resize=(4, 4)), labels=LABELS, name="small")
    images, labels = coloured(300, seed=9)
    features = model.features(images)
    weight = torch.linalg.lstsq(
        torch.cat([features, torch.ones(len(features), 1)], 1), 8 * torch.eye(3)[labels]
    ).solution
    model.head.weight.copy_(weight[:-1].T)
    model.head.bias.copy_(weight[-1])
    return model


def coloured(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures of the three colours."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    noise = rng.normal(0, 40, (count, 6, 6, 3))
    return (COLOURS[labels][:, None, None] + noise).clip(0, 255).astype(np.uint8), labels


def strange(count: int, seed: int) -> np.ndarray:
    """Noisy pictures of a colour between the three."""
    noise = np.random.default_rng(seed).normal(0, 40, (count, 6, 6, 3))
    return (np.array([200, 200, 190]) + noise).clip(0, 255).astype(np.uint8)
