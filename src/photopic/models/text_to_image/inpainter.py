"""A handle over a diffusers inpainting pipeline with a UNet that reads nine channels: noisy latents, mask, masked picture.

Use it as ``photopic.load("emoji-inpainting").generate("a bear and a cat", seeds=[0], image=picture, mask=mask)``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.sampling import MaskedPicture, Sampling
from photopic.data.pixels import from_pixels
from photopic.models.text_to_image.autoencoder import encode_images
from photopic.models.text_to_image.checks import check_lengths, check_scheduler, repair_end_token
from photopic.models.text_to_image.conditioning import Conditioning
from photopic.models.text_to_image.drawing import Drawing
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.unet_drawing import UNetDrawer


class Inpainter(TextToImage):
    """Everything photopic asks of an inpainting model; it draws only inside a mask of a picture.

    Args:
        pipeline: A ``StableDiffusionInpaintPipeline`` whose UNet reads 2 c + 1 channels, with c those of the latents.
        name: What messages and files call the model.

    Raises:
        ModelError: If the pipeline lacks a component, or is none of inpainting.

    Example:
        >>> Inpainter.load("emoji-inpainting").generate("a bear", seeds=[0], image=picture, mask=mask)  # doctest: +SKIP
    """

    def _check(self) -> None:
        from diffusers import StableDiffusionInpaintPipeline

        kind = type(self.pipeline).__name__
        if not isinstance(self.pipeline, StableDiffusionInpaintPipeline):
            raise ModelError(f"{self.name}: expected a StableDiffusionInpaintPipeline, found {kind}; load one")
        check_lengths(self.name, self._tokenizers, self.components)
        repair_end_token(self._tokenizers, self.components)
        check_scheduler(self.pipeline.scheduler, self.name)

    def predict(
        self, noisy: Float[Tensor, "batch c h w"], timesteps: Int[Tensor, "*batch"], conditioning: Conditioning
    ) -> Float[Tensor, "batch c2 h w"]:
        """The UNet's output for all nine channels; gradients flow where the caller wants them.

        Raises:
            ModelError: If there are latents alone.
        """
        if noisy.shape[1] != self.unet.config.in_channels:
            raise ModelError(
                f"{self.name}: is an inpainting model, whose network reads {self.unet.config.in_channels} channels, found "
                f"{noisy.shape[1]}; load a text-to-image model, such as emoji-diffusion"
            )
        return self.unet(noisy.to(self.dtype), timesteps, **conditioning.unet_kwargs(), return_dict=False)[0]

    def known(
        self, pictures: Float[Tensor, "n 3 h w"], drawn: Float[Tensor, "n 1 h w"]
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 1 h2 w2"]]:
        """Pictures in -1 to 1 with grey where to draw, and the latent cells with any pixel to draw; gradients flow."""
        return pictures * (1 - drawn), F.max_pool2d(drawn, self.pipeline.vae_scale_factor)

    @property
    def _drawer(self) -> UNetDrawer:
        return InpaintingDrawer(self)


class InpaintingDrawer(UNetDrawer):
    """Draws with a UNet that is told the mask and the masked picture."""

    def check(self, drawing: Drawing) -> None:
        """Refuse what has no picture or no mask."""
        if drawing.mask is None:
            raise ModelError(
                f"{self.model.name}: is an inpainting model: expected a picture and a mask, found no mask; give both, or load a "
                "text-to-image model, such as emoji-diffusion"
            )

    def sampling(
        self, drawing: Drawing, rows: slice, scheduler: Any, generators: list[torch.Generator]
    ) -> tuple[Sampling, Float[Tensor, "batch c h w"]]:
        """The run that draws a batch, and the noise it starts from."""
        sampling, noise = super().sampling(drawing, rows, scheduler, generators)
        image, mask = drawing.image, drawing.mask
        assert image is not None and mask is not None  # a mask without a picture was refused
        images = np.repeat(image[None], len(noise), 0) if image.ndim == 3 else image[rows]
        told = self.told(images, np.repeat(mask[None], len(noise), 0))
        # the network is told what is known, in the place of latents put back after each step
        return replace(sampling, controls=(*drawing.controls, told)), noise

    def told(self, images: UInt8[np.ndarray, "n h w 3"], masks: Bool[np.ndarray, "n h w"]) -> MaskedPicture:
        """The control that tells pictures and masks, one each."""
        grey, cells = self.model.known(from_pixels(images), torch.from_numpy(masks)[:, None].float())
        return MaskedPicture(cells, encode_images(self.pipeline, grey))
