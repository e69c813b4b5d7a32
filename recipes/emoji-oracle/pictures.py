"""Training pictures of the oracle: scenes of a wider layout than usual, with the blemishes generated pictures have."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from photopic.data import emoji_world, scenes
from photopic.metrics.oracle_network import CELL, OracleConfig

sys.path.append(str(Path(__file__).parents[1]))  # recipes/, which holds _common
GROUPS = ("animals-nature", "food-drink", "travel-places", "objects", "activities")
COMMON_STYLES = ("noto", "twemoji")  # the styles emoji-diffusion draws most
KNOWN_SHARE = 0.6  # of the objects; the rest are other trainable concepts
REUSE = 100  # steps; drawing a scene costs about as much as learning from it
KINDS = ("flat", "gradient", *scenes.TEXTURES)
TINTS = tuple(colour for colour in scenes.COLOURS if colour not in ("white", "black", "gray"))


def oracle_config(side: int = 64) -> OracleConfig:
    """Every known concept and every trainable thing of the object-like groups; no variant, nothing held out."""
    names = tuple(
        item.name
        for item in emoji_world.concepts()
        if item.split == "known" or (item.split == "train" and not item.is_variant and item.group in GROUPS)
    )
    return OracleConfig(names, emoji_world.TRAINING_STYLES, ("none", *TINTS), tuple(scenes.COLOURS), KINDS, side=side)


@dataclass(frozen=True)
class Batch:
    """Pictures with what is true about them; objects of all pictures lie in one list."""

    images: Tensor  # (batch, 3, side, side) in -1 to 1
    foreground: Tensor  # (batch, cells, cells) share of a cell that objects cover
    owner: Tensor  # (objects,) picture of each object
    coverage: Tensor  # (objects, cells, cells) share of a cell that each object covers
    concept: Tensor  # (objects,)
    style: Tensor  # (objects,)
    tint: Tensor  # (objects,)
    top: Tensor  # (batch,)
    bottom: Tensor  # (batch,)
    kind: Tensor  # (batch,)


class Painter:
    """Draws the batch of a step; the same step gives the same batch."""

    def __init__(self, config: OracleConfig, seed: int, tinted: float = 0.1):
        self.config, self.seed, self.tinted = config, seed, tinted
        self.drawn: dict[int, list[scenes.Scene]] = {}
        table = [emoji_world.concept(name) for name in config.concepts]
        self.styles = {item.name: [s for s in item.styles if s in config.styles] for item in table}
        self.known = [item.name for item in table if item.split == "known"]
        self.others = [item.name for item in table if item.split != "known"]
        assert all(item.split != "held_out" for item in table)
        self.index = {
            field: {name: i for i, name in enumerate(getattr(config, field))}
            for field in ("concepts", "styles", "tints", "colours", "kinds")
        }

    def batch(self, step: int, size: int) -> Batch:
        """Draw ``size`` pictures and blemish them; every scene comes twice, ``REUSE`` steps apart."""
        first = step - REUSE if (step // REUSE) % 2 else step
        if (drawn := self.drawn.pop(first, None)) is None:  # also after a resume between the two
            rng = np.random.default_rng((self.seed, first))
            drawn = [self.scene(rng) for _ in range(size)]
        if first == step:
            self.drawn[step] = drawn
        rng = np.random.default_rng((self.seed, step, 1))
        pixels = np.stack([_jpeg(s.image, rng) if rng.random() < 0.15 else s.image for s in drawn])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        masks = torch.from_numpy(np.concatenate([s.masks for s in drawn])).float()
        grown = F.max_pool2d(masks[:, None], 5, 1, 2)[:, 0]  # line art has thin masks: its cells still belong to it
        coverage = F.avg_pool2d(grown[:, None], CELL)[:, 0]
        owner = torch.tensor([i for i, s in enumerate(drawn) for _ in s.placements])
        seen = F.avg_pool2d(masks[:, None], CELL)[:, 0].sum((1, 2)) > 0.6  # enough of it is visible
        items = [item for s in drawn for item in s.placements]
        union = torch.from_numpy(np.stack([s.masks.any(0) for s in drawn])).float()
        foreground = F.avg_pool2d(F.max_pool2d(union[:, None], 5, 1, 2), CELL)[:, 0]
        lookup = self.index
        return Batch(
            images=_blemish(images, generator).contiguous(memory_format=torch.channels_last),
            foreground=foreground,
            owner=owner[seen],
            coverage=coverage[seen],
            concept=torch.tensor([lookup["concepts"][item.concept] for item in items])[seen],
            style=torch.tensor([lookup["styles"][item.style] for item in items])[seen],
            tint=torch.tensor([lookup["tints"][item.tint or "none"] for item in items])[seen],
            top=torch.tensor([lookup["colours"][s.background.colour] for s in drawn]),
            bottom=torch.tensor([lookup["colours"][s.background.second or s.background.colour] for s in drawn]),
            kind=torch.tensor([lookup["kinds"][s.background.kind] for s in drawn]),
        )

    def scene(self, rng: np.random.Generator) -> scenes.Scene:
        """One scene: 1 to 4 objects, most of them known concepts, any size from small to filling.

        Above 64 pixels half of the scenes hold them anywhere, a sixth of the side large and more.
        """
        count = int(rng.choice(4, p=(0.3, 0.25, 0.1, 0.35))) + 1
        anywhere = self.config.side > 64 and rng.random() < 0.5
        layout = scenes.scattered(count, (0.17, 0.8), rng) if anywhere else _layout(count, rng)
        shared = _style(rng)
        placements = []
        for centre, side in layout:
            pool = self.known if rng.random() < KNOWN_SHARE else self.others
            name = pool[rng.integers(len(pool))]
            style = shared if rng.random() < 0.7 else _style(rng)
            choices = self.styles[name]
            tint = None
            if rng.random() < self.tinted and not set(name.split()) & scenes.COLOURS.keys():
                tint = TINTS[rng.integers(len(TINTS))]
            drawn_in = style if style in choices else choices[rng.integers(len(choices))]
            placements.append(scenes.Placement(name, drawn_in, centre, side, tint))
        return scenes.compose(placements, _background(rng), size=self.config.side)


def _style(rng: np.random.Generator) -> str:
    pool = COMMON_STYLES if rng.random() < 0.4 else emoji_world.TRAINING_STYLES
    return pool[rng.integers(len(pool))]


def _background(rng: np.random.Generator) -> scenes.Background:
    kind = KINDS[int(rng.choice(5, p=(0.5, 0.2, 0.1, 0.1, 0.1)))]
    colour, second = (str(name) for name in rng.choice(list(scenes.COLOURS), 2, replace=False))
    return scenes.Background(colour, kind, second if kind == "gradient" else None)


def _layout(count: int, rng: np.random.Generator) -> list[tuple[tuple[float, float], float]]:
    """Centres and sides: like ``sample_scene``'s but looser, and now and then anywhere at all."""
    if count == 1:
        side = rng.uniform(0.4, 0.98)
        slack = (1.1 - side) / 2
        return [((0.5 + rng.uniform(-slack, slack), 0.5 + rng.uniform(-slack, slack)), side)]
    if rng.random() < 0.08:
        return [((rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)), rng.uniform(0.32, 0.5)) for _ in range(count)]
    if count == 2:
        across = rng.random() < 0.5
        spots = []
        for place in rng.permutation((0.26, 0.74)):
            along, aside = place + rng.uniform(-0.06, 0.06), 0.5 + rng.uniform(-0.2, 0.2)
            spots.append(((along, aside) if across else (aside, along), rng.uniform(0.36, 0.54)))
        return spots
    quarters = rng.permutation([(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)])[:count]
    return [
        ((x + rng.uniform(-0.06, 0.06), y + rng.uniform(-0.06, 0.06)), rng.uniform(0.34, 0.48)) for x, y in quarters
    ]


def _jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(35, 95)))
    return np.asarray(Image.open(buffer))


def _blemish(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, noise and small shifts of colour, of another strength for every picture."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(len(images), *shape, generator=generator) * (high - low) + low

    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), "replicate"), 3, 1)
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    blur = uniform(-0.7, 1.0, 1, 1, 1).clamp_min(0)
    images = torch.lerp(images, torch.where(uniform(0, 1, 1, 1, 1) < 0.5, soft, coarse), blur)
    images = images * uniform(0.88, 1.12, 1, 1, 1) * uniform(0.96, 1.04, 3, 1, 1) + uniform(-0.08, 0.08, 3, 1, 1)
    noise = torch.randn(images.shape, generator=generator)
    smooth = F.interpolate(noise[..., ::4, ::4], scale_factor=4.0, mode="bilinear")  # blotches, as decoders leave
    strength, blotches = uniform(-0.06, 0.1, 1, 1, 1).clamp_min(0), uniform(-0.1, 0.15, 1, 1, 1).clamp_min(0)
    return (images + strength * noise + blotches * smooth).clamp(-1, 1)
