"""What the firewall costs: scores and verdicts beside plain passes of the same network, in turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from benchmarks.harness.claims import row
from benchmarks.harness.ledger import Row
from benchmarks.harness.timing import median_ratio, side_by_side
from photopic.guard.scaling_consistency import ScalingConsistency, ScalingConsistencyConfig
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing


def passes(model: Classifier, pixels: torch.Tensor, count: int = 1) -> None:
    """Plain passes."""
    with torch.no_grad():
        for _ in range(count):
            model.forward(pixels)


def costs(rounds: int) -> Iterator[Row]:
    """Time of scores with five members on a ResNet-18-shaped network, for every first member, side by side with plain passes."""
    torch.manual_seed(0)
    shape = ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=10)
    prepare = Preprocessing(resize=(64, 64))
    model = Classifier(ResNetForImageClassification(shape), preprocess=prepare, labels=[str(i) for i in range(10)])
    pixels = model.preprocess(np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8))
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    wall = ScalingConsistency(model, ScalingConsistencyConfig(threshold=0.9, error_bound=0.01)).fit(
        images, model.logits(images).argmax(1).numpy()
    )
    assert wall.fitted is not None
    layers, ratios = len(wall.fitted.layers), {}
    for first in range(1, layers - 3):
        wall.fitted = replace(wall.fitted, first=first, sizes=tuple(range(first, first + 5)))
        scores, plain = side_by_side([partial(wall.assess, pixels), partial(passes, model, pixels)], rounds, warm_up=0)
        ratios[first] = median_ratio(scores, plain)
    allowed = max((first for first, each in ratios.items() if each.value <= 2.5), default=0)
    curve = ", ".join(f"k={first}: {each.value:.2f}" for first, each in ratios.items())
    note = f"within 2.5 up to k={allowed} of {layers} layers; {curve}"
    yield row("firewall.cost_vs_forward", ratios[1].value, n=rounds, note=note)
    yield row("firewall.cost_vs_naive", max(each.value for each in ratios.values()) / 6, n=rounds)


def verdict_costs(dataset: str, wall: ScalingConsistency, images: np.ndarray, rounds: int) -> Row:
    """Members that a verdict needs on clean traffic, and the time of verdicts over that of six plain passes."""
    assert wall.fitted is not None
    fit, pixels = wall.fitted, wall.model.preprocess(images)
    ran = [verdict.evidence["members"] for verdict in wall.predict(images)]
    plain = partial(passes, wall.model, pixels, len(fit.sizes) + 1)
    ours, naive = side_by_side([partial(wall.assess, pixels, fit.bound), plain], rounds, warm_up=0)
    note = f"k={fit.first} of {len(fit.layers)}; members a picture {np.mean(ran):.2f} of {len(fit.sizes)}"
    return row(f"firewall.verdict_cost_vs_naive.{dataset}", median_ratio(ours, naive).value, n=rounds, note=note)
