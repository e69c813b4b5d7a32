"""A handle over a network that marks skeletons of silhouettes, trained by ``photopic train skeleton``.

Use it as ``photopic.load("emoji-skeleton").probability(masks)``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.errors import ModelError
from photopic.core.files import finite, write_atomically
from photopic.core.nn.evaluating import evaluating
from photopic.data.skeletons import distances
from photopic.models.classifier_files import CONFIG
from photopic.models.files import SKELETON_NETWORK, SKELETON_TYPE, first_line, read_json
from photopic.models.handle import Handle
from photopic.models.networks import check_finite, put_on
from photopic.models.preprocessing import starts
from photopic.models.skeleton_unet import SkeletonUNet

WEIGHTS = "model.safetensors"
TURNS = tuple((turns, flip) for flip in (False, True) for turns in range(4))  # of a square

Masks = Bool[np.ndarray, "n height width"]


@dataclass(frozen=True, eq=False)
class SkeletonNetwork(Handle):
    """A network and the probability from which on a pixel is of the skeleton.

    Attributes:
        network: Logits, the first at full size.
        threshold: 0 to 1.
        name: What messages and files call the model.
        provenance: How it was made, as JSON values.

    Raises:
        ModelError: If a weight is not finite.

    Example:
        >>> model = SkeletonNetwork(SkeletonUNet(2, (8, 8)))
        >>> model.probability(np.ones((1, 7, 5), bool)).shape
        (1, 7, 5)
    """

    described: ClassVar[str] = SKELETON_NETWORK

    network: SkeletonUNet
    threshold: float = 0.5
    name: str = "model"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_finite(self.network, self.name)
        self.network.eval().requires_grad_(False)

    @classmethod
    def _read(
        cls, name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None
    ) -> SkeletonNetwork:
        config = read_json(source, CONFIG) or {}
        if not isinstance(source, Path):
            raise ModelError(f"{name}: skeleton networks are read from folders; download it")
        try:
            network = SkeletonUNet(config["inputs"], config["widths"], config["dilations"])
            network.load_state_dict(load_file(source / WEIGHTS))  # half precision becomes single
            threshold = float(config["threshold"])
        except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
            raise ModelError(
                f"{name}: cannot be loaded as {SKELETON_NETWORK} ({first_line(error)}); copy the whole folder"
            ) from error
        put_on(network, device)
        return cls(network.to(dtype=dtype), threshold, source.name, config.get("provenance", {}))

    @property
    def components(self) -> dict[str, nn.Module]:
        """The network, by the name that edits call it."""
        return {"network": self.network}

    def inputs(self, masks: Masks) -> Float[Tensor, "n channels height width"]:
        """What the network reads of shapes: the shape, and where it was trained so the distance transform over its maximum."""
        return network_inputs(masks, self.network.config["inputs"]).to(self.device, self.dtype)

    def forward(self, pixels: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n height width"]:
        """Logits at full size, for pictures of any size: what lies beyond one is outside the shape."""
        height, width = pixels.shape[2:]
        down, right = (-length % self.network.multiple for length in (height, width))
        with evaluating(self.network):
            found: Tensor = self.network(F.pad(pixels, (0, right, 0, down)))[0]
        return found[:, 0, :height, :width]

    @torch.no_grad()
    def probability(
        self, masks: Masks, *, turned: bool = False, batch: int = 32
    ) -> Float[np.ndarray, "n height width"]:
        """Of every pixel that it is of the skeleton; 0 outside the shape.

        Args:
            masks: Shapes.
            turned: Take the mean over all eight flips and quarter turns, which commutes with them.
            batch: Pictures read at a time.
        """
        total = np.zeros(masks.shape, np.float32)
        ways = TURNS if turned else TURNS[:1]
        for way in ways:
            several = _turned(masks, *way)
            parts = [
                self.forward(self.inputs(several[start : start + batch])).sigmoid().float().cpu().numpy()
                for start in starts(len(several), batch)
            ]
            total += _back(np.concatenate(parts), *way)
        found: np.ndarray = total / len(ways) * masks
        return found

    def save(self, folder: Path) -> None:
        """Write a folder that loads again: the configuration and the weights, with the edits in force."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: each.contiguous() for name, each in self.network.state_dict().items()}
        config = {"model_type": SKELETON_TYPE, "threshold": self.threshold, **self.network.config}
        config["provenance"] = finite(self.provenance)
        write_atomically(folder / CONFIG, (json.dumps(config, indent=1, sort_keys=True) + "\n").encode())
        write_atomically(folder / WEIGHTS, save(state))


def network_inputs(masks: Masks, channels: int) -> Float[Tensor, "n channels height width"]:
    """The shape as 0 and 1, and with two channels its distance transform over its maximum in that picture."""
    planes = [masks.astype(np.float32)]
    if channels == 2:
        far = np.stack([distances(each) for each in masks])
        planes.append((far / np.maximum(far.max((1, 2), keepdims=True), 1)).astype(np.float32))
    return torch.from_numpy(np.stack(planes, 1))


def _turned(masks: np.ndarray, turns: int, flip: bool) -> np.ndarray:
    turned = np.rot90(masks, turns, (1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if flip else turned)


def _back(masks: np.ndarray, turns: int, flip: bool) -> np.ndarray:
    return np.rot90(masks[:, :, ::-1] if flip else masks, -turns, (1, 2))
