"""What a pipeline must be for a ``TextToImage`` handle, said in one line where it is not, and one old fault put right."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import DiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from photopic.core.errors import ModelError
from photopic.core.nn.attention.layers import plain
from photopic.models.text_to_image.families import FAMILIES
from photopic.models.text_to_image.noise_schedule import PREDICTION_TYPES
from photopic.models.text_to_image.tokenizers import TOKENIZER_OF

LEGACY_EOS = 2  # CLIP configurations written before transformers 4.31 carry this wrong end token


def check_pipeline(pipeline: Any, name: str) -> None:
    """Refuse what is not a whole text-to-image pipeline with a UNet.

    Args:
        pipeline: Whatever was loaded.
        name: What messages call it.

    Raises:
        ModelError: Says what is missing or wrong, and what to load instead.

    Example:
        >>> check_pipeline(DiffusionPipeline.from_pretrained("folder"), "mine")  # doctest: +SKIP
    """
    kind = type(pipeline).__name__
    advice = "load a StableDiffusionPipeline or StableDiffusionXLPipeline"
    if not isinstance(pipeline, DiffusionPipeline):
        raise ModelError(f"{name}: expected a diffusers pipeline, found {kind}; {advice}")
    unet: Any = getattr(pipeline, "unet", None)
    if unet is None or not isinstance(plain(unet), UNet2DConditionModel):
        if kind in FAMILIES:
            raise ModelError(
                f"{name}: {kind} has a transformer; make it a TransformerTextToImage, or use photopic.load"
            )
        raise ModelError(f"{name}: {kind} has no UNet2DConditionModel as its unet; {advice}")
    missing = [part for part in ("vae", "scheduler") if getattr(pipeline, part, None) is None]
    encoders = [encoder for encoder in TOKENIZER_OF if getattr(pipeline, encoder, None) is not None]
    missing += [TOKENIZER_OF[part] for part in encoders if getattr(pipeline, TOKENIZER_OF[part], None) is None]
    if not encoders:
        missing.append("text_encoder")
    if missing:
        raise ModelError(f"{name}: {kind} has no {', '.join(missing)}; load the pipeline with all its components")
    parameters = inspect.signature(type(pipeline).__call__).parameters
    # upscalers and the like
    if "prompt" not in parameters or "image" in parameters or not hasattr(pipeline, "encode_prompt"):
        raise ModelError(f"{name}: {kind} does not go from text alone to an image; {advice}")
    if pipeline.unet.config.in_channels != pipeline.vae.config.latent_channels:
        raise ModelError(
            f"{name}: its unet takes {pipeline.unet.config.in_channels} channels, its vae makes "
            f"{pipeline.vae.config.latent_channels}; inpainting and depth models are not text-to-image models, {advice}"
        )
    check_scheduler(pipeline.scheduler, name)


def prediction_type(scheduler: Any) -> str:
    """What the network predicts by the scheduler's configuration; epsilon where it says nothing."""
    return scheduler.config.get("prediction_type", "epsilon")


def check_scheduler(scheduler: Any, name: str) -> None:
    """Refuse a scheduler without a discrete training schedule, with an unknown prediction type, or that clips latents.

    Raises:
        ModelError: Says what the scheduler has and what to put into its configuration.
    """
    kind = type(scheduler).__name__
    if getattr(scheduler, "alphas_cumprod", None) is None:
        raise ModelError(f"{name}: {kind} has no alphas_cumprod; use a discrete-time scheduler such as DDIMScheduler")
    if prediction_type(scheduler) not in PREDICTION_TYPES:
        raise ModelError(
            f"{name}: {kind} has prediction_type {prediction_type(scheduler)!r}, expected one of "
            f"{', '.join(PREDICTION_TYPES)}; correct scheduler/scheduler_config.json"
        )
    if scheduler.config.get("clip_sample", False):
        raise ModelError(
            f"{name}: {kind} has clip_sample=True, which is wrong for latents (it turns colours into their opposites); "
            "set clip_sample to false in scheduler/scheduler_config.json"
        )


def check_lengths(
    name: str, tokenizers: Mapping[str, PreTrainedTokenizerBase], components: Mapping[str, nn.Module]
) -> None:
    """Refuse a tokenizer that lets through more tokens than its text encoder reads.

    Args:
        name: What messages call the model.
        tokenizers: By the names of their text encoders.
        components: The text encoders among them.

    Raises:
        ModelError: Names the tokenizer and the length to set.
    """
    for encoder, tokenizer in tokenizers.items():
        positions = getattr(components[encoder].config, "max_position_embeddings", None)
        if positions is not None and tokenizer.model_max_length > positions:
            raise ModelError(
                f"{name}: {TOKENIZER_OF[encoder]} has model_max_length {tokenizer.model_max_length}, {encoder} "
                f"reads {positions} tokens; set model_max_length to {positions} in tokenizer_config.json"
            )


def repair_end_token(tokenizers: Mapping[str, PreTrainedTokenizerBase], components: Mapping[str, nn.Module]) -> None:
    """Let pooled embeddings be read at the real end token; with the legacy one CLIP reads them at the highest id.

    The two are the same until a token is added, whose id is higher.
    """
    for encoder, tokenizer in tokenizers.items():
        for module in components[encoder].modules():
            if getattr(module, "eos_token_id", None) == LEGACY_EOS and tokenizer.eos_token_id is not None:
                module.eos_token_id = tokenizer.eos_token_id


def paired(prompts: str | Sequence[str], seeds: Any) -> list[str]:
    """The prompt of each seed.

    Raises:
        ModelError: If there is one number where there should be one a picture.

    Example:
        >>> paired("a bear", [0, 1])
        ['a bear', 'a bear']
    """
    if isinstance(seeds, int):
        raise ModelError(f"seeds: expected one a picture, such as [{seeds}], found {seeds}")
    return [prompts] * len(seeds) if isinstance(prompts, str) else list(prompts)


def check_request(prompts: Sequence[str], seeds: Sequence[int]) -> None:
    """Refuse prompts and seeds that do not pair up, and seeds out of range.

    Raises:
        ModelError: Says which number is wrong.
    """
    if len(prompts) != len(seeds):
        raise ModelError(f"generate: {len(prompts)} prompts but {len(seeds)} seeds; give one seed for each prompt")
    wrong = [seed for seed in seeds if not -(2**63) <= seed < 2**64]
    if wrong:
        raise ModelError(f"generate: seed {wrong[0]} does not fit 64 bits; choose a smaller one")
