"""Masked autoencoding with masks from coloured noise: which patches are hidden follows a field of filtered white noise.

Red noise hides large regions, blue noise spreads holes evenly, green noise hides and shows blobs of a middle size, purple noise has
all but the middle. No picture is looked at to choose, and training costs what it costs with random masks.

Paper: *ColorMAE: Exploring data-independent masking strategies in Masked AutoEncoders* (ECCV 2024, arXiv:2407.13036). Changed: the
widths of the filters are in patches, so that they mean the same on every grid; every picture has a window of its own, where the
authors cut one place from as many fields; heads have 32 channels. Claims ``color_mae.*`` and ``masked.step_speedup`` of
benchmarks/train/masked.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float

from photopic.core.errors import FieldError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.numerics.spectral_noise import Gain, gaussian_gain, spectral_noise, strongest
from photopic.core.runs import Run
from photopic.data.picture_set import PictureSet
from photopic.models.masked_autoencoder import MaskedAutoencoder
from photopic.train.masked._common import MaskedConfig, MaskedLearner, MaskedTask, Masks, pretrained

SMALLEST = 12  # patches along a side below which a middle frequency can hardly be told from a high one


@dataclass(frozen=True, kw_only=True)
class ColouredNoiseConfig(MaskedConfig):
    """What to train and how."""

    # which noise hides patches: random (every patch alike), red, green, blue or purple
    colour: Literal["random", "red", "green", "blue", "purple"] = "green"
    narrow: Annotated[float, Gt(0)] = (
        0.7  # standard deviation of the narrow blur in patches; less reaches higher frequencies
    )
    wide: Annotated[float, Gt(0)] = (
        1.5  # standard deviation of the wide blur in patches; more reaches lower frequencies
    )
    field: Annotated[int, Ge(64)] = 512  # side of the noise field that windows are cut from, in patches

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.narrow >= self.wide:
            raise FieldError("narrow", f"expected less than wide, {self.wide}, found {self.narrow}")
        if self.colour != "random" and not SMALLEST <= self.grid <= self.field:
            raise FieldError(
                "patch",
                f"expected {SMALLEST} to {self.field} patches along a side for {self.colour} noise, found {self.grid}",
            )


PAPER = ColouredNoiseConfig(  # ViT-B, 300 epochs of ImageNet
    size=224,
    patch=16,
    width=768,
    depth=12,
    decoder_width=512,
    decoder_depth=8,
    steps=93_750,
    batch=4096,
    lr=2.4e-3,
    flip=True,
)


@method(
    paper="arXiv:2407.13036",
    claims="color_mae.",
    presets={"paper": PAPER},
    command="train masked",
    examples=("Example: photopic train masked pictures/ -o mae", "Without pictures: emoji-scenes:4000 --steps 500"),
    after=(
        "{output}: learnt from {pictures} pictures; photopic.load reads it, ViTMAEForPreTraining of transformers too",
    ),
)
def coloured_noise(
    data: PictureSet, *, config: ColouredNoiseConfig = ColouredNoiseConfig(), run: Run | None = None
) -> Steps[MaskedAutoencoder]:
    """Train a vision transformer on pictures without labels, by filling in patches that coloured noise hides.

    Args:
        data: Pictures; the emoji world's scenes to try it.
        config: What to train and how.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        Encoder and decoder; ``tokens`` gives a vector for every patch.

    Raises:
        DataError: If there is no picture.
        ModelError: If sizes do not go together.

    Example:
        >>> config = ColouredNoiseConfig(size=24, patch=2, width=32, depth=1, decoder_width=32, steps=1, batch=2)
        >>> coloured_noise(PictureSet("emoji-scenes:2"), config=config).grid
        12
    """
    yield Event("reading pictures")
    images = data.read(config.size).numpy()
    return (yield from pretrained(MaskedLearner(images, config, MaskedTask(masks_of(config))), run))


def gain_of(config: ColouredNoiseConfig) -> Gain:
    """What white noise is filtered with: low-pass, high-pass, their difference of Gaussians, and all but that."""
    narrow, wide = gaussian_gain(config.narrow), gaussian_gain(config.wide)
    gains: dict[str, Gain] = {
        "red": wide,
        "blue": lambda frequency: 1 - narrow(frequency),
        "green": lambda frequency: narrow(frequency) - wide(frequency),
        "purple": lambda frequency: 1 - (narrow(frequency) - wide(frequency)),
    }
    return gains[config.colour]


def masks_of(config: ColouredNoiseConfig) -> Masks:
    """Masks of exactly the share: the weakest values of a window, or of independent values for ``random``."""
    grid, patches = config.grid, config.grid**2
    if config.colour == "random":
        return lambda count, rng: ~strongest(rng.random((count, patches)), config.visible)
    field = spectral_noise((config.field, config.field), gain_of(config), np.random.default_rng((config.seed, 5)))

    def masks(count: int, rng: np.random.Generator) -> Bool[np.ndarray, "n patches"]:
        values = np.stack([window(field, grid, rng) for _ in range(count)])  # (n, grid, grid)
        return ~strongest(values.reshape(count, patches), config.visible)

    return masks


def window(
    field: Float[np.ndarray, "side side"], grid: int, rng: np.random.Generator
) -> Float[np.ndarray, "grid grid"]:
    """A random part of a field, mirrored along either axis half of the time."""
    top, left = rng.integers(len(field) - grid + 1, size=2)
    part = field[top : top + grid, left : left + grid]
    flips = rng.integers(2, size=2) * 2 - 1
    return part[:: flips[0], :: flips[1]]
