"""A subject to customise a model for: pictures and captions checked, a token row, what to preserve; ready as a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.errors import DataError
from photopic.core.identity import Fingerprint
from photopic.data.captioned import CaptionedImages
from photopic.learning.losses.denoising import UNLIMITED, ConceptLoss, Limits, encode_examples
from photopic.learning.subject.new_token import subject_captions

if TYPE_CHECKING:
    from photopic.data.layout import Layout
    from photopic.models.text_to_image.handle import TextToImage


@dataclass(frozen=True)
class Subject:
    """Everything about a subject that does not depend on the method.

    Attributes:
        images: In -1 to 1, (n, 3, size, size).
        captions: With the token, one an image.
        class_captions: The same without the token.
        rows: The token and its embedding rows.
        preserved: Pictures and captions to keep, or None.
        layouts: Where the things of each picture are, one an image, or none at all.
    """

    images: Float[Tensor, "n 3 height width"]
    captions: tuple[str, ...]
    class_captions: tuple[str, ...]
    rows: TokenEmbedding
    preserved: CaptionedImages | None
    layouts: Sequence[Layout | None] = ()

    def loss(
        self,
        model: TextToImage,
        base: Fingerprint,
        *,
        prior_weight: float,
        batch: int,
        seed: int,
        limits: Limits = UNLIMITED,
        attention: float = 0.0,
    ) -> ConceptLoss:
        """Encode everything once and return the loss; the text encoder is as before afterwards."""
        # the only place where the new word is in the tokenizer: its captions are encoded once
        with model.edits.applied(Edit(parts=(self.rows,), base=base, provenance={})):
            concept = encode_examples(model, self.images, self.captions, limits, self.layouts if attention else ())
        class_prompt = encode_examples(model, self.images, self.class_captions, limits)
        kept, prior = self.preserved, None
        if kept is not None:
            prior = encode_examples(model, kept.images, [each or "" for each in kept.captions or ()], limits)
        return ConceptLoss(
            model, concept, class_prompt, prior,
            prior_weight=prior_weight, batch=batch, seed=seed, limits=limits, attention=attention,
        )  # fmt: skip


def subject(
    model: TextToImage,
    images: CaptionedImages,
    *,
    noun: str,
    rows: TokenEmbedding,
    preserved: CaptionedImages | None = None,
) -> Subject:
    """Check pictures and captions against the model.

    Args:
        model: The model to customise.
        images: 1 or more pictures in -1 to 1; one without a caption is ``a <token> noun``.
        noun: The class noun.
        rows: The token and its rows.
        preserved: Pictures and captions to keep, or None.

    Raises:
        DataError: If shapes, ranges or captions do not fit.

    Example:
        >>> subject(model, CaptionedImages(images), noun="owl", rows=rows).captions  # doctest: +SKIP
        ('a <mine> owl',)
    """
    _check("images", images.images, model)
    if preserved is not None:
        _check("preserved", preserved.images, model)
    with_token, without = subject_captions(len(images), noun, rows.token, images.captions)
    return Subject(images.images, tuple(with_token), tuple(without), rows, preserved, images.layouts or ())


def _check(what: str, pictures: Tensor, model: TextToImage) -> None:
    """Refuse pictures of another shape, size or range than the model's."""
    side = model.image_size
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not len(pictures):
        raise DataError(f"{what}: expected shape (n, 3, {side}, {side}) with n >= 1, found {tuple(pictures.shape)}")
    if tuple(pictures.shape[2:]) != (side, side):
        raise DataError(
            f"{what}: {model.name} draws {side}x{side} pixels, found {tuple(pictures.shape[2:])}; resize them"
        )
    if not torch.isfinite(pictures).all() or pictures.abs().max() > 1.01:  # resizing overshoots a little
        raise DataError(f"{what}: expected values from -1 to 1, found {pictures.min():.3g} to {pictures.max():.3g}")
