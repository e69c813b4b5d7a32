"""Pictures of one thing with their captions, at the size a text-to-image model works at: what a subject is taught from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from photopic.data.folder import load_folder
from photopic.data.layout import Layout


@dataclass(frozen=True)
class CaptionedImages:
    """Pictures with captions.

    Attributes:
        images: In -1 to 1, all of one size, (n, 3, size, size).
        captions: One a picture, None for a picture without; None where no picture has one. A method says in its own words what it
            does not find here, such as ``a <mine> bear``.
        layouts: Where the things of each picture are, by their words in its caption, None for one of which it is not known; None:
            of no picture.

    Example:
        >>> import torch
        >>> len(CaptionedImages(torch.zeros(2, 3, 64, 64), ["a bear", None]))
        2
    """

    images: Float[Tensor, "n 3 height width"]
    captions: Sequence[str | None] | None = None
    layouts: Sequence[Layout | None] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> str:
        """Hex sha256 of pictures, captions and layouts."""
        hasher = hashlib.sha256(self.images.detach().cpu().contiguous().float().numpy().tobytes())
        hasher.update("\n".join(caption or "" for caption in self.captions or ()).encode())
        for each in self.layouts or ():
            said = (
                [] if each is None else [(region.words, region.coverage(64, 64).tobytes()) for region in each.regions]
            )
            hasher.update(repr(said).encode())
        return hasher.hexdigest()


def read_captioned(folder: str | Path, size: int) -> CaptionedImages:
    """The pictures of a folder and the captions in text files of the same names.

    Args:
        folder: Holds the pictures.
        size: Side in pixels that every picture becomes.

    Raises:
        DataError: If a picture or caption cannot be used; the message names the file.

    Example:
        >>> read_captioned("photos/", 64).captions  # doctest: +SKIP
        ('a bear on a sofa', None)
    """
    found = load_folder(folder, size)
    return CaptionedImages(found.images, found.captions if any(found.captions) else None)
