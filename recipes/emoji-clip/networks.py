"""The two dual encoders: a ViT and a ConvNeXt that read 64 pixels, each with a small text tower of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    ConvNextConfig,
    PreTrainedModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from photopic.models.files import BUNDLED

sys.path.append(str(Path(__file__).parents[1]))  # recipes/, which holds _common
SIZE = 64  # pixels
DIM = 128  # of the shared space
MEAN, SPREAD = 0.6, 0.3  # of the pixel values
MAX_TOKENS = 24
SEEDS = {"vit": 0, "cnn": 1}
PREPROCESSOR = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 3,
    "image_mean": [MEAN] * 3,
    "image_std": [SPREAD] * 3,
    "image_processor_type": "CLIPImageProcessorPil",
}


def tokenizer() -> CLIPTokenizer:
    """That of ``emoji-diffusion``: every word of a caption of what is not held out is one token."""
    return CLIPTokenizer.from_pretrained(BUNDLED / "emoji-diffusion" / "tokenizer")


def build(kind: str) -> PreTrainedModel:
    """A network with its initial weights, by its seed.

    Args:
        kind: ``vit``: 8 x 8 patches, four layers; ``cnn``: four ConvNeXt stages.
    """
    words = tokenizer()
    text: dict[str, Any] = dict(
        vocab_size=len(words),
        hidden_size=DIM,
        intermediate_size=2 * DIM,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=DIM,
        hidden_act="quick_gelu",
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEEDS[kind])
        if kind == "vit":
            vision = CLIPVisionConfig(
                hidden_size=DIM,
                intermediate_size=3 * DIM,
                num_hidden_layers=4,
                num_attention_heads=4,
                image_size=SIZE,
                patch_size=8,
                projection_dim=DIM,
                hidden_act="quick_gelu",
            )
            return CLIPModel(CLIPConfig(text_config=text, vision_config=vision.to_dict(), projection_dim=DIM))
        widths = [48, 96, 160, 192]
        convolutions = ConvNextConfig(hidden_sizes=widths, depths=[1, 1, 2, 1], patch_size=4, image_size=SIZE)
        convolutions.hidden_size = widths[-1]  # what VisionTextDualEncoderModel asks for
        return VisionTextDualEncoderModel(
            VisionTextDualEncoderConfig(
                text_config=CLIPTextConfig(**text), vision_config=convolutions, projection_dim=DIM
            )
        )
