"""Edits and outputs of tiny real pipelines, shared by the tests of interop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from photopic.core.edits import DenseDelta, Edit, LowRankDelta, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

ATTENTION = "mid_block.attentions.0.transformer_blocks.0"
TO_K = f"unet.{ATTENTION}.attn2.to_k.weight"
TO_V = f"unet.{ATTENTION}.attn2.to_v.weight"
TO_OUT = f"unet.{ATTENTION}.attn1.to_out.0.weight"
CONV = "unet.down_blocks.0.resnets.0.conv1.weight"
POINT = "unet.down_blocks.0.attentions.0.proj_in.weight"  # a 1x1 convolution
BIAS = "unet.mid_block.resnets.0.conv1.bias"
Q_PROJ = "text_encoder.encoder.layers.0.self_attn.q_proj.weight"
FC1 = "text_encoder.encoder.layers.1.mlp.fc1.weight"
PROMPT = "a bear on a red background"


def tiny_model(*, sdxl: bool = False, seed: int = 0) -> TextToImage:
    return TextToImage(tiny_sdxl_pipeline(seed=seed) if sdxl else tiny_pipeline(seed=seed), "tiny")


def noise(*shape: int, seed: int = 1, size: float = 0.1) -> Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_positions(count: int, total: int, seed: int = 1) -> Tensor:
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def low_rank(model: TextToImage, names: tuple[str, ...], rank: int = 2, scale: float = 0.5) -> LowRankDelta:
    tensors = {name: model.components[name.split(".")[0]].get_parameter(name.split(".", 1)[1]) for name in names}
    up = {name: noise(len(tensor), rank, seed=2) for name, tensor in tensors.items()}
    down = {name: noise(rank, tensor[0].numel(), seed=3, size=1.0) for name, tensor in tensors.items()}
    return LowRankDelta(up, down, dict.fromkeys(names, scale))


def make(model: TextToImage, *parts: Any) -> Edit:
    names = {name for part in parts if hasattr(part, "names") for name in part.names()}
    return Edit(parts, model.edits.fingerprint(*names), {"method": "test", "seed": 1})


def mixed_edit(model: TextToImage, *, token: bool = True) -> Edit:
    """Every kind of weight part, linear layers and convolutions of two components, a bias, and a token."""
    shut = ZeroedWeights({TO_K: some_positions(20, 32 * 32), BIAS: torch.tensor([1, 5])})
    values = SparseWeights({CONV: some_positions(30, 16 * 16 * 9)}, {CONV: noise(30, size=0.5)})
    added = SparseWeights({TO_V: some_positions(40, 32 * 32)}, {TO_V: noise(40, size=0.5)}, delta=True)
    delta = DenseDelta({POINT: noise(16, 16, 1, 1, seed=4), FC1: noise(64, 32, seed=5)})
    tokens = [TokenEmbedding("<mine>", {"text_encoder": noise(32, size=1.0)})] if token else []
    return make(model, shut, values, added, delta, low_rank(model, (TO_OUT, Q_PROJ)), *tokens)


@torch.no_grad()
def unet_output(pipeline: Any) -> Tensor:
    """What the UNet predicts for a fixed input."""
    dim = pipeline.unet.config.cross_attention_dim
    options = {}
    if pipeline.unet.config.addition_embed_type:
        options = {"added_cond_kwargs": {"text_embeds": noise(2, 32), "time_ids": torch.full((2, 6), 32.0)}}
    hidden = noise(2, 7, dim, seed=6, size=1.0)
    return pipeline.unet(noise(2, 4, 8, 8, size=1.0), torch.tensor([10, 700]), hidden, **options).sample


@torch.no_grad()
def text_output(pipeline: Any, prompt: str = PROMPT) -> Tensor:
    """The prompt embeddings."""
    options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    return pipeline.encode_prompt(prompt=prompt, **options)[0]


def largest_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
