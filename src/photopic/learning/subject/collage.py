"""A subject in company: its pictures at half their size beside other things that the model draws.

A subject that is only ever taught alone and large is not drawn well small and beside another thing. Like the cut-and-mix
pictures of *SVDiff: Compact Parameter Space for Diffusion Fine-Tuning* (arXiv:2303.11305), but the partner is whatever the model
knows, not a second subject, so each subject is still taught on its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import DataError
from photopic.data import emoji_world
from photopic.data.captioned import CaptionedImages
from photopic.data.scenes import with_article
from photopic.learning.losses.denoising import UNLIMITED
from photopic.learning.subject.preservation import THINGS

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

DRAWING_STEPS = 20
SIDES = ("left of", "right of")


def collages(model: TextToImage, taught: CaptionedImages, *, subject: str, each: int, seed: int) -> CaptionedImages:
    """Pictures of a subject beside other things, with their captions.

    The partner of a collage is drawn from the caption with the partner's name in place of the subject's, so that its ground is like
    the picture's. Borders are repeated where a half is not filled.

    Args:
        model: Draws the partners; without the subject's edit.
        taught: Pictures of the subject, of the model's size; each has a caption with ``subject`` in it.
        subject: The words of the subject, such as ``<mine> bear``.
        each: Collages a picture.
        seed: Of the partners, their places and their noise.

    Raises:
        DataError: If a caption does not name the subject.

    Example:
        >>> collages(model, taught, subject="<mine> bear", each=4, seed=0).captions[0]  # doctest: +SKIP
        'a <mine> bear left of a teapot on a red background'
    """
    # the article goes with the subject: "a <mine> owl" -> "an ant"
    pattern = re.compile(rf"(?:\b[Aa]n?\s+)?{re.escape(subject)}")
    rng = np.random.default_rng((seed, 31))
    things = partners(model, subject)
    sources, prompts, named = [], [], []
    for index, caption in enumerate(text or "" for text in taught.captions or ()):
        if not pattern.search(caption):
            raise DataError(f"caption {caption!r}: expected it to name {subject!r}, to put other things beside it")
        for thing in rng.choice(things, each, replace=each > len(things)):
            side = int(rng.integers(2))
            other = with_article(str(thing))
            sources.append((index, side))
            prompts.append(pattern.sub(other, caption, count=1))
            named.append(pattern.sub(rf"\g<0> {SIDES[side]} {other}", caption, count=1))
    seeds = [seed * 100_003 + number for number in range(len(prompts))]
    together = min(16, UNLIMITED.pictures(model.image_size))
    pixels = model.generate(prompts, seeds=seeds, steps=DRAWING_STEPS, batch=together)
    drawn = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # (n, size, size, 3) -> (n, 3, size, size)
    made = []
    for (index, side), partner in zip(sources, drawn.float() / 127.5 - 1, strict=True):
        halves = [_half(taught.images[index].cpu(), rng), _half(partner, rng)]
        made.append(torch.cat(halves[::-1] if side else halves, 2))  # two (3, size, size / 2) -> (3, size, size)
    return CaptionedImages(torch.stack(made).to(taught.images), named)


def in_company(model: TextToImage, taught: CaptionedImages, *, subject: str, each: int, seed: int) -> CaptionedImages:
    """The pictures of a subject, as often as there are collages of each, and the collages after them; arguments as ``collages``."""
    made = collages(model, taught, subject=subject, each=each, seed=seed)
    # the subject alone as often as in company: small and beside another it must still be told from large and alone
    captions = [*list(taught.captions or ()) * each, *(made.captions or ())]
    return CaptionedImages(torch.cat([taught.images] * each + [made.images]), captions)


def partners(model: TextToImage, subject: str) -> list[str]:
    """What may stand beside a subject: things the model knows, but nothing named like the subject."""
    known = [item.name for item in emoji_world.select(split="known")] if model.knows_emoji else list(THINGS)
    words = set(subject.lower().split())
    return [name for name in known if not words & set(name.lower().split())]


def _half(image: Float[Tensor, "3 height width"], rng: np.random.Generator) -> Float[Tensor, "3 height half"]:
    """A picture at 0.5 to 0.58 of its size in half its width: cut at the sides, its border repeated above and below."""
    _, height, width = image.shape
    scale, half = rng.uniform(0.5, 0.58), width // 2
    size = (round(height * scale), max(half, round(width * scale)))
    small = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)
    left = (size[1] - half) // 2  # cut equally at both sides: the subject stands in the middle
    # not always at one height, or the place would be learnt as part of the subject
    top = int(rng.uniform(0.3, 0.7) * (height - size[0]))
    rest = height - size[0] - top
    return F.pad(small[..., left : left + half], (0, 0, top, rest), mode="replicate")[0].clamp(-1, 1)
