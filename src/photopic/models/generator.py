"""A handle over a style-based generator: the bundled one, one trained here, or a StyleGAN2 state dict from a local folder.

Use it as ``photopic.load("emoji-gan").generate(16, seed=1)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from photopic.core.errors import DataError, ModelError
from photopic.data.pixels import to_pixels
from photopic.models.files import GENERATOR
from photopic.models.handle import Handle
from photopic.models.networks import check_finite, put_on
from photopic.models.style_critics import Discriminator, Encoder
from photopic.models.style_files import networks, read, seeded_normal, write
from photopic.models.style_networks import GeneratorConfig, Synthesis
from photopic.models.style_networks import Mapping as StyleMapping

__all__ = ["Generator", "GeneratorConfig", "NoiseMaps"]

NoiseMaps = str | Sequence[Tensor]  # "stored", "none", or a map a style layer
DRAWS = 4096  # of w, whose mean and standard deviation are kept
BATCH = 64


@dataclass(frozen=True, eq=False)
class Generator(Handle):
    """A generator of pictures from latents: z, its w, a w for each layer (W+), or the styles these become.

    Pictures are (batch, 3, resolution, resolution), -1 to 1 but for overshoots. The noise of every layer is stored in the
    model and the same at every call, so that two pictures differ by their latents alone. Everything is differentiable, and
    works under ``torch.func`` at float32 and float64. An edit can add to ``mapping`` (every layer's w), to
    ``synthesis.style.3`` (that of layer 3) or to ``synthesis.convs.3.affine`` (its styles).

    Attributes:
        mapping: From z to w.
        synthesis: From a w for each layer to pictures.
        config: What they are made of.
        name: What messages and files call the model.
        provenance: How it was made, as JSON values; empty for a model from elsewhere.
        discriminator: Tells its data's pictures from drawn ones; None where the folder has none.
        encoder: Reads z off a picture; None where the folder has none.

    Raises:
        ModelError: If a weight is not finite.

    Example:
        >>> model = Generator.fresh(GeneratorConfig(resolution=16, channels=(8, 8, 4), z_width=4, w_width=4))
        >>> w = model.map(model.sample_z(2, seed=0))
        >>> model.layers, model.synthesize(w).shape
        (6, torch.Size([2, 3, 16, 16]))
    """

    described: ClassVar[str] = GENERATOR
    default_name: ClassVar[str] = "emoji-gan"

    mapping: StyleMapping
    synthesis: Synthesis
    config: GeneratorConfig
    name: str = "model"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    discriminator: Discriminator | None = None
    encoder: Encoder | None = None

    def __post_init__(self) -> None:
        for part in filter(None, (*self.components.values(), self.discriminator, self.encoder)):
            check_finite(part, self.name)
            part.eval().requires_grad_(False)

    @classmethod
    def fresh(cls, config: GeneratorConfig, name: str = "model") -> Generator:
        """An untrained generator; the same seed of the configuration makes the same weights."""
        return cls(*networks(config), config, name)

    @classmethod
    def _read(cls, name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None) -> Generator:
        found = read(name, source)
        for part in filter(None, (found.mapping, found.synthesis, found.discriminator, found.encoder)):
            put_on(part, device)
            part.to(dtype=dtype)
        called = source.stem if isinstance(source, Path) and source.is_file() else Path(source).name
        beside = found.discriminator, found.encoder
        return cls(found.mapping, found.synthesis, found.config, called, found.provenance, *beside)

    @property
    def components(self) -> dict[str, nn.Module]:
        """Both networks, by the names that edits call them by."""
        return {"mapping": self.mapping, "synthesis": self.synthesis}

    @property
    def resolution(self) -> int:
        """Side of the pictures in pixels."""
        return self.config.resolution

    @property
    def layers(self) -> int:
        """How many w a picture takes in W+."""
        return self.config.layers

    def sample_z(self, count: int, seed: int = 0, start: int = 0) -> Float[Tensor, "count z"]:
        """Latents of seeds; row i is the same whatever the count.

        Args:
            count: How many.
            seed: Of all of them.
            start: The number of the first.
        """
        return seeded_normal(self.config.z_width, seed, count, start).to(self.device, self.dtype)

    def map(self, z: Float[Tensor, "batch z"], truncation: float = 1.0) -> Float[Tensor, "batch d"]:
        """w of each z.

        Args:
            z: Latents, of about unit variance.
            truncation: 1 leaves w, 0 takes the mean of all w, between is nearer to what is usual and less various.

        Raises:
            ModelError: If z is of another width.
        """
        if z.ndim != 2 or z.shape[1] != self.config.z_width:
            raise ModelError(
                f"{self.name}: expected z of shape (pictures, {self.config.z_width}), found {tuple(z.shape)}; "
                "sample_z(n, seed) draws such"
            )
        return self.mapping(z, self.mean_w, truncation) if truncation != 1 else self.mapping(z)

    @cached_property
    def _w_moments(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():  # past hooks: the moments are the model's, whatever directions are added
            w = self.mapping.forward(self.sample_z(DRAWS, seed=0)).double()
        return w.mean(0).to(self.dtype), w.std(0).to(self.dtype)

    @property
    def mean_w(self) -> Float[Tensor, "d"]:
        """Mean of w over 4,096 draws."""
        return self._w_moments[0]

    @property
    def std_w(self) -> Float[Tensor, "d"]:
        """Standard deviation of each number of w over 4,096 draws."""
        return self._w_moments[1]

    def in_layers(self, w: Tensor) -> Float[Tensor, "batch layers d"]:
        """W+ of a w (batch, w), the same for every layer; of a W+, itself.

        Raises:
            ModelError: If it is neither.
        """
        if w.ndim == 2 and w.shape[1] == self.config.w_width:
            return w[:, None].expand(-1, self.layers, -1)
        if w.ndim != 3 or w.shape[1:] != (self.layers, self.config.w_width):
            raise ModelError(
                f"{self.name}: expected w of shape (pictures, {self.config.w_width}) or (pictures, {self.layers}, "
                f"{self.config.w_width}), found {tuple(w.shape)}; map(z) makes such"
            )
        return w

    def synthesize(self, w: Tensor, noise: NoiseMaps = "stored") -> Float[Tensor, "batch 3 side side"]:
        """Pictures of w (batch, w) or W+ (batch, layers, w).

        Args:
            w: What ``map`` makes, or one for each layer.
            noise: ``stored``: the model's own, the same at every call; ``none``; or what ``draw_noise`` makes.

        Raises:
            ModelError: If w or the noise is of another shape, or the noise is asked to be random.
        """
        return self.synthesis(self.in_layers(w), self.noise_maps(noise))

    def styles(self, w: Tensor) -> list[Tensor]:
        """Styles of w or W+: one (batch, channels) a style layer, then one a to-RGB layer.

        Raises:
            ModelError: If w is of another shape.
        """
        return self.synthesis.styles(self.in_layers(w))

    @cached_property
    def style_names(self) -> tuple[str, ...]:
        """The modules that make the styles, in the order of ``styles``."""
        convs = [f"synthesis.convs.{k}.affine" for k in range(len(self.synthesis.convs))]
        return (*convs, *(f"synthesis.to_rgb.{k}.affine" for k in range(len(self.synthesis.to_rgb))))

    def synthesize_styles(
        self, styles: Sequence[Tensor], noise: NoiseMaps = "stored"
    ) -> Float[Tensor, "batch 3 side side"]:
        """Pictures of styles; ``synthesize_styles(styles(w))`` is ``synthesize(w)``.

        Raises:
            ModelError: If they are not as many, or the noise is of another shape.
        """
        if len(styles) != len(self.style_names):
            raise ModelError(f"{self.name}: expected {len(self.style_names)} styles, found {len(styles)}")
        return self.synthesis.draw(styles, self.noise_maps(noise))

    def noise_maps(self, noise: NoiseMaps) -> list[Tensor | None]:
        """The noise of each style layer.

        Raises:
            ModelError: If it is of another number or shape, or asked to be random.
        """
        stored = self.synthesis.stored_noise()
        if isinstance(noise, str):
            if noise not in ("stored", "none"):
                raise ModelError(
                    f"{self.name}: noise: expected 'stored', 'none' or a map for each layer, found {noise!r}; fresh noise at "
                    "every call would change pictures beside what an edit changes: draw it once by draw_noise(seed)"
                )
            return stored if noise == "stored" else [None] * len(stored)
        found = list(noise)
        for layer, wanted in enumerate(stored):
            if layer >= len(found) or (wanted is not None and found[layer].shape[1:] != wanted.shape[1:]):
                what = tuple(found[layer].shape) if layer < len(found) else "none"
                raise ModelError(
                    f"{self.name}: noise of layer {layer}: expected (1 or pictures, 1, "
                    f"{4 << ((layer + 1) // 2)}, {4 << ((layer + 1) // 2)}), found {what}"
                )
        return [each if wanted is not None else None for each, wanted in zip(found, stored, strict=True)]

    def draw_noise(self, seed: int, count: int = 1) -> list[Float[Tensor, "count 1 h w"]]:
        """Fresh noise for every style layer, for ``synthesize``.

        Args:
            seed: Of all of it.
            count: Of pictures that each get their own; 1 for the same in all.
        """
        sides = [4 << ((layer + 1) // 2) for layer in range(len(self.synthesis.convs))]
        rows = seeded_normal(sum(side * side for side in sides), seed, count).to(self.device, self.dtype)
        parts = rows.split([side * side for side in sides], dim=1)
        return [part.reshape(count, 1, side, side) for part, side in zip(parts, sides, strict=True)]

    def forward(self, w: Tensor, noise: NoiseMaps = "stored") -> Float[Tensor, "batch 3 side side"]:
        """``synthesize``; gradients flow where they are wanted."""
        return self.synthesize(w, noise)

    @torch.no_grad()
    def generate(
        self, count: int, seed: int = 0, truncation: float = 1.0, start: int = 0
    ) -> UInt8[np.ndarray, "count side side 3"]:
        """Pictures of seeded latents, under the edits in force; picture i is the same whatever the count.

        Args:
            count: How many.
            seed: Of all of them.
            truncation: As ``map`` takes it.
            start: The number of the first.

        Raises:
            DataError: If none is asked for.

        Example:
            >>> model = Generator.fresh(GeneratorConfig(resolution=8, channels=(4, 4), z_width=4, w_width=4))
            >>> model.generate(3, seed=1).shape
            (3, 8, 8, 3)
        """
        if count < 1:
            raise DataError(f"expected 1 picture or more, found {count}")
        z = self.sample_z(count, seed, start)
        return np.concatenate([to_pixels(self.synthesize(self.map(part, truncation))) for part in z.split(BATCH)])

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write a folder that loads again, with the edits in force in its weights; directions stay in their edit's file.

        Args:
            folder: Made if missing.
            dtype: Number format of the files; None: as the weights are.
        """
        beside = {"discriminator": self.discriminator, "encoder": self.encoder}
        parts = self.components | {name: part for name, part in beside.items() if part is not None}
        write(
            folder,
            {name: part.to(dtype).state_dict() for name, part in deepcopy(parts).items()},
            self.config,
            self.provenance,
        )
