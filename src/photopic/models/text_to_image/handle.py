"""A handle over a diffusers UNet text-to-image pipeline: Stable Diffusion 1.x, 2.x and XL shaped models, large or tiny.

Use it as ``photopic.load("emoji-diffusion").generate(["a bear on a red background"], seeds=[0])``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from photopic.core.errors import ModelError
from photopic.core.events import Event
from photopic.core.files import share_as_usual
from photopic.core.fingerprint_cache import LoadedDigest
from photopic.core.nn.attention import AttentionMaps, capture_attention
from photopic.core.nn.place import device_of
from photopic.core.sampling import Control
from photopic.models.files import BUNDLED, TEXT_TO_IMAGE, first_line, no_progress_bars, quiet
from photopic.models.handle import Handle
from photopic.models.networks import check_device
from photopic.models.text_to_image.autoencoder import decode_latents, encode_images
from photopic.models.text_to_image.call_defaults import write_call_defaults
from photopic.models.text_to_image.checks import (
    check_lengths,
    check_pipeline,
    paired,
    prediction_type,
    repair_end_token,
)
from photopic.models.text_to_image.conditioning import Conditioning, token_positions, warn_if_truncated
from photopic.models.text_to_image.drawing import Drawer, Drawing, Generated, draw
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.inpainting_pipeline import is_inpainting
from photopic.models.text_to_image.loading import files_of, read
from photopic.models.text_to_image.noise_schedule import NoiseSchedule
from photopic.models.text_to_image.start_image import StartImage, StartMask, read_start
from photopic.models.text_to_image.tokenizers import TOKENIZER_OF, PipelineTokenizers
from photopic.models.text_to_image.unet_drawing import UNetDrawer, encode

DEFAULT = GenerateConfig()

__all__ = ["GenerateConfig", "Generated", "TextToImage", "handle_of"]


class TextToImage(Handle):
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

    described: ClassVar[str] = TEXT_TO_IMAGE
    default_name: ClassVar[str] = "emoji-diffusion"
    network_name: ClassVar[str] = "unet"  # what the pipeline and edits call the denoising network

    def __init__(self, pipeline: DiffusionPipeline, name: str = "model", *, knows_emoji: bool = False):
        self.pipeline: Any = pipeline
        self.name = name
        self.knows_emoji = knows_emoji
        self._tokenizers = PipelineTokenizers(pipeline)
        self._check()
        for module in self.components.values():
            module.eval().requires_grad_(False)

    def _check(self) -> None:
        """Refuse what this class cannot handle, and repair what is known to be wrong."""
        check_pipeline(self.pipeline, self.name)
        check_lengths(self.name, self._tokenizers, self.components)
        repair_end_token(self._tokenizers, self.components)

    @classmethod
    def _read(cls, name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None) -> TextToImage:
        started = time.time()
        pipeline = read(name, source, device, dtype)
        bundled = isinstance(source, Path) and source.parent == BUNDLED
        kind = _class_for(pipeline)
        model = kind(pipeline, source.name if isinstance(source, Path) else source, knows_emoji=bundled)
        model.loaded = LoadedDigest(model.components, files_of(source, pipeline, model.components), started)
        return model

    def save(self, folder: Path) -> None:
        """Write the pipeline as diffusers does, with the edits in force; refused while an edit's new word is.

        Raises:
            ModelError: If its weights are quantised in a way that diffusers does not write, such as GGUF.
        """
        try:
            with quiet(), no_progress_bars():
                self.pipeline.save_pretrained(folder)
        except ValueError as error:
            raise ModelError(f"{self.name}: cannot be saved: {first_line(error)}; load it unquantised") from error
        write_call_defaults(folder, getattr(self.pipeline, "call_defaults", {}))
        share_as_usual(*folder.rglob("*.safetensors"))

    @property
    def components(self) -> dict[str, nn.Module]:
        """The pipeline's networks as they are now: ``unet`` or ``transformer``, ``vae`` and the text encoders."""
        parts = {part: getattr(self.pipeline, part, None) for part in (self.network_name, "vae", *TOKENIZER_OF)}
        return {part: module for part, module in parts.items() if module is not None}

    @property
    def tokenizers(self) -> Mapping[str, PreTrainedTokenizerBase]:
        """The pipeline's tokenizers, by the names of their text encoders."""
        return self._tokenizers

    @property
    def unet(self) -> UNet2DConditionModel:
        """The denoising network."""
        return self.pipeline.unet

    def check_unet(self, what: str) -> None:
        """Refuse a model with a transformer, where that is not supported yet; ``what`` is the reason as a clause."""

    @property
    def network(self) -> Any:
        """The denoising network, whatever it is."""
        return getattr(self.pipeline, self.network_name)

    @property
    def device(self) -> torch.device:
        """Where the denoising network is."""
        return device_of(self.network)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the denoising network."""
        return self.network.dtype

    @property
    def image_size(self) -> int:
        """Side of a generated image in pixels."""
        return self._drawer.size[0]

    @property
    def prediction_type(self) -> str:
        """``epsilon``, ``v_prediction`` or ``sample``."""
        return prediction_type(self.pipeline.scheduler)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule the network was trained on: it adds noise, and says what a prediction implies."""
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
        return encode(self.pipeline, prompts, (self.image_size, self.image_size))[0]

    def encode_images(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch c latent_h latent_w"]:
        """Latents of images, scaled as the UNet expects them: the mean of the posterior, so no randomness.

        Args:
            images: RGB in -1 to 1, sides divisible by the VAE's scale factor.

        Raises:
            ModelError: If the sides do not divide.
        """
        return encode_images(self.pipeline, images)

    def decode(self, latents: Float[Tensor, "batch c latent_h latent_w"]) -> Float[Tensor, "batch 3 h w"]:
        """Images in -1 to 1 of scaled latents; the inverse of ``encode_images`` up to the VAE's loss."""
        return decode_latents(self.pipeline, latents)

    def predict(
        self, noisy: Float[Tensor, "batch c h w"], timesteps: Int[Tensor, "*batch"], conditioning: Conditioning
    ) -> Float[Tensor, "batch c h w"]:
        """The UNet's output, of the model's prediction type; gradients flow where the caller wants them."""
        return self.unet(noisy.to(self.dtype), timesteps, **conditioning.unet_kwargs(), return_dict=False)[0]

    def forward(self, noisy: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        """The same as ``predict``."""
        return self.predict(noisy, timesteps, conditioning)

    def generate(self, prompts: str | Sequence[str], **options: Any) -> UInt8[np.ndarray, "n h w 3"]:
        """Draw images as the stock pipeline does; takes the arguments of ``generate_events``.

        Returns:
            RGB images, one per seed.

        Raises:
            ModelError: As ``generate_events`` does.

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
        config: GenerateConfig = DEFAULT,
        controls: Sequence[Control] = (),
        image: StartImage | Sequence[StartImage] | None = None,
        mask: StartMask | None = None,
        on_step: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> Iterator[Generated]:
        """Draw images batch by batch; image i depends on prompt i and seed i, not on the batch it was drawn in.

        In single precision a network may round differently by the size of the batch; docs/sampling.md says how much.

        Args:
            prompts: One prompt per seed, or a single prompt for all seeds.
            seeds: One seed per image, each the start of its own random generator.
            config: How to draw.
            controls: Act on every batch; see ``photopic.core.sampling``.
            image: RGB of the model's size, (h, w, 3), a PIL image, or the path of one, or one per prompt: start from it instead of
                from noise.
            mask: True where to draw, or a PIL image or the path of one, light and opaque there; elsewhere the image stays as it
                is, to the bit.
            on_step: Called with (steps done, steps in all) over all batches.
            options: Fields of the config to change, such as ``steps=20``.

        Returns:
            One ``Generated`` per batch, drawn as it is asked for.

        Raises:
            ModelError: At once, if prompts and seeds do not fit, or the scheduler cannot do so many steps; while drawing, if
                numbers stop being finite, with the part or the step.
            DataError: At once, if an option is out of range.
        """
        steps = self.drawing(prompts, seeds, replace(config, **options), controls, image, mask)
        return _batches_of(steps, on_step)

    def drawing(
        self,
        prompts: str | Sequence[str],
        seeds: Sequence[int],
        config: GenerateConfig = DEFAULT,
        controls: Sequence[Control] = (),
        image: StartImage | Sequence[StartImage] | None = None,
        mask: StartMask | None = None,
    ) -> Iterator[Event[Generated]]:
        """The same step by step, for methods that draw: an event a step, the last of each batch with its pictures."""
        prompts = paired(prompts, seeds)
        negative = config.negative_prompt
        read, inside = read_start(image, mask, self.image_size)
        self._warn_if_truncated([*prompts, *([negative] if isinstance(negative, str) else negative or ())])
        return draw(self._drawer, Drawing(prompts, seeds, config, controls, read, inside))

    @property
    def _drawer(self) -> Drawer:
        return UNetDrawer(self)

    def token_positions(self, prompt: str, word: str) -> list[int]:
        """Positions of a word's tokens in the tokenised prompt, all occurrences, counted from the start token at 0.

        Args:
            prompt: The whole prompt.
            word: A word, several words or a token such as ``<mine>``, in any case, white space and Unicode form.

        Raises:
            ModelError: If the word is not in the prompt as a whole word, or lies beyond the tokenizer's length.

        Example:
            >>> model.token_positions("a bear on a red background", "red background")  # doctest: +SKIP
            [5, 6]
        """
        tokenizer = next(iter(self.tokenizers.values()))
        as_read = self.pipeline.maybe_convert_prompt  # a token of several vectors becomes that many tokens
        return token_positions(as_read(prompt, tokenizer), as_read(word, tokenizer), tokenizer)

    def text_maps(self, tokens: Sequence[int | Sequence[int]]) -> AbstractContextManager[AttentionMaps]:
        """A block in which attention to tokens of the prompt is collected, one map a token, or a mean of several."""
        return capture_attention(self.unet, tokens)

    def _warn_if_truncated(self, prompts: Sequence[str]) -> None:
        for tokenizer in self.tokenizers.values():
            warn_if_truncated(prompts, tokenizer)


def handle_of(pipeline: Any, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> TextToImage:
    """The handle of a pipeline that is in memory, which stays where it is unless a device or number format is named.

    Args:
        pipeline: Of diffusers, however it was made: quantised, or spread over devices by ``device_map``.
        device: Where to put it.
        dtype: Number format of the weights.

    Raises:
        ModelError: If it lacks a part, is of another kind, or there is no such device.
    """
    if device is not None:
        check_device(device)
    if device is not None or dtype is not None:
        pipeline.to(**{name: each for name, each in (("device", device), ("dtype", dtype)) if each is not None})
    pipeline.set_progress_bar_config(disable=True)
    # where it came from, without the folders above it
    name = Path(getattr(pipeline, "name_or_path", None) or "").name or type(pipeline).__name__
    return _class_for(pipeline)(pipeline, name)


def _class_for(pipeline: Any) -> type[TextToImage]:
    """The handle for a pipeline that was read; the module of transformers is imported for one of them only."""
    # by their names: they import this module
    if getattr(pipeline, "unet", None) is not None or getattr(pipeline, "transformer", None) is None:
        if hasattr(pipeline, "conditions"):
            reads: type[TextToImage] = import_module("photopic.models.text_to_image.conditional").ConditionalTextToImage
            return reads
        if not is_inpainting(pipeline):
            return TextToImage
        found: type[TextToImage] = import_module("photopic.models.text_to_image.inpainter").Inpainter
        return found
    return import_module("photopic.models.text_to_image.transformer_handle").TransformerTextToImage


def _batches_of(events: Iterator[Event[Generated]], on_step: Callable[[int, int], None] | None) -> Iterator[Generated]:
    for event in events:
        if event.result is not None:
            yield event.result
        elif on_step:
            on_step(event.done, event.total)
