"""Style injection: draw what one picture shows in the manner of another, by its keys and values in self-attention.

Both pictures are walked back to their noise. While the content is drawn again, late decoder layers of self-attention read keys and
values of the style picture at the same step; queries are a mix of the content's own and those of what is drawn,
``gamma * Q_content + (1 - gamma) * Q``, and scores are sharpened by a temperature. Drawing starts from the content's noise, which
may be given the channel statistics of the style's (latent AdaIN). Nothing is trained.

Paper: *Style Injection in Diffusion: A Training-free Approach for Adapting Large-scale Diffusion Models for Style Transfer*
(arXiv:2312.09008). Changed: inversion is refined, so that a reconstruction keeps its content; queries are the content's own by
default and latent AdaIN is off, which kept more of the content on the bundled model; without a content picture the prompt's own
picture, drawn first with guidance, is the content. What is injected is drawn without guidance, which would lead away from a style
that both of its halves are given. Claims ``styleid.*`` of benchmarks/generate/style_injection.py.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config, Existing
from photopic.core.errors import ModelError
from photopic.core.method import method
from photopic.core.nn.attention import Place, attention_layers
from photopic.core.nn.attention.layers import Kind
from photopic.core.sampling import Control, Sampling, Step, invert, sample
from photopic.data.folder import load_picture
from photopic.data.pixels import from_pixels

Read = dict[tuple[float, str], tuple[Tensor, Tensor, Tensor]]  # timestep and layer -> queries, keys, values


@dataclass(frozen=True, kw_only=True)
class StyleInjectionConfig(Config):
    """How much of the style, and how much of the content."""

    gamma: Annotated[float, Ge(0), Le(1)] = 1.0  # share of the content's queries: higher keeps more of the content
    temperature: Annotated[float, Gt(0)] = 1.5  # factor of the scores: attention to the style is sharper above 1
    adain: bool = False  # start from the content's noise with the style's mean and spread of each channel
    until: Annotated[float, Ge(0), Le(1)] = 1.0  # share of the steps that inject
    layers: str = "up_blocks.*"  # name pattern of the self-attention layers that inject
    refinements: Annotated[int, Ge(0)] = 1  # network calls a step of inversion beyond the first


@method(
    paper="arXiv:2312.09008",
    claims="styleid.",
    presets={"paper": StyleInjectionConfig(gamma=0.75, adain=True, refinements=0)},
    examples=(
        "Example: photopic generate --image photo.png --style-of drawing.png -o out/",
        "Example: photopic generate 'a bear' --control style_injection:style=drawing.png,gamma=0.5 --scheduler ddim",
    ),
)
class StyleInjection(Control):
    """Draw in the manner of a picture: another picture again, or what the prompt says. The sampler is DDIM.

    Args:
        style: File of the picture whose manner is wanted.
        content: File of the picture to draw again; every picture of a batch is then the same. None: what the prompt says.
        config: How much of each.

    Other controls act on the prompt's own picture too, which is drawn first, and on what is injected; guidance on the former alone.

    Raises:
        DataError: If a picture cannot be read.
        ModelError: In a run, if the sampler is not deterministic DDIM, the size drawn is not the model's own, no layer matches, it
            starts from a picture, or the model has no UNet.

    Example:
        >>> control = StyleInjection("drawing.png", "photo.png")  # doctest: +SKIP
        >>> model.generate("", seeds=[0], guidance=1, controls=[control])  # doctest: +SKIP
    """

    kinds: tuple[Kind, ...] = ("self",)
    styles = 1  # how many of the known pictures are styles: one for all, or one for each of a batch

    def __init__(
        self,
        style: Annotated[str, Existing()],
        content: Annotated[str | None, Existing()] = None,
        *,
        config: StyleInjectionConfig = StyleInjectionConfig(),
    ):
        self.files = [style] if content is None else [style, content]
        for file in self.files:
            load_picture(file, 8)  # refused before anything is drawn
        self.config = config

    def applied(self, model: Any) -> AbstractContextManager[None]:
        """Encode the pictures in the model's size, and the empty prompt that they are walked back with."""
        model.check_unet("a style is injected into the self-attention of a UNet")
        attention_layers(model.unet, ("self",), self.config.layers)
        pictures = np.stack([load_picture(file, model.image_size) for file in self.files])
        self.known = model.encode_images(from_pixels(pictures))  # (1 or 2, c, h, w), the style first
        self.empty = model.encode_prompts([""] * len(pictures))
        return nullcontext()

    @property
    def is_plain(self) -> bool:
        """Whether nothing is drawn again: no content picture, and no step that injects."""
        return self.config.until == 0 and len(self.known) == self.styles

    def is_guided(self, step: Step) -> bool:
        """Never where a style is injected: guidance would multiply what parts the prompt from a style both halves are given."""
        return self.is_plain

    def start_noise(self, noise: Float[Tensor, "batch c h w"], sampling: Sampling) -> Float[Tensor, "batch c h w"]:
        """Walk the pictures back; begin at the content's noise, or at that with the style's statistics."""
        if noise.shape[1:] != self.known.shape[1:]:
            raise ModelError(
                f"style injection: expected latents of {tuple(self.known.shape[1:])}, the model's own size, found "
                f"{tuple(noise.shape[1:])}; leave width and height out"
            )
        if sampling.image is not None:
            raise ModelError(
                "style injection: expected no picture to start from, found one; give it as content instead"
            )
        if self.is_plain:
            return noise
        known, told, own = self.known, self.empty, slice(0, self.styles)
        reader = _Reader(self.config.layers)
        with torch.no_grad():
            if len(known) == self.styles:
                known, told = torch.cat([known, self._drawn(noise, sampling)]), told.joined(sampling.conditioning)
            alone = replace(sampling, conditioning=told, unconditional=None, controls=(reader,), differentiable=False)
            back = invert(alone, known, refinements=self.config.refinements)
        self.style = {place: (key[own], value[own]) for place, (_, key, value) in reader.read.items()}
        self.content = {place: query[self.styles :] for place, (query, _, _) in reader.read.items()}
        noise = back[self.styles :].expand_as(noise)
        return adain(noise, back[own]) if self.config.adain else noise

    def _drawn(self, noise: Tensor, sampling: Sampling) -> Tensor:
        """The prompt's own picture, as all other controls draw it; they then begin once more."""
        others = tuple(each for each in sampling.controls if not isinstance(each, StyleInjection))
        drawn = sample(replace(sampling, controls=others, differentiable=False), noise)
        for each in others:
            each.start(sampling)
        return drawn

    def qkv(
        self,
        query: Float[Tensor, "batch heads cells head_dim"],
        key: Float[Tensor, "batch heads tokens head_dim"],
        value: Float[Tensor, "batch heads tokens head_dim"],
        place: Place,
        step: Step,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of the style, mixed queries, sharper scores; other layers and later steps are left alone."""
        at, gamma = (float(step.timestep), place.name), self.config.gamma
        if step.index >= self.config.until * step.total or at not in self.style:
            return query, key, value
        if gamma:
            query = gamma * self.content[at] + (1 - gamma) * query  # Eq. 5
        key, value = (each.expand_as(mine) for each, mine in zip(self.style[at], (key, value), strict=True))
        return self.config.temperature * query, key, value


def adain(content: Float[Tensor, "batch c h w"], style: Float[Tensor, "styles c h w"]) -> Float[Tensor, "batch c h w"]:
    """Content with the mean and the standard deviation that each channel of the style has.  # Eq. 8

    Example:
        >>> adain(torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[5.0, 9.0]]]]))
        tensor([[[[5., 9.]]]])
    """
    own, wanted = (
        (each.mean((2, 3), keepdim=True), each.std((2, 3), keepdim=True, unbiased=False)) for each in (content, style)
    )
    return (content - own[0]) / own[1].clamp_min(1e-6) * wanted[1] + wanted[0]


class _Reader(Control):
    """Keeps queries, keys and values of the layers of a pattern; of a step done again those of the last time."""

    kinds: tuple[Kind, ...] = ("self",)

    def __init__(self, layers: str):
        self.layers = layers
        self.read: Read = {}

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, place: Place, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        if fnmatchcase(place.name, self.layers):
            self.read[float(step.timestep), place.name] = (query, key, value)
        return query, key, value
