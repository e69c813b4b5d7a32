"""Which part of a picture lies nearer: depth as drawing order, read off any picture by a small bundled network.

It learnt from drawn scenes whose things overlap (``recipes/emoji-depth``), so it knows flat drawings, not photographs. Where
nothing overlaps nobody can tell an order, and things get the mean of all orders.
"""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import safe_open
from torch.nn import functional as F

from photopic.core.nn.evaluating import evaluating
from photopic.data.conditions import Conditions
from photopic.data.pixels import from_pixels
from photopic.models.files import BUNDLED
from photopic.models.skeleton_unet import SkeletonUNet

FILE = BUNDLED / "emoji-depth" / "depth.safetensors"
SIDE = 64  # pixels along a side of the pictures it learnt from; others are read at that size
SOURCE = "emoji-depth, predicted"


@lru_cache(maxsize=1)
def depth_network() -> SkeletonUNet:
    """The bundled network: logits of depth at full size first."""
    with safe_open(FILE, "pt") as reader:
        stated = json.loads(reader.metadata()["photopic"])
        weights = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (not a mapping)
    network = SkeletonUNet(stated["inputs"], stated["widths"], stated["dilations"])
    network.load_state_dict(
        {name: each.float() if each.is_floating_point() else each for name, each in weights.items()}
    )
    return network.eval().requires_grad_(False)


def predicted_depth(image: UInt8[np.ndarray, "size size 3"]) -> UInt8[np.ndarray, "1 size size"]:
    """How near each pixel of a square picture lies, 0 the background, in the units of ``photopic.data.extraction.depth``.

    Example:
        >>> predicted_depth(np.zeros((64, 64, 3), np.uint8)).max() < 64
        np.True_
    """
    network, size = depth_network(), len(image)
    pixels = F.interpolate(
        from_pixels(np.array(image[None])), (SIDE, SIDE), mode="bilinear", antialias=True
    )  # (1, 3, SIDE, SIDE)
    with torch.no_grad(), evaluating(network):
        found = network(pixels)[0].sigmoid()
    found = F.interpolate(found, (size, size), mode="bilinear")
    return (found[0] * 255).round().byte().numpy()


def with_depth(found: Conditions, image: UInt8[np.ndarray, "size size 3"]) -> Conditions:
    """The same conditions, with the depth that a picture seems to have where none is known."""
    if "depth" in found.values:
        return found
    return found.joined(Conditions(found.size, {"depth": predicted_depth(image)}, {"depth": SOURCE}))
