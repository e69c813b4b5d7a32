"""Skeletons against true ones: the score of the Pixel SkelNetOn challenge, picture by picture, and more forgiving ones beside it.

The challenge's scorer counts exact pixels and takes the mean over pictures; a skeleton moved by one pixel has about a third. See
``metrics.skeleton``; exact facts are in tests/metrics/test_skeleton.py, no effect is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.data.class_folder import ClassFolder
from photopic.data.pixels import MIDDLE
from photopic.data.skeleton_pairs import BLUE, SkeletonPairs
from photopic.data.skeletons import Mask
from photopic.metrics.skeleton import balanced_accuracy, outline, skeleton_f1

SMALLEST = 64  # pixels: the challenge's scorer wants more than that on both sides
RADII = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class SkeletonScoreConfig(Config):
    """How predictions are read."""

    # as the challenge's scorer: exactly blue pixels are the skeleton, and one picture that is missing, not above 64 pixels or of
    # another size makes the whole score 0; without, light pixels are the skeleton and such a picture is an error
    skelneton: bool = False


@method(
    command="measure skeleton",
    examples=(
        "Example: photopic measure skeleton found/ truth/",
        "As the challenge scores: photopic measure skeleton results/ labels/ --skelneton",
    ),
)
def skeleton_score(
    predicted: Annotated[ClassFolder, Flags("PREDICTED")],
    truth: Annotated[SkeletonPairs, Flags("TRUTH")],
    *,
    config: SkeletonScoreConfig = SkeletonScoreConfig(),
) -> Steps[Report]:
    """Score skeletons against true ones of the same names: strict F1 by picture and its mean, and how near the others are.

    Args:
        predicted: Pictures of skeletons.
        truth: The shapes with their true skeletons.
        config: How predictions are read.

    Returns:
        ``f1``, its mean over pictures; ``f1_within_1`` and ``f1_within_2`` pixels; ``balanced_accuracy``; a row a picture with its
        components and ends, found and true, the share of the shape that its skeleton rebuilds, and the pixels outside the shape.

    Raises:
        DataError: If a picture is missing or of another size; with ``skelneton`` these give 0, as the scorer does.

    Example:
        >>> skeleton_score(load_classes("found"), read_pairs("truth", PairOptions())).values["f1"]  # doctest: +SKIP
        0.83
    """
    files = {Path(file).stem: file for file in predicted.files}
    found: list[Mask] = []
    faults: list[str] = []
    for place, (name, true) in enumerate(zip(truth.names, truth.skeletons, strict=True)):
        mask = _read(predicted, files[name], config.skelneton) if name in files else None
        if mask is None or mask.shape != true.shape:
            there = "none" if mask is None else f"{mask.shape[1]} x {mask.shape[0]}"
            faults.append(
                f"{name}: expected a skeleton of {true.shape[1]} x {true.shape[0]} pixels, found {there}; add it"
            )
            mask = np.zeros_like(true)
        found.append(mask)
        yield Event("reading", place + 1, len(truth))
    if faults and not config.skelneton:
        raise DataError(faults[0])
    if min(truth.skeletons.shape[1:]) <= SMALLEST and config.skelneton:
        faults.append(f"pictures of {SMALLEST} pixels or fewer")
    masks = np.stack(found)
    scores = {radius: skeleton_f1(masks, truth.skeletons, radius) for radius in RADII}
    balanced = balanced_accuracy(masks, truth.skeletons)
    rows = [
        {"picture": name, "f1": _round(scores[0][place]), "f1_within_1": _round(scores[1][place]),
         "balanced_accuracy": _round(balanced[place]), "outside": int((masks[place] & ~truth.shapes[place]).sum())}
        | _compared(masks[place], truth.skeletons[place], truth.shapes[place])
        for place, name in enumerate(truth.names)
    ]  # fmt: skip
    strict = 0.0 if faults else _round(scores[0].mean())
    values: dict[str, Any] = {
        "f1": strict,
        "f1_within_1": _round(scores[1].mean()),
        "f1_within_2": _round(scores[2].mean()),
    }
    values |= {"balanced_accuracy": _round(balanced.mean()), "pictures": len(truth)}
    return Report("skeleton", values | ({"zero_because": faults[0]} if faults else {}), tuple(rows))


def _read(folder: ClassFolder, file: Path, exact: bool) -> Mask:
    pixels = np.asarray(folder[folder.files.index(file)])  # (h, w, 3)
    found: Mask = (pixels == BLUE).all(2) if exact else pixels.mean(2) > MIDDLE
    return found


def _compared(found: Mask, true: Mask, shape: Mask) -> dict[str, Any]:
    """Counts of both, side by side."""
    ours, theirs = outline(found, shape), outline(true, shape)
    counts = {
        f"{name}{ending}": each[name]
        for name in ("components", "ends")
        for each, ending in ((ours, ""), (theirs, "_true"))
    }
    return counts | {"rebuilt": ours["rebuilt"]}


def _round(value: Any) -> float:
    return round(float(value), 6)
