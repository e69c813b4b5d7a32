"""A step of a search on a transformer of Stable Diffusion 3 medium's shape, in bfloat16, random weights, no download.

    python -m benchmarks sd3-shape            # 2 billion weights, 512 px; writes benchmarks/results/sd3-shape.json
    python -m benchmarks sd3-shape --quick    # the same path on a transformer of a few thousand weights; prints only

Text is prepared: text encoders and VAE are tiny ones of the right widths, as a user's are set aside once everything is encoded.
Phases as in ``sd15-shape``: build, encode and choose what fits into the budget, one step of the search on one picture and one to
preserve. The peak is of the process' resident memory, counted anew for every phase, with what earlier phases left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.locate.sd15_shape import Phases, noise_pictures, tokenizer
from photopic.core.config import Config
from photopic.data.captioned import CaptionedImages
from photopic.locate.concept_neurons import ConceptNeuronsConfig, concept_neurons
from photopic.models.text_to_image.attention_weights import attention_weights
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage

CLAIMS = (
    Claim(
        "sd3_shape.peak", "<= 12", "--memory; bfloat16, text prepared, one step; resident memory of the process", "GiB"
    ),
    Claim("sd3_shape.peak_*", unit="GiB"),
)
MEDIUM: dict[str, Any] = {  # the configuration of stable-diffusion-3-medium
    "sample_size": 128,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
TINY: dict[str, Any] = MEDIUM | {"num_layers": 2, "num_attention_heads": 1, "caption_projection_dim": 64}
POOLED = (768, 1280)  # of the two CLIP text encoders
VOCABULARY = 1000


@dataclass(frozen=True)
class TransformerMemoryConfig(Config):
    """How much is measured."""

    size: Annotated[int, Ge(16)] = 512  # side of the pictures in pixels; 1,024 tokens and 333 of text
    memory: str = "12GiB"  # budget of the search
    tiny: bool = False  # whether the transformer is a tiny one


def build(config: TransformerMemoryConfig) -> TransformerTextToImage:
    """A pipeline whose transformer has that shape, everything in bfloat16 from the beginning."""
    words, usual = tokenizer(VOCABULARY, "bear"), torch.get_default_dtype()
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        few = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        first, second = (
            CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=len(words), projection_dim=width, **few, **ids))
            for width in POOLED
        )
        pipeline = StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(**TINY if config.tiny else MEDIUM).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=AutoencoderKL(
                block_out_channels=(8,) * 4,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=16,
                norm_num_groups=4,
                layers_per_block=1,
                scaling_factor=1.5305,
                shift_factor=0.0609,
            ),
            text_encoder=first,
            tokenizer=words,
            text_encoder_2=second,
            tokenizer_2=words,
            text_encoder_3=T5EncoderModel(
                T5Config(vocab_size=len(words), d_model=4096, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
            ),
            tokenizer_3=words,
        )
    finally:
        torch.set_default_dtype(usual)
    pipeline.set_progress_bar_config(disable=True)
    model = TransformerTextToImage(pipeline, "sd3-shape")
    model.image_size = config.size
    return model


def measure(config: TransformerMemoryConfig) -> tuple[Phases, str]:
    """Go through the phases up to the end of the first step; and what was searched, in words."""
    phases = Phases()
    with phases.measured("build"):
        model = build(config)
    weights = attention_weights(model)
    size = sum(parameter.numel() for parameter in model.network.parameters())
    said = f"{size / 1e9:.2f} billion weights, {sum(map(torch.numel, weights.values())) / 1e6:.0f} million searched"
    search = ConceptNeuronsConfig(steps=1, batch=1, evaluation=0, density=0.01, memory=config.memory)
    preserved = CaptionedImages(noise_pictures(model, 1, seed=1), ["a bear"])
    images = CaptionedImages(noise_pictures(model, 1, seed=0))
    events = concept_neurons.events(model, images, noun="bear", preserved=preserved, config=search)
    done = 0
    while not done:
        with phases.measured("next"):
            event = next(events)
        done = event.done if event.stage == "locating" else 0
        phases.rename("next", "step" if done else "preparing")
    return phases, said


def rows(bench: Bench[TransformerMemoryConfig, Any]) -> Iterator[Row]:
    """The peak of all phases, then each."""
    phases, said = measure(bench.config)
    peak, largest = max((peak, name) for name, peak in phases.peaks.items())
    note = f"{said}; {bench.config.size} px, one picture and one to preserve; largest in phase {largest!r}"
    yield row("sd3_shape.peak", peak, note=note)
    for name, peak in phases.peaks.items():
        yield row(f"sd3_shape.peak_{name}", peak, note=f"{phases.seconds[name]:.1f} s")


QUICK = TransformerMemoryConfig(size=64, memory="64GiB", tiny=True)
BENCHMARKS = (Benchmark("sd3-shape", __doc__, TransformerMemoryConfig(), QUICK, CLAIMS, rows, threads=0),)
