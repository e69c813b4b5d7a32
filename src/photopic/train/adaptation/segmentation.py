"""Train a small segmentation model on pictures with the class of every pixel, such as the source model of an adaptation.

The network is a SegFormer of 0.4 million weights, whose head is linear layers over four resolutions. Paper: *SegFormer: Simple and
Efficient Design for Semantic Segmentation with Transformers* (NeurIPS 2021, arXiv:2105.15203). Changed: one block a resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import nn
from torch.nn import functional as F

from photopic.core.errors import DataError
from photopic.core.events import Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.segmented import SegmentedPictures
from photopic.learning.few_shot_batches import Training, drawn
from photopic.models.preprocessing import Preprocessing
from photopic.models.segmenter import Segmenter

SMALLEST = 32  # pixels a side: the coarsest of four resolutions is then one place


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(Training):
    """How to train."""

    steps: Annotated[int, Ge(1)] = 500  # steps of training; more takes longer
    lr: Annotated[float, Gt(0)] = 2e-3  # size of a step of AdamW at first; it falls along a half cosine
    batch: Annotated[int, Ge(1)] = 16  # pictures a step, all where there are fewer
    augment: bool = False  # change contrast and brightness of every picture at random
    width: Annotated[int, Ge(8)] = (
        16  # channels of the finest resolution, a multiple of 8; each further one has twice as many
    )


@method(
    paper="arXiv:2105.15203",
    claims="sfda.source",
    command="train segmentation",
    examples=(
        "Example: photopic train segmentation things/ -o mine",
        "Without pictures: emoji-scenes:1000 --style noto",
    ),
)
def segmentation(
    data: SegmentedPictures, *, config: SegmentationConfig = SegmentationConfig(), run: Run | None = None
) -> Steps[Segmenter]:
    """Train a small model that names the class of every pixel.

    Args:
        data: Pictures with the class of every pixel.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The model, which saves a folder as transformers reads it.

    Raises:
        DataError: If pictures are smaller than 32 pixels.

    Example:
        >>> model = segmentation(segmented_scenes(100))  # doctest: +SKIP
    """
    height, width = data.images.shape[1:3]
    if min(height, width) < SMALLEST:
        raise DataError(
            f"pictures: expected pictures of {SMALLEST} pixels or more a side, found {height} x {width}; read them larger (--size)"
        )
    preprocess = Preprocessing(resize=(height, width), mean=(0.5,) * 3, std=(0.25,) * 3)
    learner = _Segmentation(small_segformer(data.names, config.width, config.seed), preprocess, data, config)
    yield from fit(learner, config.steps, run=run)
    facts = {"pictures": len(data), "class_ratio": [round(each, 6) for each in data.class_ratio.tolist()]}
    return Segmenter(
        learner.network, preprocess=preprocess, labels=data.names, name="small-segformer", provenance=facts
    )


def small_segformer(names: Sequence[str], width: int, seed: int) -> nn.Module:
    """An untrained SegFormer with four resolutions of one block each.

    Args:
        names: Of the classes.
        width: Channels of the finest resolution.
        seed: Of the weights.
    """
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        depths=[1] * 4, hidden_sizes=[width * 2**level for level in range(4)], num_attention_heads=[1, 2, 4, 8],
        mlp_ratios=[2] * 4, decoder_hidden_size=4 * width, drop_path_rate=0.0, classifier_dropout_prob=0.0,
        id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SegformerForSemanticSegmentation(config)


class _Segmentation(OptimizedTensors):
    """Every weight by the cross-entropy of pixels; statistics of normalisation are learnt along."""

    def __init__(
        self, network: nn.Module, preprocess: Preprocessing, data: SegmentedPictures, config: SegmentationConfig
    ):
        self.network: Any = network
        self.preprocess, self.data, self.config = preprocess, data, config
        weights = dict(network.named_parameters())
        super().__init__(weights, torch.optim.AdamW(weights.values(), lr=config.lr, weight_decay=0.01), config.rate)
        # a checkpoint keeps the statistics too
        self.tensors |= {name: each for name, each in network.named_buffers()}

    def step(self, step: int) -> Mapping[str, float]:
        index = drawn(len(self.data), self.config, step)
        pixels, masks = self.preprocess(self.data.images[index]), torch.from_numpy(self.data.masks[index]).long()
        if self.config.augment:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
            draws = torch.rand(2, len(pixels), 1, 1, 1, generator=generator)
            pixels = pixels * (0.5 + draws[0]) + draws[1] - 0.5
        self.network.train()
        logits = F.interpolate(self.network(pixels).logits, masks.shape[1:], mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, masks)
        self.update(loss, step=step)
        self.network.eval()
        return {"loss": loss.item(), "right": (logits.argmax(1) == masks).float().mean().item()}
