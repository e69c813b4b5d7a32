"""Attribution: does a map lie on the object asked for, move with the class, and come from the weights? Exact masks, two objects.

    python -m benchmarks attribution            # writes benchmarks/results/attribution.json

Scenes of two emoji; a map is asked for each of the two. Pointing: whether the brightest pixel of the map lies in the exact mask.
Energy: the share of the map in it. Beside stand a centre prior and a random map on the same grid. The bundled classifiers learnt
one emoji a picture and name neither of two, so they go on learning on other scenes first (``scene_classifiers``). The layer is
chosen on scenes of its own before those that count are looked at. A method is a case of ``METHODS``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float
from scipy.stats import spearmanr
from torch.nn import functional

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.locate.scene_classifiers import CLASSES, SEED, scenes, seen, taught
from photopic.core.config import Config
from photopic.core.errors import ModelError
from photopic.core.results import Map
from photopic.data.scenes import Scene
from photopic.locate.attribution.grad_cam import GradCAMConfig, grad_cam
from photopic.metrics.intervals import bootstrap
from photopic.models.classifier import Classifier

FIRST = 10_000  # of the scenes to judge on
SIDE = 128  # pixels of a scene and of its masks
MODELS = {"": "emoji-resnet-64-0", ".emoji_vit_64_0": "emoji-vit-64-0"}
Maps = Float[np.ndarray, "objects side side"]
METHODS: dict[str, Callable[[Classifier, Any, Sequence[str], str | None], Map]] = {
    "grad_cam": lambda model, image, names, layer: grad_cam(
        model, image, classes=names, config=GradCAMConfig(layer=layer)
    )
}
MOVES = "share of a map in the object asked for less that in the other one, 0 for a map that does not ask for the class"
RANDOMISED = "rank correlation with the trained network's maps when the head and every block are random"
CLAIMS = (
    Claim(
        "*.pointing_gain*", ">= 0.2", "brightest pixels in the mask, above the better of two baselines; control: random"
    ),
    Claim("*.energy_gain*", ">= 0.2", "share of a map in the mask, above the better of two baselines; control: random"),
    Claim("*.class_moves*", "low > 0", MOVES),
    Claim("*.randomised_correlation*", "high < 0.3", RANDOMISED),
)


@dataclass(frozen=True)
class AttributionConfig(Config):
    """How much of everything."""

    pictures: Annotated[int, Ge(1)] = 3000  # scenes that a classifier goes on learning from
    steps: Annotated[int, Ge(1)] = 700  # of that learning
    tuning: Annotated[int, Ge(1)] = 80  # scenes to choose the layer by
    judged: Annotated[int, Ge(2)] = 250  # scenes to judge on
    randomised: Annotated[int, Ge(2)] = 60  # of these to randomise on


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


def judged(claim: str, suffix: str, found: dict[str, np.ndarray], note: str) -> Iterator[Row]:
    """Pointing and energy against the better of the two baselines, and how far a map moves with the class asked for."""
    count = len(found["pointing own"])  # two a scene
    groups = np.repeat(np.arange(count // 2), 2).tolist()
    for kind in ("pointing", "energy"):
        means = {rival: float(found[f"{kind} {rival}"].mean()) for rival in ("own", "centre", "random")}
        rival = max(("centre", "random"), key=lambda each: means[each])
        gain = bootstrap(found[f"{kind} own"] - found[f"{kind} {rival}"], groups=groups, seed=SEED)
        shares = ", ".join(f"{name} {share:.3f}" for name, share in means.items())
        beside: dict[str, Any] = {"baseline": means[rival], "control": means["random"]}
        yield row(f"{claim}.{kind}_gain{suffix}", gain, n=count, note=f"{shares}; {note}", **beside)
    moves = bootstrap(found["energy own"] - found["energy other"], groups=groups, seed=SEED)
    both = found["pointing own"].reshape(-1, 2).min(1).mean()
    note = f"both maps point at their objects in {both:.0%} of the scenes"
    yield row(f"{claim}.class_moves{suffix}", moves, n=count, note=note)


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
        found.append([correlation(before, maps_of(method, other, scene, layer)) for before, scene in pairs])
    curve = ", ".join(f"{mean(each):.2f}" for each in found)
    last, note = bootstrap(found[-1], seed=SEED), f"from the head down, part by part: {curve}"
    return row(f"{method}.randomised_correlation{suffix}", last, baseline=1.0, n=len(shown), note=note)


def rows(bench: Bench[AttributionConfig, Any]) -> Iterator[Row]:
    """All rows of both networks."""
    config = bench.config
    for suffix, name in MODELS.items():
        model = taught(name, pictures=config.pictures, steps=config.steps)
        tuning = scenes(model.labels, 0, config.tuning, size=SIDE)
        shown = scenes(model.labels, FIRST, config.judged, size=SIDE)
        sight = (
            f"{name} after {config.steps} steps on {config.pictures} other scenes of {CLASSES} classes names "
            f"{seen(model, shown).mean():.0%} of the objects among the first two"
        )
        for method in METHODS:
            layer, said = chosen(method, model, tuning)
            yield from judged(method, suffix, numbers_of(method, model, layer, shown), f"{said}; {sight}")
            yield randomised_row(method, suffix, model, layer, shown[: config.randomised])


QUICK = AttributionConfig(200, 20, 4, 8, 4)
BENCHMARKS = (Benchmark("attribution", __doc__, AttributionConfig(), QUICK, CLAIMS, rows, seeds=(SEED,)),)
