"""Attribution: does a map lie on the object asked for, move with the class, and come from the weights? Exact masks, two objects.

    python -m benchmarks attribution            # writes benchmarks/results/attribution.json

Scenes of two emoji; a map is asked for each of the two. Pointing: whether the brightest pixel of the map lies in the exact mask.
Energy: the share of the map in it. Beside stand a centre prior and a random map on the same grid. The bundled classifiers learnt
one emoji a picture and name neither of two, so they go on learning on other scenes first (``scene_classifiers``). The layer is
chosen on scenes of its own before those that count are looked at. A method is a case of ``METHODS``. The networks, and each method
on each of them, are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from safetensors.torch import load_file, save_file
from torch.nn import functional

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from benchmarks.harness.code import code_of
from benchmarks.locate.scene_classifiers import CLASSES, SEED, scenes, seen, taught, untaught
from photopic.core.config import Config
from photopic.core.errors import ModelError
from photopic.core.results import Map
from photopic.data.scenes import Scene
from photopic.locate.attribution.grad_cam import GradCAMConfig, grad_cam
from photopic.locate.attribution.layer_masking import layer_masking, seen_through
from photopic.locate.attribution.normgrad import NormGradConfig, normgrad
from photopic.metrics.intervals import bootstrap
from photopic.metrics.saliency import (
    Maps,
    centre_prior,
    curves,
    energy,
    points,
    randomised,
    rank_correlation,
    resized,
)
from photopic.models.classifier import Classifier

FIRST = 10_000  # of the scenes to judge on
SIDE = 128  # pixels of a scene and of its masks
MODELS = {"": "emoji-resnet-64-0", ".emoji_vit_64_0": "emoji-vit-64-0"}
METHODS = ("grad_cam", "normgrad", "layer_masking")
LAYERLESS = ("layer_masking",)  # hundreds of passes a scene: judged on as many as are randomised, randomised on a third
LEFT_OUT = (4, 8, 16)  # background cells of 64
MOVES = "share of a map in the object asked for less that in the other one, 0 for a map that does not ask for the class"
RANDOMISED = "rank correlation with the trained network's maps when the head and every block are random"
CLAIMS = (
    Claim(
        "*.pointing_gain*", ">= 0.2", "brightest pixels in the mask, above the better of two baselines; control: random"
    ),
    Claim("*.energy_gain*", ">= 0.2", "share of a map in the mask, above the better of two baselines; control: random"),
    Claim("*.class_moves*", "low > 0", MOVES),
    Claim("*.randomised_correlation*", "high < 0.3", RANDOMISED),
    Claim("*.deletion_gain*", "low > 0", "probability left when the brightest pixels go, random order less the map's"),
    Claim(
        "*.insertion_gain*", "low > 0", "probability reached by the brightest pixels alone, the map's less random order"
    ),
    Claim("normgrad.early_layer_gain*", "low > 0", "pointing at the first layer with positions, less Grad-CAM's there"),
    Claim(
        "layer_masking.entropy_gain*",
        "low > 0",
        "change of entropy when background goes, grey less layers; control: black",
    ),
)


@dataclass(frozen=True)
class AttributionConfig(Config):
    """How much of everything."""

    pictures: Annotated[int, Ge(1)] = 3000  # scenes that a classifier goes on learning from
    steps: Annotated[int, Ge(1)] = 700  # of that learning
    tuning: Annotated[int, Ge(1)] = 80  # scenes to choose the layer by
    judged: Annotated[int, Ge(2)] = 250  # scenes to judge on
    randomised: Annotated[int, Ge(2)] = 60  # of these to randomise on


def attributed(method: str, model: Classifier, image: Any, names: Sequence[str], layer: str | None) -> Map:
    """The maps of several classes by one method."""
    if method == "grad_cam":
        return grad_cam(model, image, classes=names, config=GradCAMConfig(layer=layer))
    if method == "normgrad":
        return normgrad(model, image, classes=names, config=NormGradConfig(layers=None if layer is None else (layer,)))
    return layer_masking(model, image, classes=names)


def maps_of(method: str, model: Classifier, scene: Scene, layer: str | None) -> Maps:
    """A map for each of the two objects, at the size of the scene."""
    names = [item.concept for item in scene.placements]
    return resized(attributed(method, model, scene.image, names, layer).values[0], (SIDE, SIDE))


def chosen(method: str, model: Classifier, shown: Sequence[Scene]) -> tuple[str, str]:
    """The layer with which most points are right on the tuning scenes, and what was tried: every block with positions."""
    if method in LAYERLESS:
        return "", "no layer"
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
        values = attributed(method, model, scene.image, names, layer).values[0]
        noise = rng.random(values.shape).astype(np.float32)
        centre = np.repeat(centre_prior((SIDE, SIDE))[None], 2, 0)
        maps = {"own": resized(values, (SIDE, SIDE)), "centre": centre, "random": resized(noise, (SIDE, SIDE))}
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


def randomised_row(method: str, suffix: str, model: Classifier, layer: str, shown: Sequence[Scene]) -> Row:
    """How alike maps are before and after the weights are drawn anew from the top, part by part."""
    own = [maps_of(method, model, scene, layer) for scene in shown]
    found: list[list[float]] = []
    last = len(model.blocks) + 1  # the head and every block
    for stage in [last] if method in LAYERLESS else range(1, last + 1):
        other = randomised(model, stage, SEED)
        pairs = zip(own, shown, strict=True)
        found.append(
            [
                rank_correlation(before[:, ::4, ::4], maps_of(method, other, scene, layer)[:, ::4, ::4])
                for before, scene in pairs
            ]
        )
    curve = ", ".join(f"{mean(each):.2f}" for each in found)
    note = f"from the head down, part by part: {curve}"
    alike = bootstrap(found[-1], seed=SEED)
    return row(f"{method}.randomised_correlation{suffix}", alike, baseline=1.0, n=len(shown), note=note)


def curve_rows(method: str, suffix: str, model: Classifier, layer: str, shown: Sequence[Scene]) -> Iterator[Row]:
    """Deletion and insertion: the mean probability of the class over shares of pixels, in the map's order and in a random one."""
    rng = np.random.default_rng(SEED)
    gains: dict[str, list[float]] = {"deletion": [], "insertion": []}
    for scene in shown:
        pixels, maps = model.preprocess(scene.image), maps_of(method, model, scene, layer)
        for index, own in zip(model.class_indices([item.concept for item in scene.placements]), maps, strict=True):
            ordered, random = (curves(model, pixels, index, order) for order in (own, rng.random(own.shape)))
            gains["deletion"].append(float(random["deletion"].mean() - ordered["deletion"].mean()))
            gains["insertion"].append(float(ordered["insertion"].mean() - random["insertion"].mean()))
    groups = np.repeat(np.arange(len(shown)), 2).tolist()
    for kind, each in gains.items():
        yield row(f"{method}.{kind}_gain{suffix}", bootstrap(each, groups=groups, seed=SEED), n=len(each))


