"""A subject in company: its pictures at half their size beside other things that the model draws.

A subject that is only ever taught alone and large is not drawn well small and beside another thing. Like the cut-and-mix
pictures of *SVDiff: Compact Parameter Space for Diffusion Fine-Tuning* (arXiv:2303.11305), but the partner is whatever the model
knows, not a second subject, so each subject is still taught on its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import DataError
from photopic.data import emoji_world
from photopic.data.captioned import CaptionedImages
from photopic.data.layout import Layout, Region
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

    Their layouts say where subject and partner are.

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
    pattern = _said(subject)
    rng = np.random.default_rng((seed, 31))
    things = partners(model, subject)
    sources, prompts, named, others = [], [], [], []
    for index, caption in enumerate(text or "" for text in taught.captions or ()):
        _around(pattern, caption, subject)
        for thing in rng.choice(things, each, replace=each > len(things)):
            side = int(rng.integers(2))
            other = with_article(str(thing))
            sources.append((index, side))
            others.append(str(thing))
            prompts.append(pattern.sub(other, caption, count=1))
            named.append(pattern.sub(rf"\g<0> {SIDES[side]} {other}", caption, count=1))
    seeds = [seed * 100_003 + number for number in range(len(prompts))]
    together = min(16, UNLIMITED.pictures(model.image_size))
    pixels = model.generate(prompts, seeds=seeds, steps=DRAWING_STEPS, batch=together)
    drawn = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # (n, size, size, 3) -> (n, 3, size, size)
    made = [
        _side_by_side((taught.images[index].cpu(), partner), (subject, other), side, rng)
        for (index, side), partner, other in zip(sources, drawn.float() / 127.5 - 1, others, strict=True)
    ]
    return CaptionedImages(
        torch.stack([image for image, _ in made]).to(taught.images), named, [layout for _, layout in made]
    )


def together(taught: Sequence[CaptionedImages], subjects: Sequence[str], *, each: int, seed: int) -> CaptionedImages:
    """Pictures of subjects beside one another, each at half its size, with captions and layouts as ``collages`` has them.

    To a picture belong those of another subject whose captions say the same around it, such as the same ground, if there are any.

    Args:
        taught: Pictures of each subject, of one size; each has a caption with the subject's words in it.
        subjects: Such as ``<mine> bear``, two or more.
        each: Collages of each picture.
        seed: Of partners, their places and heights.

    Raises:
        DataError: If a caption does not name its subject.

    Example:
        >>> together([bears, mugs], ["<mine> bear", "<cup> mug"], each=2, seed=0).captions[0]  # doctest: +SKIP
        'a <mine> bear right of a <cup> mug on a red background'
    """
    rng = np.random.default_rng((seed, 37))
    patterns = [_said(subject) for subject in subjects]
    around = [
        [_around(pattern, caption or "", subject) for caption in of.captions or ()]
        for of, pattern, subject in zip(taught, patterns, subjects, strict=True)
    ]
    images, captions, layouts = [], [], []
    for own, of in enumerate(taught):
        for index, caption in enumerate(of.captions or ()):
            for _ in range(each):
                other = int(rng.choice([number for number in range(len(taught)) if number != own]))
                fit = [place for place, said in enumerate(around[other]) if said == around[own][index]]
                partner = int(rng.choice(fit or range(len(taught[other]))))
                side, said = int(rng.integers(2)), patterns[other].search((taught[other].captions or ())[partner] or "")
                assert said is not None  # `_around` has refused captions without
                image, layout = _side_by_side(
                    (of.images[index].cpu(), taught[other].images[partner].cpu()),
                    (subjects[own], subjects[other]), side, rng,
                )  # fmt: skip
                images.append(image)
                layouts.append(layout)
                captions.append(patterns[own].sub(rf"\g<0> {SIDES[side]} {said[0]}", caption or "", count=1))
    return CaptionedImages(torch.stack(images).to(taught[0].images), captions, layouts)


def in_company(model: TextToImage, taught: CaptionedImages, *, subject: str, each: int, seed: int) -> CaptionedImages:
    """The pictures of a subject, as often as there are collages of each, and the collages after them; arguments as ``collages``."""
    made = collages(model, taught, subject=subject, each=each, seed=seed)
    # the subject alone as often as in company: small and beside another it must still be told from large and alone
    captions = [*list(taught.captions or ()) * each, *(made.captions or ())]
    layouts = [*list(taught.layouts or [None] * len(taught)) * each, *(made.layouts or ())]
    return CaptionedImages(torch.cat([taught.images] * each + [made.images]), captions, layouts)


def partners(model: TextToImage, subject: str) -> list[str]:
    """What may stand beside a subject: things the model knows, but nothing named like the subject."""
    known = [item.name for item in emoji_world.select(split="known")] if model.knows_emoji else list(THINGS)
    words = set(subject.lower().split())
    return [name for name in known if not words & set(name.lower().split())]


def _said(subject: str) -> re.Pattern[str]:
    """A subject in a caption, with its article."""
    return re.compile(rf"(?:\b[Aa]n?\s+)?{re.escape(subject)}")


def _around(pattern: re.Pattern[str], caption: str, subject: str) -> str:
    """What a caption says besides its subject."""
    if not pattern.search(caption):
        raise DataError(f"caption {caption!r}: expected it to name {subject!r}, to put other things beside it")
    return pattern.sub("", caption, count=1)


def _side_by_side(
    pair: Sequence[Float[Tensor, "3 height width"]], words: Sequence[str], side: int, rng: np.random.Generator
) -> tuple[Float[Tensor, "3 height width"], Layout]:
    """Two pictures in the halves of one, the first on the left (``side`` 0) or on the right, and where each of them is."""
    halves = [_half(image, rng) for image in pair]
    places = zip(words, (side / 2, (1 - side) / 2), halves, strict=True)
    regions = tuple(Region(name, (left, top, left + 0.5, bottom)) for name, left, (_, top, bottom) in places)
    pixels = [image for image, _, _ in halves]
    return torch.cat(pixels[::-1] if side else pixels, 2), Layout(regions)  # two (3, size, size / 2) -> (3, size, size)


def _half(
    image: Float[Tensor, "3 height width"], rng: np.random.Generator
) -> tuple[Float[Tensor, "3 height half"], float, float]:
    """A picture at 0.5 to 0.58 of its size in half its width, and from where to where down it is, 0 to 1.

    Cut at the sides, its border repeated above and below.
    """
    _, height, width = image.shape
    scale, half = rng.uniform(0.5, 0.58), width // 2
    size = (round(height * scale), max(half, round(width * scale)))
    small = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)
    left = (size[1] - half) // 2  # cut equally at both sides: the subject stands in the middle
    # not always at one height, or the place would be learnt as part of the subject
    top = int(rng.uniform(0.3, 0.7) * (height - size[0]))
    rest = height - size[0] - top
    padded = F.pad(small[..., left : left + half], (0, 0, top, rest), mode="replicate")[0].clamp(-1, 1)
    return padded, top / height, (height - rest) / height
