"""The skeletons of silhouettes: by thinning, as the medial axis, or by a network that was taught to look past a noisy border.

Papers: *A fast parallel algorithm for thinning digital patterns* (Zhang and Suen 1984) and *A transformation for extracting new
descriptors of shape* (Blum 1967), both by scikit-image; *Context Attention Network for Skeleton Extraction* (arXiv:2205.12066), see
``train.skeleton``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Bool, UInt8
from scipy import ndimage

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Map
from photopic.data.silhouettes import Silhouettes
from photopic.data.skeletons import Mask, distances, medial, prune, thin
from photopic.metrics.skeleton import outline
from photopic.models.skeleton_network import SkeletonNetwork

NETWORK = "emoji-skeleton"
LINE = 3  # pixels across, below which a shape is a line already

Masks = Bool[np.ndarray, "n height width"]


@dataclass(frozen=True, kw_only=True)
class SkeletonConfig(Config):
    """How to find a skeleton."""

    # thin: what thinning leaves; medial: centres of discs that touch the border in two places; network: what a network has learnt
    method: Literal["thin", "medial", "network"] = "thin"
    smooth: Annotated[int, Ge(0), Le(31)] = (
        0  # side of a median filter over the shape before, odd; 0 takes the shape as it is
    )
    # branches go that are shorter than so many radii of the shape where they begin; 0 keeps all
    prune: Annotated[float, Ge(0)] = 0.0
    threshold: Annotated[float | None, Ge(0), Le(1)] = (
        None  # probability from which on a pixel counts; the network's own by default
    )
    turned: bool = False  # take the network's mean over all eight flips and quarter turns; eight times as long


@method(
    paper="arXiv:2205.12066",
    claims="skeleton.",
    command="locate skeleton",
    examples=(
        "Example: photopic locate skeleton shapes/ -o skeletons/",
        "Of a picture with transparency: photopic locate skeleton bear.png --smooth 3 --prune 1.2",
    ),
)
def skeleton(
    data: Silhouettes,
    *,
    model: Annotated[SkeletonNetwork | None, Flags("--model")] = None,
    config: SkeletonConfig = SkeletonConfig(),
) -> Steps[Map]:
    """Find the skeleton of every silhouette, one pixel wide.

    Args:
        data: Shapes: a picture or a folder, or arrays by ``Silhouettes.of``.
        model: A network of photopic train skeleton, for the method of that name; the bundled one where none is given.
        config: How to find it.

    Returns:
        Two maps a picture, 0 outside the shape: the ``skeleton`` as 0 and 1, and its ``radius``, the distance to the border in
        pixels on the skeleton; of the network also the ``probability``. The provenance has a row a picture: pixels, components of
        shape and skeleton, ends, junctions, loops, the share of the shape that the skeleton rebuilds, and how it was read.

    Raises:
        DataError: If a shape is empty after smoothing, or a network is given to another method.

    Example:
        >>> found = skeleton(Silhouettes.of(np.pad(np.ones((1, 5, 17), bool), ((0, 0), (2, 2), (2, 2)))))
        >>> found.labels, found.provenance["pictures"][0]["ends"]
        (('skeleton', 'radius'), 2)
    """
    if model is not None and config.method != "network":
        raise DataError(
            f"--model: is for the method network, found {config.method}; leave it out, or add --method network"
        )
    shapes = data.masks if config.smooth < 2 else np.stack([smoothed(each, config.smooth) for each in data.masks])
    if not (there := shapes.any((1, 2))).all():
        name = data.names[int((~there).argmax())]
        raise DataError(
            f"{name}: expected a shape, found none that stays under --smooth {config.smooth}; make it smaller"
        )
    chances = None
    if config.method == "network":
        model = model or SkeletonNetwork.load(NETWORK)
        yield Event("looking", 0, len(shapes))
        chances = model.probability(shapes, turned=config.turned)
        limit = model.threshold if config.threshold is None else config.threshold
    found, radii, rows = [], [], []
    for place, shape in enumerate(shapes):
        raw = medial(shape) if config.method == "medial" else thin(shape if chances is None else chances[place] > limit)
        found.append(prune(raw, shape, config.prune))
        radii.append(np.where(found[-1], distances(shape), 0))
        rows.append(_row(data, place, shape, found[-1]))
        yield Event("finding skeletons", place + 1, len(shapes))
    maps = {"skeleton": np.stack(found), "radius": np.stack(radii)} | (
        {} if chances is None else {"probability": chances}
    )
    values = np.stack([each.astype(np.float32) for each in maps.values()], 1)  # (pictures, labels, height, width)
    return Map(values, tuple(maps), {"pictures": rows}, _pictures(data.masks))


def smoothed(mask: Mask, side: int) -> Mask:
    """A shape under a median filter: a pixel is inside where most of the square around it are."""
    found: Mask = ndimage.median_filter(mask.astype(np.uint8), size=side, mode="constant") > 0
    return found


def _row(data: Silhouettes, place: int, shape: Mask, found: Mask) -> dict[str, object]:
    """What the provenance says of one picture."""
    widest = float(distances(shape).max())
    row: dict[str, object] = {"picture": data.names[place], "read_as": data.read_as[place]}
    row |= {"shapes": int(ndimage.label(shape, np.ones((3, 3)))[1])} | dict(outline(found, shape))
    return row | ({"note": f"the shape is a line already, thinner than {LINE} pixels"} if 2 * widest - 1 < LINE else {})


def _pictures(masks: Masks) -> UInt8[np.ndarray, "n height width 3"]:
    """Shapes in light grey on white."""
    return np.where(masks[..., None], np.uint8(160), np.uint8(255)).repeat(3, 3)