def early_row(suffix: str, model: Classifier, shown: Sequence[Scene]) -> Row:
    """NormGrad and Grad-CAM at the first block that has positions."""
    for layer in model.blocks:
        try:
            right = {
                method: np.concatenate([points(maps_of(method, model, scene, layer), scene.masks) for scene in shown])
                for method in ("normgrad", "grad_cam")
            }
        except ModelError:  # has no positions, or the logits do not depend on them
            continue
        groups, means = (
            np.repeat(np.arange(len(shown)), 2).tolist(),
            {name: each.mean() for name, each in right.items()},
        )
        gain = bootstrap(right["normgrad"] - right["grad_cam"], groups=groups, seed=SEED)
        note = f"layer {layer}, NormGrad {means['normgrad']:.3f}"
        return row(f"normgrad.early_layer_gain{suffix}", gain, n=len(groups), baseline=means["grad_cam"], note=note)
    raise ModelError(f"{model.name}: no block has positions")


@torch.no_grad()
def entropy_row(suffix: str, model: Classifier, shown: Sequence[Scene]) -> Row:
    """How far the entropy of the prediction moves when cells without any object are left out, by each way of leaving out."""
    rng = np.random.default_rng(SEED)
    moved: dict[str, list[float]] = {"layers": [], "grey": [], "black": []}
    for scene in shown:
        cells = scene.masks.any(0).reshape(8, SIDE // 8, 8, SIDE // 8).any((1, 3)).ravel()  # with some of an object
        order = rng.permutation(np.flatnonzero(~cells))
        there = np.ones((len(LEFT_OUT), 64), np.float32)
        for number, count in enumerate(LEFT_OUT):
            there[number, order[:count]] = 0
        pixels = model.preprocess(scene.image)
        masks = functional.interpolate(torch.tensor(there).view(-1, 1, 8, 8), pixels.shape[-2:], mode="nearest")
        whole = entropy(model.forward(pixels))
        for fill, each in moved.items():
            each.append(float((entropy(seen_through(model, pixels, masks, fill)) - whole).abs().mean()))  # type: ignore[arg-type]
    means = {fill: mean(each) for fill, each in moved.items()}
    gain = bootstrap(np.subtract(moved["grey"], moved["layers"]), seed=SEED)
    control, note = means["black"] - means["layers"], ", ".join(f"{fill} {value:.3f}" for fill, value in means.items())
    return row(
        f"layer_masking.entropy_gain{suffix}", gain, n=len(shown), baseline=means["grey"], control=control, note=note
    )


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Of the softmax of each row, in nats."""
    log_p = logits.float().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


class Taught:
    """The two networks, each taught once and kept."""

    def __init__(self, config: AttributionConfig, cache: ResultCache):
        self.config, self.cache, self.digest = config, cache, f"{config.pictures} {config.steps}"

    def __call__(self, name: str) -> Classifier:
        """A bundled classifier that names what is in a scene."""
        key = {"taught": name, "on": self.digest, "code": code_of(taught)}
        how = {"pictures": self.config.pictures, "steps": self.config.steps}
        path = self.cache.file(
            key, ".safetensors", lambda path: save_file(taught(name, **how).network.state_dict(), path)
        )
        model = untaught(name)
        model.network.load_state_dict(load_file(path))
        return model


@dataclass(frozen=True)
class Case:
    """A method on a network, or the rows of two methods."""

    model: str
    part: str
    tuning: int
    judged: int
    randomised: int


def cases(config: AttributionConfig) -> list[Case]:
    """Those of a network are one worker's."""
    sizes = (config.tuning, config.judged, config.randomised)
    return [Case(model, part, *sizes) for model in MODELS.values() for part in (*METHODS, "early", "entropy")]


def measure(bench: Bench[AttributionConfig, Taught], case: Case) -> list[dict[str, Any]]:
    """The rows of a case."""
    model = bench.subject(case.model)
    suffix = next(suffix for suffix, name in MODELS.items() if name == case.model)
    tuning = scenes(model.labels, 0, case.tuning, size=SIDE)
    shown = scenes(model.labels, FIRST, case.judged, size=SIDE)
    if case.part in METHODS:
        found = list(method_rows(case.part, suffix, model, tuning, shown, case.randomised))
    else:
        found = [(early_row if case.part == "early" else entropy_row)(suffix, model, shown)]
    return [asdict(each) for each in found]


def method_rows(
    method: str, suffix: str, model: Classifier, tuning: Sequence[Scene], shown: Sequence[Scene], randomised: int
) -> Iterator[Row]:
    """All rows of a method on a network."""
    layer, said = chosen(method, model, tuning)
    few = shown[: randomised // 3 if method in LAYERLESS else randomised]
    sight = (
        f"{model.name} names {seen(model, shown).mean():.0%} of the objects among the first two of {CLASSES} classes"
    )
    numbers = numbers_of(method, model, layer, shown[:randomised] if method in LAYERLESS else shown)
    yield from judged(method, suffix, numbers, f"{said}; {sight}")
    yield randomised_row(method, suffix, model, layer, few)
    yield from curve_rows(method, suffix, model, layer, few)


def rows(bench: Bench[AttributionConfig, Taught]) -> Iterator[Row]:
    """All rows of both networks."""
    for case in bench.cases:
        yield from (Row(**each) for each in bench.found(case))


QUICK = AttributionConfig(200, 20, 4, 8, 6)
BENCHMARKS = (
    Benchmark(
        "attribution", __doc__, AttributionConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=Taught, together=lambda case: case.model, seeds=(SEED,),
    ),
)  # fmt: skip
