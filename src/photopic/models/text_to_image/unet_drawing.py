"""How a UNet pipeline draws: Stable Diffusion 1.x, 2.x and XL, bit for bit as the stock pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.sampling import Sampling, check_finite, standard_noise
from photopic.models.files import quiet
from photopic.models.text_to_image.autoencoder import encode_images, finished_pictures
from photopic.models.text_to_image.checks import check_scheduler
from photopic.models.text_to_image.conditioning import Conditioning
from photopic.models.text_to_image.drawing import Drawing, course
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.schedulers import check_steps, scheduler_named


def encode(
    pipeline: Any,
    prompts: Sequence[str],
    size: tuple[int, int],
    *,
    guided: bool = False,
    negative: Sequence[str] | None = None,
) -> tuple[Conditioning, Conditioning | None]:
    """Prompts as the pipeline encodes them, and what guidance leads away from: the negative prompts, or what it uses without.

    Args:
        pipeline: Of Stable Diffusion 1.x, 2.x or XL shape.
        prompts: One or more.
        size: Height and width of the pictures in pixels, which SDXL-shaped models are told.
        guided: Whether the second result is wanted; it is None otherwise.
        negative: One for each prompt, or None.

    Raises:
        ModelError: If a text encoder's numbers are not finite.
    """
    encoded = pipeline.encode_prompt(
        prompt=list(prompts),
        device=pipeline._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
        **({} if negative is None else {"negative_prompt": list(negative)}),
    )
    dtype = pipeline.unet.dtype
    wanted = 2 if guided else 1
    hidden = [part.to(dtype) for part in encoded[:wanted]]
    for part in hidden:
        check_finite(part, "text encoder: the encoded prompts", pipeline.text_encoder)
    if len(encoded) == 2:
        found = [Conditioning(part) for part in hidden]
    else:  # (embeddings, negative, pooled, negative pooled)
        pooled = [part.to(dtype) for part in encoded[2 : 2 + wanted]]
        second = pipeline.text_encoder_2
        width = pooled[0].shape[-1] if second is None else second.config.projection_dim
        sizes = pipeline._get_add_time_ids(size, (0, 0), size, dtype, width).to(hidden[0].device)
        sizes = sizes.repeat(len(prompts), 1)
        found = [Conditioning(part, own, sizes) for part, own in zip(hidden, pooled, strict=True)]
    return found[0], found[1] if guided else None


class UNetDrawer:
    """Draws with a UNet.

    Args:
        model: A ``TextToImage``.
    """

    def __init__(self, model: Any):
        self.model, self.pipeline = model, model.pipeline

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture in pixels."""
        size = self.pipeline.unet.config.sample_size or self.pipeline.default_sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return height * self.factor, width * self.factor

    @property
    def factor(self) -> int:
        """Pixels a latent cell."""
        return self.pipeline.vae_scale_factor

    @property
    def multiple(self) -> int:
        """Of the sides of a picture, in pixels: a whole number of latent cells."""
        return self.factor

    def check(self, drawing: Drawing) -> None:
        """Refuse pipelines that draw in a way of their own."""
        if not _is_stock(self.pipeline):
            raise ModelError(
                f"{self.model.name}: {type(self.pipeline).__name__} draws in a way of its own; call model.pipeline, or load a "
                "StableDiffusionPipeline or StableDiffusionXLPipeline"
            )

    def scheduler(self, config: GenerateConfig) -> Any:
        """The one asked for, by name or itself, or the pipeline's."""
        scheduler = config.scheduler or self.pipeline.scheduler
        if isinstance(scheduler, str):
            scheduler = scheduler_named(scheduler, self.pipeline.scheduler)
        check_scheduler(scheduler, self.model.name)
        check_steps(scheduler, config.steps)
        return scheduler

    def sampling(
        self, drawing: Drawing, rows: slice, scheduler: Any, generators: list[torch.Generator]
    ) -> tuple[Sampling, Float[Tensor, "batch c h w"]]:
        """The run that draws a batch, and the noise it starts from."""
        model, pipeline, config, prompts = self.model, self.pipeline, drawing.config, drawing.prompts[rows]
        distilled = pipeline.unet.config.time_cond_proj_dim is not None  # guidance is an input of the network
        negative, size = config.negative_prompt, drawing.size(self.size)
        conditioning, unconditional = encode(
            pipeline,
            prompts,
            size,
            guided=config.guidance > 1 and not distilled,
            negative=[negative] * len(prompts) if isinstance(negative, str) else negative and negative[rows],
        )
        height, width = (side // self.factor for side in size)
        shape = (len(prompts), pipeline.vae.config.latent_channels, height, width)  # of the latents
        noise = standard_noise(generators, conditioning.hidden.new_empty(shape))
        if model.edits.has_start_noise:
            noise = model.edits.start_noise(noise)
        sampling = Sampling(
            pipeline.unet,
            scheduler,
            conditioning,
            generators,
            unconditional,
            steps=config.steps,
            scale=config.guidance,
            unet_kwargs=_guidance_input(pipeline, config.guidance, noise) if distilled else {},
            positions=lambda words: [model.token_positions(prompt, words) for prompt in prompts],
            **course(self, drawing, rows, noise),
        )
        return sampling, noise

    def encode_images(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch c h2 w2"]:
        """Latents of images."""
        return encode_images(self.pipeline, images)

    def finished(
        self, latents: Float[Tensor, "batch c h w"], generators: Sequence[torch.Generator]
    ) -> tuple[Any, list[bool]]:
        """As the stock pipeline finishes, safety checker and watermark included."""
        return finished_pictures(self.pipeline, latents, generators)


def _guidance_input(pipeline: Any, guidance: float, noise: Tensor) -> dict[str, Tensor]:
    scale = torch.tensor(guidance - 1).repeat(len(noise))  # (batch,); distilled models were taught scale - 1
    width = pipeline.unet.config.time_cond_proj_dim
    embedded = pipeline.get_guidance_scale_embedding(scale, embedding_dim=width)  # (batch, width)
    return {"timestep_cond": embedded.to(noise)}


def _is_stock(pipeline: Any) -> bool:
    with quiet():
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    return type(pipeline).__call__ in (StableDiffusionPipeline.__call__, StableDiffusionXLPipeline.__call__)
