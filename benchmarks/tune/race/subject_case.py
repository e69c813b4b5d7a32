"""What every method is given: the same pictures, captions, first token row and preservation pictures, as one loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.harness.subjects import TOKEN, reference
from benchmarks.tune.race.plan import token
from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.events import finished
from photopic.core.identity import Fingerprint
from photopic.data import splits
from photopic.data.captioned import CaptionedImages
from photopic.learning.losses.denoising import ConceptLoss
from photopic.learning.subject.collage import in_company
from photopic.learning.subject.examples import subject
from photopic.learning.subject.new_token import new_rows
from photopic.learning.subject.preservation import preservation_examples
from photopic.models.text_to_image.handle import TextToImage

SEED = 0  # of the preservation pictures and of every draw of every method


@dataclass(frozen=True)
class Given:
    """One subject as a user brings it.

    Attributes:
        name: The held-out concept.
        token: Its new word.
        noun: Its class noun.
        images: Five pictures in -1 to 1.
        captions: With the token.
    """

    name: str
    token: str
    noun: str
    images: Tensor
    captions: tuple[str, ...]

    @classmethod
    def of(cls, name: str) -> Given:
        """The reference pictures of the other benchmarks, under the subject's own token."""
        pictures = reference(name)
        captions = tuple(str(caption).replace(TOKEN, token(name)) for caption in pictures.captions or ())
        return cls(name, token(name), splits.SUBJECTS[name], pictures.images, captions)

    @property
    def pictures(self) -> CaptionedImages:
        """The pictures with their captions, as methods take them."""
        return CaptionedImages(self.images, self.captions)

    @cached_property
    def digest(self) -> str:
        """Of pictures and captions."""
        return self.pictures.digest()

    def rows(self, model: TextToImage) -> TokenEmbedding:
        """The row all methods start from: the one that locating starts from by default."""
        return new_rows(model, self.token, self.noun, start="random")

    def in_company(self, model: TextToImage, each: int) -> Given:
        """The same with ``each`` collages a picture, and the pictures as often, so that half of them are collages."""
        words = f"{self.token} {self.noun}"
        made = in_company(model, self.pictures, subject=words, each=each, seed=SEED)
        return replace(self, images=made.images, captions=tuple(map(str, made.captions or ())))

    def row_edit(self, model: TextToImage, base: Fingerprint) -> Edit:
        """The token alone: the base model of this race."""
        return Edit((self.rows(model),), base, {"method": "token only"})


def preserved(model: TextToImage, given: Given, count: int, seed: int = SEED) -> CaptionedImages:
    """Half diverse scenes, half the class noun: what locating and tuning preserve by default."""
    return finished(preservation_examples(model, given.noun, kind="both", count=count, seed=seed))


def loss_of(
    model: TextToImage, given: Given, base: Fingerprint, *, batch: int, count: int, seed: int = SEED
) -> ConceptLoss:
    """The loss of all methods; ``count`` 0 leaves the preservation pictures out."""
    kept = preserved(model, given, count, seed) if count else None
    chosen = subject(model, given.pictures, noun=given.noun, rows=given.rows(model), preserved=kept)
    return chosen.loss(model, base, prior_weight=1.0, batch=batch, seed=seed)


def first_row(rows: TokenEmbedding) -> Tensor:
    """The row of a model with one text encoder."""
    (row,) = rows.rows.values()
    return torch.as_tensor(row)
