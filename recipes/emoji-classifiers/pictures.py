"""Training pictures: every sprite once as a tensor, and augmentation of a whole batch at a time."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from networks import MEAN, SIZE, SPREAD
from PIL import Image
from torch import Tensor

from photopic.data import emoji_world, renderings

SPRITE = 40  # pixels; a little more than the network reads, because pictures are zoomed and turned
DIRECTED = {"symbols", "flags", "people-body"}  # groups where a mirror image is another thing
DIRECTED_SUBGROUPS = {"time", "sky-weather"}  # clocks and moons
DIRECTED_WORDS = {"left", "right", "forward", "back", "reverse"}
GREY = torch.tensor([0.299, 0.587, 0.114])


class Painter:
    """Draws the batch of a step; the same seed and step give the same batch."""

    def __init__(self, seed: int):
        self.seed = seed
        pairs = renderings.training_pairs()
        number = {name: i for i, name in enumerate(renderings.classes())}
        self.labels = torch.tensor([number[name] for name, _ in pairs])
        self.sprites = sprites()
        self.mirror = torch.tensor([may_mirror(name) for name, _ in pairs])
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))

    def batch(self, step: int, size: int, strength: float) -> tuple[Tensor, Tensor]:
        """Normalised pictures (size, 3, 32, 32) and their labels; an epoch shows every pair once."""
        epoch, at = divmod(step, len(self.labels) // size)
        if self.order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self.order = (epoch, torch.randperm(len(self.labels), generator=generator))
        picked = self.order[1][at * size : (at + 1) * size]
        generator = torch.Generator().manual_seed((self.seed + 1) * 10_000_019 + step)
        return augment(self.sprites[picked], self.mirror[picked], generator, strength), self.labels[picked]


@cache
def sprites() -> Tensor:
    """Small copies of the art of every training pair with premultiplied alpha, uint8 (pairs, 4, 40, 40)."""
    small = [
        Image.fromarray(emoji_world.sprite(*pair)).convert("RGBa").resize((SPRITE, SPRITE), Image.Resampling.LANCZOS)
        for pair in renderings.training_pairs()
    ]
    return torch.from_numpy(np.stack([np.asarray(each) for each in small])).permute(0, 3, 1, 2).contiguous()


def may_mirror(name: str) -> bool:
    """Whether the mirror image still is the same thing."""
    item = emoji_world.concept(name)
    words = set(name.replace("-", " ").split())
    return item.group not in DIRECTED and item.subgroup not in DIRECTED_SUBGROUPS and not words & DIRECTED_WORDS


def augment(small: Tensor, mirror: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Turn, zoom, shift, mirror, recolour, put on a background, blur, add noise and cover a part.

    ``strength`` from 0 to 1 scales all of it: at 0 the sprite is drawn as it is, on white.
    """
    count = len(small)

    def uniform(low: float, high: float, *shape: int, neutral: float = 0.0) -> Tensor:
        return torch.lerp(
            torch.tensor(neutral), torch.rand(count, *shape, generator=generator) * (high - low) + low, strength
        )

    def happens(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share * strength

    angle = uniform(-1, 1) * torch.where(happens(0.1), math.pi / 5, math.pi / 15)
    zoom, aspect = uniform(0.72, 1.12, neutral=0.95), uniform(-0.12, 0.12).exp()
    sign = torch.where(mirror & happens(0.5), -1.0, 1.0)
    rows = [
        torch.stack([angle.cos() * sign / zoom * aspect, angle.sin() / zoom, uniform(-0.16, 0.16)], 1),
        torch.stack([-angle.sin() * sign / zoom, angle.cos() / zoom / aspect, uniform(-0.16, 0.16)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [count, 4, SIZE, SIZE], align_corners=False)
    turned = F.grid_sample(small.float() / 255, grid, align_corners=False)  # (n, 4, 32, 32)
    colour, alpha = _line_art(turned, happens(0.05), happens(0.04))
    keep = torch.where(happens(0.15), 0.0, uniform(0.5, 1.4, neutral=1.0))[:, None, None]  # saturation; 0 is grey
    mix = keep * torch.eye(3) + (1 - keep) * GREY + 0.1 * strength * torch.randn(count, 3, 3, generator=generator)
    mix = mix * uniform(0.75, 1.25, neutral=1.0)[:, None, None]
    colour = torch.einsum("nij,njhw->nihw", mix, colour) + uniform(-0.12, 0.12, 1, 1, 1) * alpha
    background = torch.lerp(torch.ones(()), _backgrounds(count, generator), strength)
    images = colour.clamp_min(0).minimum(alpha) + (1 - alpha) * background
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), "replicate"), 3, 1)
    images = torch.lerp(images, soft, uniform(-0.8, 0.9, 1, 1, 1).clamp_min(0))
    images = images + uniform(0, 0.04, 1, 1, 1) * torch.randn(images.shape, generator=generator)
    images = _covered(images, happens(0.25), generator)
    return ((images.clamp(0, 1) - MEAN) / SPREAD).contiguous(memory_format=torch.channels_last)


def _line_art(turned: Tensor, outlined: Tensor, dark: Tensor) -> tuple[Tensor, Tensor]:
    """Some sprites become their black outlines, some their dark parts; (n, 3, h, w) colours and (n, 1, h, w) alpha."""
    colour, alpha = turned[:, :3], turned[:, 3:]
    light = torch.einsum("c,nchw->nhw", GREY, colour)[:, None] + 1 - alpha  # on white
    edges = F.max_pool2d(light, 3, 1, 1) + F.max_pool2d(-light, 3, 1, 1)  # lightest minus darkest of the neighbours
    ink = torch.where(outlined[:, None, None, None], (2.5 * edges).clamp(0, 1), ((0.7 - light) * 6).clamp(0, 1))
    drawn = (outlined | dark)[:, None, None, None]
    return torch.where(drawn, 0.0, colour), torch.where(drawn, ink, alpha)


def _backgrounds(count: int, generator: torch.Generator) -> Tensor:
    """White, one colour, or a gradient in any direction, some with blotches; rarely dark, because line art is black."""
    ends = 1 - 0.75 * torch.rand(2, count, 3, generator=generator) * torch.rand(2, count, 1, generator=generator)
    kind = torch.rand(count, generator=generator)
    ends[:, kind < 0.25] = 1.0
    ends[1, kind < 0.6] = ends[0, kind < 0.6]
    angle = 2 * math.pi * torch.rand(count, 1, 1, generator=generator)
    line = torch.linspace(-0.5, 0.5, SIZE)
    along = (angle.cos() * line[None, :] + angle.sin() * line[:, None] + 0.5).clamp(0, 1)[:, None]  # (n, 1, 32, 32)
    images = torch.lerp(ends[0, :, :, None, None], ends[1, :, :, None, None], along)
    blotches = F.interpolate(torch.randn(count, 3, 4, 4, generator=generator), SIZE, mode="bilinear")
    strength = 0.15 * torch.rand(count, 1, 1, 1, generator=generator) * (kind > 0.75)[:, None, None, None]
    return (images + strength * blotches).clamp(0, 1)


def _covered(images: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """The chosen pictures lose a rectangle to a plain colour."""
    count = len(images)
    corner = torch.rand(count, 2, 1, generator=generator) * SIZE
    side = (4 + 10 * torch.rand(count, 2, 1, generator=generator)) * chosen[:, None, None]
    place = torch.arange(SIZE)
    inside = (place >= corner) & (place < corner + side)  # (n, 2, 32): rows and columns
    mask = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
    return torch.where(mask, torch.rand(count, 3, 1, 1, generator=generator), images)
