"""Attribution: does a map lie on the object asked for, move with the class, and come from the weights? Exact masks, two objects.

    python -m benchmarks.locate.attribution            # writes benchmarks/results/attribution.json
    python -m benchmarks.locate.attribution --quick    # little training, few scenes; prints only

Scenes of two emoji; a map is asked for each of the two. Pointing: whether the brightest pixel of the map lies in the exact mask.
Energy: the share of the map in it. Beside stand a centre prior and a random map on the same grid. The bundled classifiers learnt
one emoji a picture and name neither of two, so they go on learning on other scenes first (``scene_classifiers``). The layer is
chosen on scenes of its own before those that count are looked at. A method is a case of ``METHODS``.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch.nn import functional

from benchmarks.harness.ledger import Row, write_result
from benchmarks.locate.scene_classifiers import CLASSES, SEED, scenes, seen, taught
from photopic.core.errors import ModelError
from photopic.core.results import Map
from photopic.data.scenes import Scene
from photopic.locate.attribution.grad_cam import GradCAMConfig, grad_cam
from photopic.metrics.intervals import bootstrap
from photopic.models.classifier import Classifier

PICTURES, STEPS = 3000, 700  # scenes and steps that a classifier goes on learning with
TUNED_ON, JUDGED_ON, RANDOMISED_ON = (
    80,
    250,
    60,
)  # scenes: to choose the layer by, to judge on, of these to randomise on
FIRST = 10_000  # of the scenes to judge on
SIDE = 128  # pixels of a scene and of its masks
MODELS = {"": "emoji-resnet-64-0", ".emoji_vit_64_0": "emoji-vit-64-0"}
POINTS = 0.2  # asked for above both baselines
Maps = Float[np.ndarray, "objects side side"]
METHODS: dict[str, Callable[[Classifier, Any, Sequence[str], str | None], Map]] = {
    "grad_cam": lambda model, image, names, layer: grad_cam(
        model, image, classes=names, config=GradCAMConfig(layer=layer)
    ),
}


@dataclass(frozen=True)
class Counts:
    """How much of everything."""

    pictures: int = PICTURES
    steps: int = STEPS
    tuning: int = TUNED_ON
    judged: int = JUDGED_ON
    randomised: int = RANDOMISED_ON


def enlarged(values: Float[np.ndarray, "maps rows columns"]) -> Maps:
    """Maps at the size of the scene, bilinear as published."""
    return functional.interpolate(torch.tensor(values)[None], (SIDE, SIDE), mode="bilinear")[0].numpy()


def maps_of(method: str, model: Classifier, scene: Scene, layer: str | None) -> Maps:
    """A map for each of the two objects."""
    names = [item.concept for item in scene.placements]
    return enlarged(METHODS[method](model, scene.image, names, layer).values[0])


def points(maps: Maps, masks: np.ndarray) -> np.ndarray:
    """Whether the brightest pixel of each map lies in its mask; a map without any is wrong."""
    brightest = maps.reshape(len(maps), -1).argmax(1)
    inside = masks.reshape(len(masks), -1)[np.arange(len(maps)), brightest]
    return (inside & (maps.max((1, 2)) > 0)).astype(float)


def energy(maps: Maps, masks: np.ndarray) -> np.ndarray:
    """The share of what is positive in each map that lies in its mask; of a map without any it is 0."""
    positive = maps.clip(0)
    return (positive * masks).sum((1, 2)) / positive.sum((1, 2)).clip(1e-30)


def centre_prior() -> Maps:
    """The same bump in the middle, whatever is asked for."""
    away = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE - 0.5
    return np.repeat(np.exp(-(away**2).sum(0) / (2 * 0.25**2))[None], 2, 0)


def chosen(method: str, model: Classifier, shown: Sequence[Scene]) -> tuple[str, str]:
    """The layer with which most points are right on the tuning scenes, and what was tried: every block with positions."""
    found: dict[str, float] = {}
    for layer in model.blocks:
        try:
            right = [points(maps_of(method, model, scene, layer), scene.masks).mean() for scene in shown]
        except ModelError:  # has no positions, or the logits do not depend on them
            continue
        found[layer] = mean(right)
    best = max(found, key=lambda layer: found[layer])
    tried = ", ".join(f"{layer} {share:.2f}" for layer, share in found.items())
    return best, f"layer {best}, as {len(shown)} other scenes chose ({tried})"


def numbers_of(method: str, model: Classifier, layer: str, shown: Sequence[Scene]) -> dict[str, np.ndarray]:
    """Points and energy of the map, the centre prior and a random map for each object, and of the map for the other object."""
    rng = np.random.default_rng(SEED)
    found: dict[str, list[np.ndarray]] = {}
    for scene in shown:
        names = [item.concept for item in scene.placements]
        values = METHODS[method](model, scene.image, names, layer).values[0]
        noise = rng.random(values.shape).astype(np.float32)
        maps = {"own": enlarged(values), "centre": centre_prior(), "random": enlarged(noise)}
        for rival, each in maps.items():
            found.setdefault(f"pointing {rival}", []).append(points(each, scene.masks))
            found.setdefault(f"energy {rival}", []).append(energy(each, scene.masks))
        found.setdefault("energy other", []).append(energy(maps["own"], scene.masks[::-1]))
    return {name: np.concatenate(each) for name, each in found.items()}


def judged(method: str, suffix: str, model: Classifier, layer: str, said: str, shown: Sequence[Scene]) -> list[Row]:
    """Pointing and energy against the better of the two baselines, and how far a map moves with the class asked for."""
    found = numbers_of(method, model, layer, shown)
    groups = np.repeat(np.arange(len(shown)), 2).tolist()
    rows = []
    for kind in ("pointing", "energy"):
        means = {rival: float(found[f"{kind} {rival}"].mean()) for rival in ("own", "centre", "random")}
        rival = max(("centre", "random"), key=lambda each: means[each])
        gain = bootstrap(found[f"{kind} own"] - found[f"{kind} {rival}"], groups=groups, seed=SEED)
        shares = ", ".join(f"{name} {share:.3f}" for name, share in means.items())
        row = Row(f"{method}.{kind}_gain{suffix}", gain.value, gain.low, gain.high, target=f">= {POINTS}")
        rows.append(
            replace(row, baseline=means[rival], control=means["random"], n=2 * len(shown), note=f"{shares}; {said}")
        )
    moves = bootstrap(found["energy own"] - found["energy other"], groups=groups, seed=SEED)
    both = found["pointing own"].reshape(-1, 2).min(1).mean()
    note = (
        "share of a map in the object asked for less that in the other one, 0 for a map that does not ask for the class; both maps "
        f"point at their objects in {both:.0%} of the scenes"
    )
    row = Row(f"{method}.class_moves{suffix}", moves.value, moves.low, moves.high, target="low > 0", n=2 * len(shown))
    return [*rows, replace(row, note=note)]


def randomised(model: Classifier, stages: int, seed: int) -> Classifier:
    """The network with the weights of its head and so many parts before it drawn anew, at their own mean and spread."""
    network = copy.deepcopy(model.network)
    generator = torch.Generator().manual_seed(seed)
    parts = [model.head_name, *reversed(model.blocks)][:stages]
    for name, tensor in network.named_parameters():
        if tensor.numel() > 1 and any(name.startswith(f"{part}.") for part in parts):
            drawn = torch.randn(tensor.shape, generator=generator) * tensor.std() + tensor.mean()
            tensor.data.copy_(drawn)
    return Classifier(network, preprocess=model._preprocess, labels=model.labels, name=model.name)


def correlation(first: Maps, second: Maps) -> float:
    """Mean rank correlation of two maps of each object; a constant map has none."""
    pairs = [(a[::4, ::4].ravel(), b[::4, ::4].ravel()) for a, b in zip(first, second, strict=True)]
    return mean(float(spearmanr(a, b)[0]) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0 for a, b in pairs)


def randomised_row(method: str, suffix: str, model: Classifier, layer: str, shown: Sequence[Scene]) -> Row:
    """How alike maps are before and after the weights are drawn anew from the top, part by part."""
    own = [maps_of(method, model, scene, layer) for scene in shown]
    found: list[list[float]] = []
    for stage in range(1, len(model.blocks) + 2):
        other = randomised(model, stage, SEED)
        pairs = zip(own, shown, strict=True)
        found.append([correlation(mine, maps_of(method, other, scene, layer)) for mine, scene in pairs])
    last = bootstrap(found[-1], seed=SEED)
    curve = ", ".join(f"{mean(each):.2f}" for each in found)
    note = (
        "rank correlation with the trained network's maps when the head and every block are random (target: below 0.3); from the "
        f"head down, part by part: {curve}"
    )
    claim = f"{method}.randomised_correlation{suffix}"
    return Row(claim, last.value, last.low, last.high, target="high < 0.3", baseline=1.0, n=len(shown), note=note)


def rows_of(suffix: str, counts: Counts) -> list[Row]:
    """All rows of one network."""
    name = MODELS[suffix]
    model = taught(name, pictures=counts.pictures, steps=counts.steps)
    tuning = scenes(model.labels, 0, counts.tuning, size=SIDE)
    shown = scenes(model.labels, FIRST, counts.judged, size=SIDE)
    sight = (
        f"{name} after {counts.steps} steps on {counts.pictures} other scenes of {CLASSES} classes names "
        f"{seen(model, shown).mean():.0%} of the objects among the first two"
    )
    rows: list[Row] = []
    for method in METHODS:
        layer, said = chosen(method, model, tuning)
        rows += judged(method, suffix, model, layer, f"{said}; {sight}", shown)
        rows.append(randomised_row(method, suffix, model, layer, shown[: counts.randomised]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little training, few scenes; prints only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    counts = Counts(200, 20, 4, 8, 4) if options.quick else Counts()
    rows: list[Row] = []
    for suffix in MODELS:
        found = rows_of(suffix, counts)
        for row in found:
            print(f"{row.claim:44} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]  {row.note}", flush=True)
        rows += found
    if not options.quick:
        elapsed = time.monotonic() - started
        write_result(
            "attribution", rows, command="python -m benchmarks.locate.attribution", seeds=(SEED,), elapsed_s=elapsed
        )


if __name__ == "__main__":
    main()
