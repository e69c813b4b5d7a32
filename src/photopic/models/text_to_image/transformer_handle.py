"""A handle over a diffusers transformer text-to-image pipeline: Stable Diffusion 3, Flux, Sana, PixArt, Qwen-Image and others.

It does what ``TextToImage`` does, for the pipeline classes of ``families.py``; what looks into the blocks of a UNet refuses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.nn.attention import AttentionMaps, capture_joint_attention
from photopic.models.text_to_image.checks import prediction_type
from photopic.models.text_to_image.denoiser import Denoiser, denoiser_of
from photopic.models.text_to_image.families import FAMILIES, Family, not_taken
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.latents import decode, encode, multiple_of
from photopic.models.text_to_image.measured import check_measured
from photopic.models.text_to_image.noise_schedule import NoiseSchedule, StraightLine
from photopic.models.text_to_image.text_positions import (
    Followed,
    Traced,
    followed_in,
    numbered,
    positions_of_word,
    traced,
)
from photopic.models.text_to_image.tokenizers import TOKENIZER_OF, tokenizer_of
from photopic.models.text_to_image.transformer_conditioning import TransformerConditioning
from photopic.models.text_to_image.transformer_drawing import (
    TransformerDrawer,
    call_arguments,
    capture,
    check_residuals,
)
from photopic.models.text_to_image.words import with_all_vectors

ENCODED_TOGETHER = 16  # prompts that go through the text encoders at a time
USUAL_SIZE = 1024  # pixels, where neither pipeline nor transformer says how large its pictures are


class TransformerTextToImage(TextToImage):
    """Everything photopic asks of a text-to-image model with a transformer in the place of the UNet.

    Latents are maps of (batch, c, h, w) throughout, whatever the transformer is given. How the pipeline tells its transformer the
    time, and the sign of what it takes from it, are measured here and compared with what is known of the class.

    Args:
        pipeline: Of a class in ``families.FAMILIES``, with all its parts.
        name: What messages and files call the model.

    Attributes:
        family: The row of its class.

    Raises:
        ModelError: If the pipeline is of another class, lacks a part or a package, or behaves otherwise than its row says.

    Example:
        >>> model = TransformerTextToImage(pipeline, "mine")  # doctest: +SKIP
        >>> model.image_size = 512  # doctest: +SKIP
        >>> model.generate("a bear on a red background", seeds=range(4)).shape  # doctest: +SKIP
        (4, 512, 512, 3)
    """

    network_name: ClassVar[str] = "transformer"
    family: Family

    def _check(self) -> None:
        pipeline, name = self.pipeline, self.name
        kind = type(pipeline).__name__
        if kind not in FAMILIES:
            raise ModelError(not_taken(name, kind))
        self.family = FAMILIES[kind]
        parts = (*self.family.networks, "vae", "scheduler")
        missing = [part for part in parts if getattr(pipeline, part, None) is None]
        encoders = [part for part in TOKENIZER_OF if getattr(pipeline, part, None) is not None]
        without = [TOKENIZER_OF[part] for part in encoders if tokenizer_of(pipeline, part) is None]
        missing += [
            "processor" if part not in pipeline.components else part for part in without
        ]  # which has the tokenizer
        missing += [] if encoders else ["text_encoder"]
        if missing:
            raise ModelError(f"{name}: {kind} has no {', '.join(missing)}; load the pipeline with all its components")
        if self.family.needs and find_spec(self.family.needs) is None:
            raise ModelError(f"{name}: {kind} needs the package {self.family.needs}; pip install {self.family.needs}")
        if pipeline.transformer.config.get("use_meanflow", False):
            raise ModelError(
                f"{name}: {kind} with use_meanflow is told where a step ends, which no edit was tried on; load another"
            )
        self.family = self.family.of(pipeline)
        defaults = getattr(pipeline, "call_defaults", {})  # of the folder it was read from
        self.family = replace(self.family, options={**self.family.options, **defaults})
        self._image_size = _usual_size(pipeline)
        arguments = call_arguments(pipeline, self.family, ["a"], (self.image_size,) * 2, guidance=None, steps=2)
        arguments["generator"] = [torch.Generator().manual_seed(0)]
        try:
            check_measured(pipeline, self.family, arguments, name)
        except ModelError as error:
            kept = getattr(pipeline, "_optional_components", ())
            absent = [part for part, found in pipeline.components.items() if found is None and part not in kept]
            if not absent:
                raise
            raise ModelError(
                f"{name}: {kind} has no {', '.join(absent)} and cannot draw without; load the pipeline with all its components"
            ) from error

    @property
    def components(self) -> dict[str, nn.Module]:
        """The pipeline's networks as they are now; where the unconditional half has one of its own, edits leave it alone."""
        second = {} if self.family.second is None else {self.family.second: getattr(self.pipeline, self.family.second)}
        return super().components | second

    @property
    def unet(self) -> Any:
        """None: says which model it is that has a transformer.

        Raises:
            ModelError: Always.
        """
        raise ModelError(self._refusal("this looks into a UNet"))

    @property
    def image_size(self) -> int:
        """Side of a generated image in pixels; may be set to a multiple of what the network and its VAE take."""
        return self._image_size

    @image_size.setter
    def image_size(self, size: int) -> None:
        multiple = multiple_of(self.pipeline, self.family)
        if size < multiple or size % multiple:
            raise ModelError(f"image_size: expected a multiple of {multiple} for {self.name}, found {size}")
        self._image_size = size

    @property
    def prediction_type(self) -> str:
        """``velocity``, or what the scheduler's configuration says."""
        return "velocity" if self.family.predicts == "velocity" else prediction_type(self.pipeline.scheduler)

    @property
    def schedule(self) -> NoiseSchedule | StraightLine:  # type: ignore[override]
        """How noise is mixed in, and what a prediction implies."""
        if self.family.predicts == "scheduler":
            return NoiseSchedule(self.pipeline.scheduler.alphas_cumprod, self.prediction_type)
        return StraightLine(self.timesteps, self._shift if self.family.shifted_time else 1.0)

    @property
    def _shift(self) -> float:
        """By how much noise levels are shifted against the time that the network is told, at this size of picture."""
        config = self.pipeline.scheduler.config
        if not config.get("use_dynamic_shifting", False):
            return float(config.get("shift", 1.0))
        mu = float(self._captured(["a"]).schedule["mu"])
        return mu if config.get("time_shift_type", "exponential") == "linear" else math.exp(mu)

    def encode_prompts(self, prompts: str | Sequence[str]) -> TransformerConditioning:  # type: ignore[override]
        """Encode prompts as the pipeline does, one row each; what is too long is cut as the pipeline cuts it.

        Raises:
            ModelError: If there is no prompt.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise ModelError("encode_prompts: got no prompt; give at least one")
        parts = [prompts[start : start + ENCODED_TOGETHER] for start in range(0, len(prompts), ENCODED_TOGETHER)]
        found = [self._captured(part).conditional for part in parts]
        for other in found[1:]:
            found[0] = found[0].joined(other)
        return found[0]

    def _captured(self, prompts: Sequence[str]) -> Any:
        check_residuals(self)
        generators = [torch.Generator().manual_seed(0) for _ in prompts]
        return capture(self.pipeline, self.family, prompts, (self.image_size,) * 2, generators=generators)

    def encode_images(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch c latent_h latent_w"]:
        """Latents of images in -1 to 1, as the transformer expects them: the mean of the posterior.

        Raises:
            ModelError: If the sides do not divide.
        """
        return encode(self.pipeline, self.family, images)

    def decode(self, latents: Float[Tensor, "batch c latent_h latent_w"]) -> Float[Tensor, "batch 3 h w"]:
        """Images in -1 to 1 of latents; the inverse of ``encode_images`` up to the VAE's loss."""
        return decode(self.pipeline, self.family, latents).clamp(-1, 1).to(self.dtype)

    def predict(
        self,
        noisy: Float[Tensor, "batch c h w"],
        timesteps: Num[Tensor, "*batch"],
        conditioning: TransformerConditioning,  # type: ignore[override]
    ) -> Float[Tensor, "batch c h w"]:
        """The transformer's prediction as velocity (of the scheduler's type for PixArt); timesteps are 0 to 1000."""
        return self._denoiser(noisy, timesteps, conditioning)[0]

    @cached_property
    def _denoiser(self) -> Denoiser:
        return denoiser_of(self.pipeline, self.family)

    @property
    def _drawer(self) -> TransformerDrawer:
        return TransformerDrawer(self)

    def token_positions(
        self, prompt: str, word: str, follow: Callable[[str], Followed | None] | None = None
    ) -> list[int]:
        """Positions of a word in the text part of the transformer's attention, all occurrences in all text encoders.

        Args:
            prompt: The whole prompt.
            word: A word, several words or a token such as ``<mine>``, in any case, white space and Unicode form.
            follow: Where tokens were followed before; None: they are followed now.

        Raises:
            ModelError: If the word is not in the prompt as a whole word, or nothing of it reaches the transformer.
        """
        follow = follow or partial(self.followed, prompt)
        prompt, word = (with_all_vectors(each, self.tokenizers.values()) for each in (prompt, word))
        return positions_of_word(prompt, word, self.tokenizers, follow, self.name)

    def followed(self, prompt: str, encoder: str) -> Followed | None:
        """The tokens of a prompt in a text encoder, and where its transformer reads them; None where the encoder is not asked."""
        encoders = {name: self.components[name] for name in self.tokenizers}
        with numbered(encoders, encoder) as seen:
            (row,) = self._captured([prompt]).conditional.rows
        return followed_in(row, seen[0], self.family.registers) if seen else None

    def traced(self, prompt: str, encoder: str) -> Traced | None:
        """Where each number that a text encoder puts out stands in what the transformer is told; None where it is not asked."""
        encoders = {name: self.components[name] for name in self.tokenizers}
        return traced(encoders, encoder, lambda: self._captured([prompt]).conditional.rows[0])

    def text_maps(self, tokens: Sequence[int | Sequence[int]]) -> AbstractContextManager[AttentionMaps]:
        """A block in which attention to tokens of the text is collected."""
        return capture_joint_attention(tokens)

    def check_unet(self, what: str) -> None:
        """Refuse.

        Raises:
            ModelError: Always, with what and the pipeline's class.
        """
        raise ModelError(self._refusal(what))

    def _refusal(self, what: str) -> str:
        kind = type(self.pipeline).__name__
        return f"{self.name}: {kind} has a transformer, {what}; load a Stable Diffusion 1.x, 2.x or XL pipeline"

    def _warn_if_truncated(self, prompts: Iterable[str]) -> None:
        """Nothing: how much is read goes with the family's template."""


def _usual_size(pipeline: Any) -> int:
    """Side of the pictures that a pipeline draws where nobody asks for another."""
    if hasattr(pipeline, "get_default_resolution"):
        return int(pipeline.get_default_resolution())
    cells = getattr(pipeline.transformer.config, "sample_size", None) or getattr(pipeline, "default_sample_size", None)
    if cells is None:
        return USUAL_SIZE
    return int((cells if isinstance(cells, int) else cells[0]) * pipeline.vae_scale_factor)
