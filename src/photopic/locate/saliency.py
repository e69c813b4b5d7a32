"""Saliency: the maps of several attribution methods side by side, and how far each can be trusted on these pictures.

Each map is asked for one class a picture. With masks of the objects: does the brightest pixel lie on the object, and how much of
the map does. Without: how the probability falls when the brightest pixels go and rises when they come alone, against a random
order; and how alike the map stays when the network's weights are drawn anew from the head down: a map that stays the same shows
the picture, not the network.

The measures and their papers are those of ``photopic.metrics.saliency``. Claims: ``attribution.*`` of
benchmarks/locate/attribution_peers.py; the maps' own are in benchmarks/locate/attribution.py.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from jaxtyping import Bool

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError, FieldError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Map, Report
from photopic.data.class_folder import ClassFolder
from photopic.locate._saliency_view import saliency_view
from photopic.locate.attribution.grad_cam import GradCAMConfig, grad_cam
from photopic.locate.attribution.layer_masking import LayerMaskingConfig, layer_masking
from photopic.locate.attribution.normgrad import NormGradConfig, normgrad
from photopic.metrics.intervals import bootstrap
from photopic.metrics.saliency import centre_prior, curves, energy, points, randomised, rank_correlation, resized
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images, batched

Name = Literal["grad-cam", "normgrad", "layer-masking"]
ObjectMasks = Bool[np.ndarray, "pictures height width"]
Attributed = Callable[[Classifier, Sequence[Any]], np.ndarray]  # pictures -> maps of a class (n, rows, columns)
BASELINES = ("centre", "random")


@dataclass(frozen=True, kw_only=True)
class SaliencyConfig(Config):
    """Which maps, and how they are tried."""

    methods: tuple[Name, ...] = ("grad-cam", "normgrad", "layer-masking")  # maps to compare, commas between
    layer: str | None = (
        None  # layer of Grad-CAM and NormGrad; by default the last block with positions on which the logits depend
    )
    centred: bool = False  # explain logits above the mean of all: for networks whose logits are all negative
    samples: Annotated[int, Ge(2)] = 200  # random subsets of cells that layer masking sees
    randomised: Annotated[int, Ge(0)] = (
        4  # pictures whose maps are compared to those of random weights; 0 leaves this out
    )
    shown: Annotated[int, Ge(0)] = 6  # pictures on the page
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed measures the same

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.methods:
            raise FieldError("methods", "expected one or more names with commas between, found none")


@dataclass(frozen=True)
class SaliencyReport(Report):
    """A report with its maps.

    Attributes:
        maps: Of each method, those of the first pictures, and the pictures as the network reads them.
    """

    maps: Mapping[str, Map] = field(default_factory=dict)


@method(
    claims="attribution.",
    command="locate saliency",
    examples=(
        "Example: photopic locate saliency emoji-resnet-64-0 pictures/ --centred -o maps.html",
        "With masks of the objects: photopic locate saliency emoji-resnet-64-0 pictures/ --masks masks/ --centred -o maps.html",
    ),
    view=saliency_view,
)
def saliency(
    model: Classifier,
    images: ClassFolder | Images,
    *,
    masks: Annotated[ClassFolder | ObjectMasks | None, Flags("--masks")] = None,
    classes: Annotated[Sequence[str] | None, Flags("--class")] = None,
    config: SaliencyConfig = SaliencyConfig(),
) -> Steps[Report]:
    """Compare attribution maps on your pictures: do they lie on the object, do their pixels matter, do they come from the weights.

    Args:
        model: A classifier: a bundled name, a folder of transformers, a hub id, or module:factory.
        images: A folder, or what ``Classifier.logits`` takes.
        masks: Of the object in each picture: a folder like that of the pictures, white where the object is; or booleans.
        classes: What to look for: one class for all pictures, or one a picture in their order. By default the sub-folder's class,
            and what the model names where there is none.
        config: Which maps, and how they are tried.

    Returns:
        A row a method, one for a bump in the middle and one for random maps: with masks ``pointing`` and ``energy``; ``deletion``
        and ``insertion``; by part of the network ``randomised``; and ``seconds`` a picture.

    Raises:
        DataError: If there is no picture, or classes or masks do not fit them.
        ModelError: If there is no such class or layer, or the network shows no layers.

    Example:
        >>> saliency(model, images, classes=["bear"]).rows[0]["method"]  # doctest: +SKIP
        'grad-cam'
    """
    images = batched(images)
    if len(images) == 0:
        raise DataError("images: expected at least one, found none")
    asked = asked_classes(model, images, classes)
    objects = None if masks is None else checked_masks(masks, images)
    rows: list[dict[str, Any]] = []
    maps: dict[str, Map] = {}
    orders: dict[str, np.ndarray] = {}
    for name in config.methods:
        began = time.monotonic()
        values, shown = yield from maps_of(name, model, images, asked, config)
        seconds = (time.monotonic() - began) / len(images)
        maps[name] = Map(values[: config.shown, None], (name,), {}, shown[: config.shown])
        found = yield from sanity(name, model, images, asked, values, config)
        orders[name] = values
        rows.append({"method": name, "randomised": found, "seconds": round(seconds, 6)})
    grid = next(iter(orders.values())).shape[1:]
    noise = np.random.default_rng(config.seed).random((len(images), *grid)).astype(np.float32)
    orders |= {"centre": np.repeat(centre_prior((32, 32))[None], len(images), 0), "random": noise}
    rows += [{"method": name, "randomised": [], "seconds": None} for name in BASELINES]
    for row in rows:
        row |= on_objects(orders[row["method"]], objects)
        row |= yield from changed(row["method"], model, images, asked, orders[row["method"]])
    parts = [model.head_name, *reversed(model.blocks)]
    numbers = {"pictures": len(images), "masked": objects is not None, "parts": parts}
    return SaliencyReport("saliency", numbers, tuple(rows), {"classes": list(dict.fromkeys(asked))}, maps)


def asked_classes(model: Classifier, images: Any, classes: Sequence[str] | None) -> list[str]:
    """The class asked for in each picture.

    Raises:
        DataError: If there are neither as many as pictures nor one.
        ModelError: If the model has no such class.
    """
    if classes is not None:
        model.class_indices(classes)
        if len(classes) not in (1, len(images)):
            raise DataError(f"--class: expected one, or one for each of {len(images)} pictures, found {len(classes)}")
        return list(classes) * (len(images) if len(classes) == 1 else 1)
    known = images.labels(model.labels) if isinstance(images, ClassFolder) else None
    indices = known if known is not None else model.logits(images).argmax(1).tolist()
    return [model.labels[index] for index in indices]


def checked_masks(masks: ClassFolder | ObjectMasks, images: Any) -> list[Bool[np.ndarray, "height width"]]:
    """The mask of the object of each picture, in its own size.

    Raises:
        DataError: If masks and pictures are not as many, are called otherwise, or a mask is empty.
    """
    if len(masks) != len(images):
        raise DataError(f"--masks: expected one for each of {len(images)} pictures, found {len(masks)}")
    if isinstance(masks, ClassFolder) and isinstance(images, ClassFolder):
        for mask, image in zip(masks.files, images.files, strict=True):
            if Path(mask).stem != Path(image).stem:
                raise DataError(
                    f"--masks: expected {image.stem} for the picture {image}, found {mask}; call them the same"
                )
    found = [np.asarray(mask).reshape(*np.asarray(mask).shape[:2], -1).max(2) for mask in masks]
    # painted masks have soft edges; booleans are 0 and 1
    found = [each if each.dtype == bool else each > 127 for each in found]
    if empty := [number for number, each in enumerate(found) if not each.any()]:
        raise DataError(f"--masks: expected an object in each, found none in that of picture {empty[0]}")
    return found


def maps_of(
    name: Name, model: Classifier, images: Any, asked: Sequence[str], config: SaliencyConfig
) -> Steps[tuple[np.ndarray, np.ndarray]]:
    """One map a picture, of the class asked for there, and the pictures as the network reads them; pictures of a class together."""
    found: dict[int, tuple[np.ndarray, Any]] = {}
    for label in dict.fromkeys(asked):
        places = [place for place, each in enumerate(asked) if each == label]
        several = attributed(name, model, [images[place] for place in places], label, config)
        for number, place in enumerate(places):
            assert several.images is not None
            found[place] = several.values[number, 0], several.images[number]
        yield Event(f"{name} maps", len(found), len(asked))
    ordered = [found[place] for place in range(len(asked))]
    return np.stack([each for each, _ in ordered]), np.stack([shown for _, shown in ordered])


def attributed(name: Name, model: Classifier, images: Sequence[Any], label: str, config: SaliencyConfig) -> Map:
    """The maps of one class by one method."""
    if name == "grad-cam":
        return grad_cam(
            model, images, classes=[label], config=GradCAMConfig(layer=config.layer, centred=config.centred)
        )
    if name == "normgrad":
        layers = None if config.layer is None else (config.layer,)
        return normgrad(model, images, classes=[label], config=NormGradConfig(layers=layers, centred=config.centred))
    cells = LayerMaskingConfig(samples=config.samples, seed=config.seed)
    return layer_masking(model, images, classes=[label], config=cells)


def on_objects(maps: np.ndarray, objects: Sequence[np.ndarray] | None) -> dict[str, Any]:
    """Pointing and energy with their intervals; None without masks."""
    if objects is None:
        return {"pointing": None, "energy": None}
    found: dict[str, list[float]] = {"pointing": [], "energy": []}
    for values, mask in zip(maps, objects, strict=True):
        large = resized(values[None], mask.shape)  # (1, height, width)
        found["pointing"].append(float(points(large, mask[None])[0]))
        found["energy"].append(float(energy(large, mask[None])[0]))
    return {name: _interval(each) for name, each in found.items()}


def changed(name: str, model: Classifier, images: Any, asked: Sequence[str], maps: np.ndarray) -> Steps[dict[str, Any]]:
    """Mean probability of the class over shares of pixels that are deleted and inserted in the order of each map."""
    found: dict[str, list[np.ndarray]] = {"deletion": [], "insertion": []}
    for number, (label, values) in enumerate(zip(asked, maps, strict=True)):
        pixels = model.preprocess([images[number]])
        for kind, each in curves(model, pixels, model.class_indices([label])[0], values).items():
            found[kind].append(each)
        yield Event(f"{name} pixels", number + 1, len(asked))
    means = {kind: _interval([float(each.mean()) for each in curve]) for kind, curve in found.items()}
    return means | {f"{kind}_curve": np.mean(each, 0).round(6).tolist() for kind, each in found.items()}


def sanity(
    name: Name, model: Classifier, images: Any, asked: Sequence[str], maps: np.ndarray, config: SaliencyConfig
) -> Steps[list[float]]:
    """Rank correlation of maps with those of a network whose weights are drawn anew, from the head down, part by part."""
    few, found = min(config.randomised, len(images)), list[float]()
    for parts in _parts(model) if few else ():
        other = randomised(model, parts, config.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of random weights an empty map is no news
            alike = [attributed(name, other, [images[place]], asked[place], config).values[0] for place in range(few)]
        values = np.concatenate(alike)  # (few, rows, columns)
        yield Event(f"{name} with random weights", parts, len(model.blocks) + 1)
        found.append(round(rank_correlation(maps[:few], values), 6))
    return found


def _parts(model: Classifier) -> Iterator[int]:
    """The head alone, then with ever more blocks, to all of them."""
    return iter(range(1, len(model.blocks) + 2))


def _interval(values: Sequence[float]) -> list[float]:
    """Mean, low, high."""
    return [round(float(each), 6) for each in bootstrap(values)] if len(values) > 1 else [round(values[0], 6)] * 3
