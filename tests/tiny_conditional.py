"""A tiny conditional model: the tiny pipeline and an adapter of random weights."""

from __future__ import annotations

import torch

from photopic.models.text_to_image.condition_encoder import ConditionEncoder, Shape
from photopic.models.text_to_image.condition_files import About
from photopic.models.text_to_image.conditional import ConditionalTextToImage
from tests.tiny import tiny_pipeline
from tests.tiny_encoders import tiny_dual_encoder

NAMES = ("embedding", "palette", "sketch", "instances", "depth", "intensity", "masked")


def tiny_shape() -> Shape:
    unet = tiny_pipeline().unet
    time, blocks = unet.time_embedding.linear_2.out_features, tuple(unet.config.block_out_channels)
    return Shape(NAMES, 16, time, unet.config.cross_attention_dim, blocks, 8, width=8, trunk=(16,) * len(blocks))


def tiny_conditional(*, trained: bool = True) -> ConditionalTextToImage:
    """A model of 32 pixels; one that is not trained has the zeros that training begins with."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        adapter = ConditionEncoder(tiny_shape())
        for each in adapter.parameters() if trained else ():
            torch.nn.init.normal_(each, std=0.1)
    pipeline = tiny_pipeline()
    about = About("", "tiny-vit", tiny_dual_encoder().digest(), {"each": 0.5})
    pipeline.conditions = (adapter.eval().requires_grad_(False), about)
    return ConditionalTextToImage(pipeline, "tiny-conditional")
