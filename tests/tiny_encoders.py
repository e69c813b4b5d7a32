"""Tiny random dual encoders of the real transformers classes, built in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    MobileNetV2Config,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from photopic.models.dual_encoder import DualEncoder
from photopic.models.preprocessing import Preprocessing
from tests.tiny import MAX_TOKENS, tiny_tokenizer

SIDE = 32  # pixels
DIM = 16


def tiny_dual_encoder(kind: Literal["vit", "cnn"] = "vit", *, seed: int = 0) -> DualEncoder:
    """A CLIPModel with a ViT of two layers and 8 x 8 patches, or a convolutional network with batch normalisations."""
    tokenizer = tiny_tokenizer()
    text: dict[str, Any] = dict(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        intermediate_size=2 * DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=DIM,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "vit":
            vision = dict(
                hidden_size=DIM,
                intermediate_size=2 * DIM,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=SIDE,
                patch_size=4,
                projection_dim=DIM,
            )
            network: Any = CLIPModel(
                CLIPConfig(text_config=text, vision_config=CLIPVisionConfig(**vision).to_dict(), projection_dim=DIM)
            )
        else:
            convolutions = MobileNetV2Config(depth_multiplier=0.1, image_size=SIDE)
            convolutions.hidden_size = 1280  # of its last layer, at any multiplier
            network = VisionTextDualEncoderModel(
                VisionTextDualEncoderConfig(
                    text_config=CLIPTextConfig(**text), vision_config=convolutions, projection_dim=DIM
                )
            )
            for part in network.vision_model.modules():  # the default start is so small that nothing comes through
                if isinstance(part, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(part.weight)
    prepare = Preprocessing(resize=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.5,) * 3)
    return DualEncoder(network, tokenizer=tokenizer, preprocess=prepare, name=f"tiny-{kind}")


def saved_dual_encoder(folder: Path, kind: Literal["vit", "cnn"] = "vit") -> Path:
    """The folder of one, as transformers saves it."""
    model = tiny_dual_encoder(kind)
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    config = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder
