"""Tiny random text-to-image pipelines of the real diffusers and transformers classes, built in memory."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

WORDS = (
    "a an the of on in and with two three four photo left right above below background gradient to from "
    "bear cat dog panda fox koala tiger lion mug guitar banana apple house tree boat star rocket avocado "
    "red orange yellow green teal blue purple pink brown gray white black striped dotted checkered "
    "noto twemoji openmoji fluent flat modern high contrast"
).split()
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
IMAGE_SIZE = 32  # pixels, with 8x8 latents
MAX_TOKENS = 24


def tiny_tokenizer() -> CLIPTokenizer:
    """A byte-level BPE tokenizer: each of ``WORDS`` is one token, any other text falls apart into characters."""
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate([*alphabet, *(letter + "</w>" for letter in alphabet)])}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merged = pieces[0] + pieces[1]
            if (pieces[0], pieces[1]) not in merges:
                merges.append((pieces[0], pieces[1]))
            vocabulary.setdefault(merged, len(vocabulary))
            pieces = [merged, *pieces[2:]]
    vocabulary[BOS] = len(vocabulary)
    vocabulary[EOS] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def tiny_pipeline(
    prediction_type: str = "epsilon", *, seed: int = 0, dtype: torch.dtype = torch.float32, **scheduler: Any
) -> StableDiffusionPipeline:
    """A ``StableDiffusionPipeline`` of 32 px images, 8x8 latents and cross-attention at 8x8 and 4x4.

    Args:
        prediction_type: ``epsilon``, ``v_prediction`` or ``sample``.
        seed: Of the random weights; the same seed gives the same weights.
        dtype: Of every module.
        scheduler: Overrides of the scheduler's configuration.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        pipeline = StableDiffusionPipeline(
            vae=_vae(),
            text_encoder=CLIPTextModel(_text_config(tokenizer)),
            tokenizer=tokenizer,
            unet=_unet(cross_attention_dim=32),
            scheduler=_scheduler(prediction_type, **scheduler),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline if dtype == torch.float32 else pipeline.to(dtype=dtype)


def tiny_sdxl_pipeline(prediction_type: str = "epsilon", *, seed: int = 0) -> StableDiffusionXLPipeline:
    """A ``StableDiffusionXLPipeline``: two text encoders, a pooled embedding and time ids."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        config = _text_config(tokenizer)
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=CLIPTextModel(config),
            text_encoder_2=CLIPTextModelWithProjection(config),
            tokenizer=tokenizer,
            tokenizer_2=tiny_tokenizer(),
            unet=_unet(
                cross_attention_dim=64,  # 32 of each encoder
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 32,
            ),
            scheduler=_scheduler(prediction_type),
            add_watermarker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _unet(**overrides: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
        **overrides,
    ).eval()


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
        scaling_factor=0.5,
    ).eval()


def _text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _scheduler(prediction_type: str, **overrides: Any) -> DDIMScheduler:
    options = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "beta_schedule": "scaled_linear"}
    return DDIMScheduler(prediction_type=prediction_type, beta_start=0.00085, beta_end=0.012, **options | overrides)


def noise_pictures(count: int, seed: int) -> torch.Tensor:
    """Pictures of nothing, from -1 to 1, as large as the pipelines draw them."""
    return torch.rand(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1
