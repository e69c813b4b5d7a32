"""A handle over a diffusers UNet text-to-image pipeline: Stable Diffusion 1.x, 2.x and XL shaped models, large or tiny.

Use it as ``photopic.load("emoji-diffusion").generate(["a bear on a red background"], seeds=[0])``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from photopic.core.attention import announce_guidance
from photopic.core.errors import ModelError
from photopic.models.conditioning import Conditioning, token_positions, warn_if_truncated
from photopic.models.noise import NoiseSchedule
from photopic.models.pipeline_checks import (
    check_lengths,
    check_pipeline,
    check_request,
    check_scheduler,
    prediction_type,
    repair_end_token,
)
from photopic.models.tokenizers import TOKENIZER_OF, PipelineTokenizers

if TYPE_CHECKING:
    from photopic.core._fingerprint_cache import LoadedDigest
    from photopic.core.edits import EditStack


@dataclass(frozen=True)
class Generated:
    """One finished batch of ``generate_events``.

    Attributes:
        images: The batch, RGB.
        done: Images finished so far, this batch included.
        total: Images asked for.
    """

    images: UInt8[np.ndarray, "n h w 3"]
    done: int
    total: int


class TextToImage:
    """Everything photopic asks of a text-to-image model, whatever its size, prediction type, device or dtype.

    The modules are put into evaluation mode and their parameters stop requiring gradients. ``loaded`` is the digest of the files
    the model came from, which spares ``edits`` hashing it; None for a pipeline made otherwise.

    Args:
        pipeline: A pipeline with a ``UNet2DConditionModel``, a VAE, a scheduler and one or two text encoders.
        name: What messages and files call the model.
        knows_emoji: Whether it learnt the known concepts of the emoji world, so that their renderings are what it must keep.

    Raises:
        ModelError: If the pipeline is of another kind, lacks a component or would clip its latents.

    Example:
        >>> model = TextToImage(pipeline, "mine")  # doctest: +SKIP
        >>> model.generate("a bear on a red background", seeds=range(4)).shape  # doctest: +SKIP
        (4, 64, 64, 3)
    """

    def __init__(self, pipeline: DiffusionPipeline, name: str = "model", *, knows_emoji: bool = False):
        self.pipeline: Any = pipeline
        self.name = name
        self.knows_emoji = knows_emoji
        self.loaded: LoadedDigest | None = None
        check_pipeline(pipeline, name)
        parts = ("unet", "vae", *TOKENIZER_OF)
        self.components: dict[str, nn.Module] = {
            part: module for part in parts if (module := getattr(pipeline, part, None)) is not None
        }
        self.tokenizers: MutableMapping[str, PreTrainedTokenizerBase] = PipelineTokenizers(pipeline)
        check_lengths(self)
        repair_end_token(self)
        for module in self.components.values():
            module.eval().requires_grad_(False)

    @cached_property
    def edits(self) -> EditStack:
        """The edits in force on this model; add, remove, or use ``with model.edits.applied(edit):``."""
        from photopic.core.edits import EditStack

        return EditStack(self.components, self.tokenizers, self.name, self.loaded)

    @property
    def unet(self) -> UNet2DConditionModel:
        """The denoising network."""
        return self.pipeline.unet

    @property
    def device(self) -> torch.device:
        """Where the denoising network is."""
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the denoising network."""
        return self.unet.dtype

    @property
    def image_size(self) -> int:
        """Side of a generated image in pixels."""
        size = self.unet.config.sample_size or self.pipeline.default_sample_size
        return (size if isinstance(size, int) else size[0]) * self.pipeline.vae_scale_factor

    @property
    def prediction_type(self) -> str:
        """``epsilon``, ``v_prediction`` or ``sample``."""
        return prediction_type(self.pipeline.scheduler)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule the network was trained on."""
        return NoiseSchedule(self.pipeline.scheduler.alphas_cumprod, self.prediction_type)

    @property
    def timesteps(self) -> int:
        """Number of training timesteps; valid ones are 0 to this minus 1."""
        return self.pipeline.scheduler.config.num_train_timesteps

    def encode_prompts(self, prompts: str | Sequence[str]) -> Conditioning:
        """Encode prompts as the pipeline does, one row each.

        Args:
            prompts: One prompt or several; one that is too long is cut with a ``TruncatedPromptWarning``.

        Raises:
            ModelError: If there is no prompt.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise ModelError("encode_prompts: got no prompt; give at least one")
        self._warn_if_truncated(prompts)
        encoded = self.pipeline.encode_prompt(
            prompt=prompts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        hidden = encoded[0].to(self.dtype)
        if len(encoded) == 2:
            return Conditioning(hidden)
        pooled = encoded[2].to(self.dtype)  # (embeddings, negative, pooled, negative pooled)
        size = (self.image_size, self.image_size)
        time_ids = self.pipeline._get_add_time_ids(size, (0, 0), size, self.dtype, pooled.shape[-1])
        return Conditioning(hidden, pooled, time_ids.to(self.device).repeat(len(prompts), 1))

    @torch.no_grad()
    def encode_images(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch c latent_h latent_w"]:
        """Latents of images, scaled as the UNet expects them: the mean of the posterior, so no randomness.

        Args:
            images: RGB in -1 to 1, sides divisible by the VAE's scale factor.

        Raises:
            ModelError: If the sides do not divide.
        """
        factor = self.pipeline.vae_scale_factor
        if images.shape[-1] % factor or images.shape[-2] % factor:
            raise ModelError(
                f"images are {images.shape[-1]}x{images.shape[-2]}, sides must be multiples of {factor}; resize them"
            )
        vae = self.pipeline.vae
        with _full_precision(vae):
            mean = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mean
        return (mean * vae.config.scaling_factor).to(self.dtype)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "batch c latent_h latent_w"]) -> Float[Tensor, "batch 3 h w"]:
        """Images in -1 to 1 of scaled latents; the inverse of ``encode_images`` up to the VAE's loss."""
        vae = self.pipeline.vae
        with _full_precision(vae):
            images = vae.decode((latents / vae.config.scaling_factor).to(vae.device, vae.dtype), return_dict=False)[0]
        return images.clamp(-1, 1).to(self.dtype)

    def add_noise(
        self,
        latents: Float[Tensor, "batch c h w"],
        noise: Float[Tensor, "batch c h w"],
        timesteps: Int[Tensor, "*batch"],
    ) -> Float[Tensor, "batch c h w"]:
        """Noisy latents at the given training timesteps."""
        return self.schedule.add_noise(latents, noise, timesteps)

    def target(
        self,
        latents: Float[Tensor, "batch c h w"],
        noise: Float[Tensor, "batch c h w"],
        timesteps: Int[Tensor, "*batch"],
    ) -> Float[Tensor, "batch c h w"]:
        """What ``predict`` should output for ``add_noise(latents, noise, timesteps)``."""
        return self.schedule.target(latents, noise, timesteps)

    def predict(
        self, noisy: Float[Tensor, "batch c h w"], timesteps: Int[Tensor, "*batch"], conditioning: Conditioning
    ) -> Float[Tensor, "batch c h w"]:
        """The UNet's output, of the model's prediction type; gradients flow where the caller wants them."""
        return self.unet(noisy.to(self.dtype), timesteps, **conditioning.unet_kwargs(), return_dict=False)[0]

    def to_noise(
        self,
        prediction: Float[Tensor, "batch c h w"],
        noisy: Float[Tensor, "batch c h w"],
        timesteps: Int[Tensor, "*batch"],
    ) -> Float[Tensor, "batch c h w"]:
        """The noise a prediction implies."""
        return self.schedule.to_noise(prediction, noisy, timesteps)

    def to_sample(
        self,
        prediction: Float[Tensor, "batch c h w"],
        noisy: Float[Tensor, "batch c h w"],
        timesteps: Int[Tensor, "*batch"],
    ) -> Float[Tensor, "batch c h w"]:
        """The clean latents a prediction implies."""
        return self.schedule.to_sample(prediction, noisy, timesteps)

    def generate(self, prompts: str | Sequence[str], **options: Any) -> UInt8[np.ndarray, "n h w 3"]:
        """Draw images with the pipeline itself; takes the arguments of ``generate_events``.

        Returns:
            RGB images, one per seed.

        Raises:
            ModelError: If prompts and seeds do not fit or an option is out of range.

        Example:
            >>> model.generate(["a bear", "a cat"], seeds=[0, 1], steps=20)  # doctest: +SKIP
        """
        batches = [event.images for event in self.generate_events(prompts, **options)]
        return np.concatenate(batches) if batches else np.zeros((0, self.image_size, self.image_size, 3), np.uint8)

    def generate_events(
        self,
        prompts: str | Sequence[str],
        *,
        seeds: Sequence[int],
        steps: int = 30,
        guidance: float = 5.0,
        batch: int = 16,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Iterator[Generated]:
        """Draw images batch by batch; image i depends on prompt i and seed i, not on the batch it was drawn in.

        Args:
            prompts: One prompt per seed, or a single prompt for all seeds.
            seeds: One seed per image, each the start of its own random generator.
            steps: Denoising steps.
            guidance: Classifier-free guidance scale; 1 or less means none.
            batch: Images drawn together.
            on_step: Called with (steps done, steps in all) over all batches.

        Yields:
            One ``Generated`` per batch.

        Raises:
            ModelError: If prompts and seeds do not fit or an option is out of range.
        """
        prompts = [prompts] * len(seeds) if isinstance(prompts, str) else list(prompts)
        check_request(prompts, seeds, steps, batch)
        check_scheduler(self.pipeline.scheduler, self.name)
        self._warn_if_truncated(prompts)
        starts = range(0, len(prompts), batch)
        for index, start in enumerate(starts):
            images = self._draw(
                prompts[start : start + batch],
                seeds[start : start + batch],
                steps,
                guidance,
                on_step and _count_steps(on_step, index, len(starts)),
            )
            yield Generated(images, start + len(images), len(prompts))

    def token_positions(self, prompt: str, word: str) -> list[int]:
        """Positions of a word's tokens in the tokenised prompt, all occurrences, counted from the start token at 0.

        Args:
            prompt: The whole prompt.
            word: A word, several words or a token such as ``<mine>``, as it stands in the prompt; case does not matter.

        Raises:
            ModelError: If the word is not in the prompt as a whole word, or lies beyond the tokenizer's length.

        Example:
            >>> model.token_positions("a bear on a red background", "red background")  # doctest: +SKIP
            [5, 6]
        """
        return token_positions(prompt, word, next(iter(self.tokenizers.values())))

    def digest(self) -> str:
        """A hash of every weight as it stands now, edits included (hex)."""
        from photopic.core.fingerprint import fingerprint

        return fingerprint(self.components, self.name).digest

    def _draw(
        self,
        prompts: list[str],
        seeds: Sequence[int],
        steps: int,
        guidance: float,
        callback: Callable[..., dict[str, Any]] | None,
    ) -> UInt8[np.ndarray, "n h w 3"]:
        # generators on the CPU draw the same noise for every device
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        with announce_guidance(guidance > 1 and self.unet.config.time_cond_proj_dim is None):
            output = self.pipeline(
                prompts,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
                latents=self._start(generators),
                output_type="np",
                callback_on_step_end=callback,
            )
        flagged = np.flatnonzero(getattr(output, "nsfw_content_detected", None) or [])
        if len(flagged):
            blanked = [int(seeds[int(index)]) for index in flagged]
            warnings.warn(f"{self.name}: its safety checker blanked the images of seeds {blanked}", stacklevel=4)
        return (output.images * 255).round().astype(np.uint8)

    def _start(self, generators: list[torch.Generator]) -> Float[Tensor, "batch c h w"] | None:
        """What a start noise of the edits makes of the drawn one; without any, drawing is left to the pipeline."""
        if not self.edits.has_start_noise:
            return None
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (len(generators), self.unet.config.in_channels, height, width)
        drawn = randn_tensor(shape, generator=generators, device=self.device, dtype=self.dtype)  # as the pipeline does
        return self.edits.start_noise(drawn)

    def _warn_if_truncated(self, prompts: Sequence[str]) -> None:
        for tokenizer in self.tokenizers.values():
            warn_if_truncated(prompts, tokenizer)


def _count_steps(on_step: Callable[[int, int], None], index: int, batches: int) -> Callable[..., dict[str, Any]]:
    def callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(index * pipeline.num_timesteps + step + 1, batches * pipeline.num_timesteps)
        return tensors

    return callback


@contextmanager
def _full_precision(vae: Any) -> Iterator[None]:
    """Run a half-precision VAE that asks for it in float32, as diffusers does; the way back is exact."""
    upcast = vae.dtype == torch.float16 and vae.config.force_upcast
    if upcast:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if upcast:
            vae.to(torch.float16)
