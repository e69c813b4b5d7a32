"""A subject to customise a model for: pictures and captions checked, a token row, what to preserve; ready as a loss."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.errors import DataError, ModelError
from photopic.core.fingerprint import Fingerprint
from photopic.learning.losses.denoising import ConceptLoss, encode_examples
from photopic.learning.progress import data_digest
from photopic.learning.subject.new_token import subject_captions

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

Captioned = tuple[Float[Tensor, "kept 3 kept_height kept_width"], Sequence[str]]


@dataclass(frozen=True)
class Subject:
    """Everything about a subject that does not depend on the method.

    Attributes:
        images: In -1 to 1, (n, 3, size, size).
        captions: With the token, one an image.
        class_captions: The same without the token.
        rows: The token and its embedding rows.
        preservation: Pictures and captions to keep, or None.
    """

    images: Float[Tensor, "n 3 height width"]
    captions: tuple[str, ...]
    class_captions: tuple[str, ...]
    rows: TokenEmbedding
    preservation: Captioned | None

    @property
    def digest(self) -> str:
        """Hex sha256 of the pictures and captions of the subject."""
        return data_digest(self.images, self.captions)

    @property
    def preservation_digest(self) -> str | None:
        """Hex sha256 of the preservation pictures and captions."""
        return data_digest(*self.preservation) if self.preservation else None

    def identity(self, config: Mapping[str, Any], base: str) -> str:
        """Hex sha256 of everything a search depends on: two with the same identity give the same result."""
        rows = {name: row.tolist() for name, row in self.rows.rows.items()}
        parts = (sorted(config.items()), self.digest, self.preservation_digest, self.rows.token, rows, base)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def loss(self, model: TextToImage, base: Fingerprint, *, prior_weight: float, batch: int, seed: int) -> ConceptLoss:
        """Encode everything once and return the loss; the text encoder is as before afterwards."""
        with model.edits.applied(Edit(parts=(self.rows,), base=base, provenance={})):
            concept = encode_examples(model, self.images, self.captions)
        class_prompt = encode_examples(model, self.images, self.class_captions)
        prior = None if self.preservation is None else encode_examples(model, *self.preservation)
        return ConceptLoss(model, concept, class_prompt, prior, prior_weight=prior_weight, batch=batch, seed=seed)


def check_unedited(model: TextToImage) -> None:
    """Refuse a model with edits applied: what is found on it would not be true of its base.

    Raises:
        ModelError: Names the edits.
    """
    if model.edits.names():
        raise ModelError(f"{model.name}: has edits applied ({', '.join(model.edits.names())}); remove them first")


def subject(
    model: TextToImage,
    images: Float[Tensor, "n 3 height width"],
    captions: Sequence[str] | None,
    *,
    noun: str,
    rows: TokenEmbedding,
    preservation: Captioned | None,
) -> Subject:
    """Check pictures and captions against the model.

    Args:
        model: The model to customise.
        images: 1 or more pictures in -1 to 1.
        captions: One a picture, or None for ``a <token> noun``.
        noun: The class noun.
        rows: The token and its rows.
        preservation: Pictures and captions to keep, or None.

    Raises:
        DataError: If shapes, ranges or captions do not fit.
    """
    side = model.image_size
    for what, pictures in (("images", images), *((("preservation", preservation[0]),) if preservation else ())):
        if pictures.ndim != 4 or pictures.shape[1] != 3 or not len(pictures):
            raise DataError(f"{what}: expected shape (n, 3, {side}, {side}) with n >= 1, found {tuple(pictures.shape)}")
        if tuple(pictures.shape[2:]) != (side, side):
            raise DataError(
                f"{what}: {model.name} draws {side}x{side} pixels, found {tuple(pictures.shape[2:])}; resize them"
            )
        if not torch.isfinite(pictures).all() or pictures.abs().max() > 1.01:
            raise DataError(f"{what}: expected values from -1 to 1, found {pictures.min():.3g} to {pictures.max():.3g}")
    with_token, without = subject_captions(len(images), noun, rows.token, captions)
    return Subject(images, tuple(with_token), tuple(without), rows, preservation)
