"""Train a network that marks the skeletons of silhouettes: a U-Net with context extraction, attention and a distance transform.

Paper: *Context Attention Network for Skeleton Extraction* (arXiv:2205.12066): U-Net, context extraction, distance transform,
weighted focal loss. Changed: the inside of the context group is ours (``models.skeleton_unet``); the distance transform is a
second input; heads at half and quarter size and a dice loss are those of others on the same challenge; a share of the border is
turned over anew at every step, since that is what thinning fails at. Claims ``skeleton.*`` of benchmarks/train/skeleton.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Flags
from photopic.core.errors import DataError
from photopic.core.events import Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.skeleton_pairs import SkeletonPairs, noisy_boundary
from photopic.data.skeletons import thin
from photopic.learning.few_shot_batches import Training, drawn
from photopic.learning.losses.skeleton import dice_loss, weighted_focal_loss
from photopic.metrics.skeleton import skeleton_f1
from photopic.models.skeleton_network import SkeletonNetwork, network_inputs
from photopic.models.skeleton_unet import SkeletonUNet

HEADS = (0.5, 0.3, 0.2)  # weights of the heads at full, half and quarter size
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)


@dataclass(frozen=True, kw_only=True)
class SkeletonConfig(Training):
    """How to train."""

    steps: Annotated[int, Ge(1)] = 1500  # steps of training; more takes longer
    lr: Annotated[float, Gt(0)] = 3e-3  # size of a step of AdamW at first; it falls along a half cosine
    batch: Annotated[int, Ge(2)] = 16  # pictures a step, all where there are fewer
    augment: Annotated[bool, Flags()] = False  # crops would cut skeletons off
    flip: bool = False  # flip and turn pictures at random; what thinning made does not commute with that
    noise: Annotated[float, Ge(0), Le(1)] = (
        0.05  # share of pixels on either side of the border turned over anew at every step
    )
    widths: Annotated[tuple[int, ...], Ge(1)] = (
        12,
        24,
        48,
    )  # channels of each level of the U-Net, finest first; two or more
    # dilations of the branches of context extraction at every level but the first; 0 leaves it out
    dilations: Annotated[tuple[int, ...], Ge(0)] = (1, 2, 4)
    distance: bool = True  # read the distance transform beside the shape
    focal: Annotated[float, Ge(0)] = 100.0  # weight of the focal loss beside the dice loss
    skeleton_weight: Annotated[float, Gt(0), Le(1)] = (
        0.9  # weight of skeleton pixels in the focal loss, of all others one minus it
    )
    gamma: Annotated[float, Ge(0)] = 2.0  # how much less the focal loss counts pixels that are right already
    validation: Annotated[float, Gt(0), Le(0.5)] = 0.1  # share of the pictures that only the threshold is chosen on


@method(
    paper="arXiv:2205.12066",
    claims="skeleton.",
    command="train skeleton",
    examples=(
        "Example: photopic train skeleton mine/ -o mine-network",
        "Without pictures: emoji-silhouettes:1200 --steps 300",
    ),
    after=("{output}: use it as photopic locate skeleton shapes/ --method network --model {output}",),
)
def skeleton_network(
    data: SkeletonPairs, *, config: SkeletonConfig = SkeletonConfig(), run: Run | None = None
) -> Steps[SkeletonNetwork]:
    """Train a network that marks the skeletons of silhouettes.

    Args:
        data: Silhouettes with their skeletons.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The network, its threshold chosen by the mean F1 of pictures that it did not learn from.

    Raises:
        DataError: If there are fewer than three pictures.

    Example:
        >>> model = skeleton_network(emoji_pairs(1200))  # doctest: +SKIP
    """
    held = max(1, round(len(data) * config.validation))
    if len(data) - held < 2:
        raise DataError(f"skeletons: expected three pictures or more, found {len(data)}; add some")
    order = np.random.default_rng((config.seed, 2)).permutation(len(data)).tolist()
    learner = SkeletonLearner(data.part(order[held:]), config)
    yield from fit(learner, config.steps, run=run)
    return chosen(SkeletonNetwork(learner.network, name="skeleton-network"), data.part(order[:held]), config)


def chosen(model: SkeletonNetwork, data: SkeletonPairs, config: SkeletonConfig) -> SkeletonNetwork:
    """The model with the threshold at which its thinned skeletons have the highest mean F1, macro as the challenge's."""
    shapes = noised(data.shapes, config.noise, np.random.default_rng((config.seed, 3)))
    found = model.probability(shapes)
    scores = [
        float(skeleton_f1(np.stack([thin(each > threshold) for each in found]), data.skeletons).mean())
        for threshold in THRESHOLDS
    ]
    best = int(np.argmax(scores))
    facts = {"validation_f1": round(scores[best], 6), "validation_pictures": len(data)}
    return SkeletonNetwork(model.network, float(THRESHOLDS[best]), model.name, facts)


