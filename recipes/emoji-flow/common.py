"""What the stages of the emoji-flow recipe share: where they read and write, and the pipeline they make."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))  # recipes/, which holds _common
ROOT = HERE.parents[1]
RUNS = ROOT / "runs" / "emoji-flow"
LANDED = HERE / "checkpoint"  # half precision, committed: where a fresh checkout goes on from
BUNDLED = ROOT / "src" / "photopic" / "models" / "bundled"
SECOND_EDITION = HERE.parent / "emoji-diffusion-128"
BANK = RUNS / "latents"


def text_encoders() -> tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection]:
    """The text encoder of emoji-diffusion with its own last state as projection, 192 numbers, and emoji-clip-vit's, 128."""
    first = CLIPTextModel.from_pretrained(BUNDLED / "emoji-diffusion" / "text_encoder", dtype=torch.float32)
    projected = CLIPTextModelWithProjection(first.config)
    projected.text_model.load_state_dict(first.state_dict(), strict=False)
    projected.text_projection.weight.data.copy_(torch.eye(192))
    both = CLIPModel.from_pretrained(BUNDLED / "emoji-clip-vit", dtype=torch.float32)
    second = CLIPTextModelWithProjection(both.config.text_config)
    second.text_model, second.text_projection = both.text_model, both.text_projection
    return projected.eval().requires_grad_(False), second.eval().requires_grad_(False)


def tokenizer() -> CLIPTokenizer:
    """One for both encoders."""
    return CLIPTokenizer.from_pretrained(BUNDLED / "emoji-diffusion" / "tokenizer")


def fresh_transformer(layers: int = 6, width: int = 192) -> SD3Transformer2DModel:
    """Stable Diffusion 3.5's kind of blocks on 8x8 cells of 16 numbers, 24 tokens of 320 numbers; 8 million weights."""
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=16,
        out_channels=16,
        num_layers=layers,
        attention_head_dim=32,
        num_attention_heads=width // 32,
        joint_attention_dim=320,
        caption_projection_dim=width,
        pooled_projection_dim=320,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=1.0)  # small latents: noise hides them as fast as it should


def autoencoder() -> AutoencoderKL:
    """The second edition's; Stable Diffusion 3's pipeline wants the shift, which is none, as a number."""
    vae = AutoencoderKL.from_pretrained(SECOND_EDITION / "checkpoint" / "vae", torch_dtype=torch.float32)
    vae.register_to_config(shift_factor=0.0)
    return vae


def pipeline_of(transformer: SD3Transformer2DModel) -> StableDiffusion3Pipeline:
    """The whole pipeline, without a T5; call it with ``max_sequence_length=0``, or zeros stand in for its 256 tokens."""
    first, second = text_encoders()
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=scheduler(),
        vae=autoencoder(),
        text_encoder=first,
        tokenizer=tokenizer(),
        text_encoder_2=second,
        tokenizer_2=tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )
