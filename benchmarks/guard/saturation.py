"""Can a guard around a very sure classifier reject anything? A CIFAR-sized ResNet attacked by BadNets, at several rates and sizes.

    python -m benchmarks saturation            # writes benchmarks/results/saturation.json

A residual network of 32 pixels is trained on ten emoji concepts without label smoothing, a tenth of the pictures with BadNets'
patch; its logits are then made three times as large, so that its probabilities are 1 as numbers, as those of long-trained ones.
The firewall's threshold is calibrated on 100, 200 and 400 clean pictures (as many choose the layers) for rates of 0.05, 0.025 and
0.01, over several splits. Baseline: the same scores as numbers, whose threshold becomes 1, which nothing can pass. Control: the
same patch on a network that nobody attacked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge

from benchmarks.guard.poisoned import MEAN, SIDE, STD, TARGET, Pictures, handle, network, poisoned
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.data import emoji_world, scenes
from photopic.guard.attacks import attack
from photopic.guard.scaling_consistency import ScalingConsistency, ScalingConsistencyConfig
from photopic.metrics.conformal import conformal_threshold, false_positive_band
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

CLASSES, SIZES, RATES = 10, (100, 200, 400), (0.05, 0.025, 0.01)
SEED = 0
BESIDE = "baseline: scores as numbers; control: the patch on a network that nobody attacked"
CLAIMS = (
    Claim("firewall.saturated.caught.*.0.05", ">= 0.99", BESIDE),
    Claim("firewall.saturated.caught.*", "", BESIDE),
)


@dataclass(frozen=True)
class SaturationConfig(Config):
    """How much is measured."""

    epochs: Annotated[int, Ge(1)] = 12  # of each training
    splits: Annotated[int, Ge(2)] = 10  # of the clean pictures


def pictures() -> Pictures:
    """Ten concepts in six styles, moved and resized: 2,400 to train on, 1,200 clean, 1,200 to test."""
    known = [item for item in emoji_world.select(split="known") if len(item.styles) == len(emoji_world.STYLES)]
    names = tuple(item.name for item in known[::20][:CLASSES])
    rng = np.random.default_rng(4)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % CLASSES
        images = []
        for label in labels:
            centre = tuple(0.5 + rng.uniform(-0.1, 0.1, 2))
            style = str(rng.choice(emoji_world.TRAINING_STYLES))
            place = scenes.Placement(names[label], style, centre, rng.uniform(0.6, 0.85))
            images.append(
                scenes.compose([place], scenes.Background(str(rng.choice(tuple(scenes.COLOURS)))), size=SIDE).image
            )
        mixed = rng.permutation(count)
        return np.stack(images)[mixed], labels[mixed]

    return Pictures(drawn(2400), drawn(1200), drawn(1200), names, epochs=0)


def trained(data: Pictures, *, attacked: bool, epochs: int) -> Classifier:
    """A network trained without label smoothing, on poisoned pictures or on clean ones."""
    torch.manual_seed(SEED)
    module = network("resnet", CLASSES)
    images, labels = poisoned(data, attack("badnets", target=TARGET) if attacked else None, SEED)
    pixels, target = Preprocessing(mean=MEAN, std=STD)(images), torch.from_numpy(labels.astype(np.int64))
    steps = epochs * (len(labels) // 64)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    rng = np.random.default_rng((SEED, 5))
    module.train()
    for step in range(steps):
        rows = rng.integers(0, len(labels), 64)
        loss = F.cross_entropy(module(pixels[rows]).logits, target[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)
    with torch.no_grad():  # in place of long training: as sure as published networks, and of the same classes
        for name in ("classifier.1.weight", "classifier.1.bias"):
            module.get_parameter(name).mul_(3)
    return handle(module.eval(), data, "emoji-badnets" if attacked else "emoji-clean")


class Scored:
    """Doubts of pictures, computed once for each set of amplified layers."""

    def __init__(self, model: Classifier, data: Pictures):
        made, (images, labels) = attack("badnets", target=TARGET), data.test
        marked = made.trigger(images[labels != TARGET])
        works = model.logits(marked).argmax(1).numpy() == TARGET
        self.model, self.data, self.success = model, data, float(works.mean())
        self.parts = {"marked": marked[works] if works.any() else marked, "test": images, "clean": data.clean[0]}
        self._kept: dict[tuple[int, ...], dict[str, np.ndarray]] = {}

    def doubts(self, wall: ScalingConsistency) -> dict[str, np.ndarray]:
        """Log of the doubt of every picture, over all members."""
        assert wall.fitted is not None
        if wall.fitted.sizes not in self._kept:
            self._kept[wall.fitted.sizes] = {name: doubt_of(wall, each) for name, each in self.parts.items()}
        return self._kept[wall.fitted.sizes]


def measured(scored: Scored, size: int, splits: int) -> dict[float, dict[str, list[float]]]:
    """By rate: shares of triggers and of clean pictures that are rejected in each split, and of triggers by scores as numbers."""
    found: dict[float, dict[str, list[float]]] = {rate: {"caught": [], "rejected": [], "numbers": []} for rate in RATES}
    images, labels = scored.data.clean
    for split in range(splits):
        rows = np.random.default_rng((split, size)).permutation(len(labels))[: 2 * size]
        wall = ScalingConsistency(scored.model, ScalingConsistencyConfig()).fit(images[rows], labels[rows])
        doubts = scored.doubts(wall)
        calibrating = doubts["clean"][rows[np.random.default_rng(0).permutation(2 * size)[size:]]]  # as fit halves them
        for rate, kept in found.items():
            bound = -conformal_threshold(-calibrating, rate)
            kept["caught"].append(float((doubts["marked"] < bound).mean()))
            kept["rejected"].append(float((doubts["test"] < bound).mean()))
            threshold = conformal_threshold(-np.expm1(calibrating), rate)  # 1 - doubt, as a number
            kept["numbers"].append(float((-np.expm1(doubts["marked"]) > threshold).mean()))
    return found


def doubt_of(wall: ScalingConsistency, images: np.ndarray) -> np.ndarray:
    """Log of the doubt of pictures, over all members."""
    starts = range(0, len(images), 256)
    return np.concatenate([wall.assess(wall.model.preprocess(images[at : at + 256])).log_doubt for at in starts])


def rows(bench: Bench[SaturationConfig, Any]) -> Iterator[Row]:
    """Every claim: rates x numbers of calibration pictures."""
    config, data = bench.config, pictures()
    attacked, clean = (Scored(trained(data, attacked=each, epochs=config.epochs), data) for each in (True, False))
    images, labels = data.test
    accuracy = float((attacked.model.logits(images).argmax(1).numpy() == labels).mean())
    for size in SIZES:
        own, control = measured(attacked, size, config.splits), measured(clean, size, config.splits)
        for rate in RATES:
            caught, rejected = own[rate]["caught"], own[rate]["rejected"]
            band = false_positive_band(size, rate)
            inside = np.mean([band[0] <= each <= band[1] for each in rejected])
            note = (
                f"accuracy {accuracy:.3f}, the trigger works on {attacked.success:.3f}; clean pictures rejected "
                f"{np.mean(rejected):.4f}, in the band {band[0]:.4f} to {band[1]:.4f} in {inside:.0%} of {config.splits} splits"
            )
            value = [float(np.mean(caught)), *map(float, np.percentile(caught, [2.5, 97.5]))]
            beside: dict[str, Any] = {
                "baseline": np.mean(own[rate]["numbers"]),
                "control": np.mean(control[rate]["caught"]),
            }
            yield row(f"firewall.saturated.caught.{size}.{rate}", value, n=config.splits, note=note, **beside)


BENCHMARKS = (
    Benchmark("saturation", __doc__, SaturationConfig(), SaturationConfig(3, 2), CLAIMS, rows, seeds=(SEED,)),
)