class SkeletonLearner(OptimizedTensors):
    """Every weight by focal and dice loss at three sizes; the statistics of normalisation are learnt along.

    Attributes:
        network: What learns.
    """

    def __init__(self, data: SkeletonPairs, config: SkeletonConfig):
        self.data, self.config = data, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            dilations = [each for each in config.dilations if each]
            self.network: Any = SkeletonUNet(2 if config.distance else 1, config.widths, dilations)
        network: Any = self.network  # torch's stubs know no memory format
        network.to(memory_format=torch.channels_last)  # a fifth faster on processors
        weights = dict(self.network.named_parameters())
        super().__init__(weights, torch.optim.AdamW(weights.values(), lr=config.lr, weight_decay=1e-4), config.rate)
        self.tensors |= dict(self.network.named_buffers())  # a checkpoint keeps the statistics too

    def step(self, step: int) -> Mapping[str, float]:
        rng = np.random.default_rng((self.config.seed, 4, step))
        index = drawn(len(self.data), self.config, step)
        shapes, skeletons = self.data.shapes[index], self.data.skeletons[index]
        if self.config.flip:
            shapes, skeletons = _turned((shapes, skeletons), rng)
        pixels = network_inputs(noised(shapes, self.config.noise, rng), self.network.config["inputs"])
        height, width = (-(-side // self.network.multiple) * self.network.multiple for side in pixels.shape[2:])
        room = (0, width - pixels.shape[3], 0, height - pixels.shape[2])  # beyond a picture is outside the shape
        self.network.train()
        logits = self.network(F.pad(pixels, room).contiguous(memory_format=torch.channels_last))
        self.network.eval()
        target = F.pad(torch.from_numpy(skeletons.astype(np.float32))[:, None], room)
        loss = sum((w * self._loss(each, target) for w, each in zip(HEADS, logits, strict=False)), torch.zeros(()))
        self.update(loss, step=step)
        return {"loss": loss.item()}

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Of one head; the skeleton at its size is wherever a pixel of its cell is."""
        target = F.max_pool2d(target, target.shape[-1] // logits.shape[-1])
        focal = weighted_focal_loss(logits, target, self.config.skeleton_weight, self.config.gamma)
        return self.config.focal * focal + dice_loss(logits.sigmoid(), target)


def noised(shapes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Shapes with a share of their borders turned over."""
    return shapes if share == 0 else np.stack([noisy_boundary(each, share, rng) for each in shapes])


def _turned(pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both by one of four flips, and where they are square one of all eight flips and turns."""
    square = pair[0].shape[1] == pair[0].shape[2]
    turns, flip = int(rng.integers(4)) if square else 2 * int(rng.integers(2)), bool(rng.integers(2))
    first, second = (np.rot90(each, turns, (1, 2))[:, :, :: -1 if flip else 1] for each in pair)
    return first, second
