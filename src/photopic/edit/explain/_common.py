"""What the probes of an edit share: a report with pictures, what an edit is called in prompts, and the model before and with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import UInt8

from photopic.core.config import Config, Flags
from photopic.core.edits import Edit, TokenEmbedding, TokenResidual
from photopic.core.errors import EditError
from photopic.core.results import Map, Report
from photopic.data.captioned import CaptionedImages
from photopic.data.scenes import with_article
from photopic.learning.losses.denoising import ConceptLoss, Evaluation, encode_examples
from photopic.learning.subject.new_token import default_caption, subject_captions

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

Pictures = UInt8[np.ndarray, "n height width 3"]


@dataclass(frozen=True)
class Probe(Report):
    """A report with what it looked at.

    Attributes:
        pictures: Drawn pictures, or pictures of numbers, by name.
        maps: Maps by name.
    """

    pictures: Mapping[str, Pictures] = field(default_factory=dict)
    maps: Mapping[str, Map] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(Config):
    """How probes draw."""

    seed: Annotated[int, Ge(0)] = 0  # seed of the first picture; picture i uses seed + i
    pictures: Annotated[int, Ge(1), Le(12), Flags("--count", "-n", "--pictures")] = 6  # pictures of each kind
    steps: Annotated[int, Ge(1)] = 25  # denoising steps of a picture
    guidance: Annotated[float, Ge(1)] = 5.0  # how strongly the prompt is followed

    def draw(self, model: TextToImage, prompt: str) -> Pictures:
        """Pictures of a prompt by the model as it is."""
        seeds = range(self.seed, self.seed + self.pictures)
        return model.generate(prompt, seeds=list(seeds), steps=self.steps, guidance=self.guidance)


PROBE_SETTINGS = ProbeSettings()


@dataclass(frozen=True)
class SubjectWords:
    """What an edit is for.

    Attributes:
        token: Its new word, the first of them.
        noun: Its class noun.
        stands_alone: Whether the word is said in the noun's place and not before it.
    """

    token: str
    noun: str
    stands_alone: bool = False

    @classmethod
    def of(cls, edit: Edit, token: str | None = None) -> SubjectWords:
        """Read it from the edit.

        Raises:
            EditError: If the edit adds no token, not that one, or its noun is unknown.
        """
        if not edit.tokens or token not in (None, *edit.tokens):
            raise EditError(f"edit: expected the new word {token or 'of a subject'}, found {edit.tokens or 'none'}")
        chosen = token or edit.tokens[0]
        noun = edit.subject.noun_of(chosen) if edit.subject else ""
        if not noun:
            raise EditError(f"edit: expected the class noun of {chosen} in its provenance, found none")
        return cls(chosen, noun, bool(edit.of(TokenResidual)))

    @property
    def prompt(self) -> str:
        """A plain prompt with the token."""
        said = with_article(self.token) if self.stands_alone else default_caption(self.noun, self.token)
        return f"{said} on a red background"

    def without(self, prompt: str) -> str:
        """The prompt without the token."""
        return self.captions(1, [prompt])[1][0]

    def captions(self, count: int, given: Sequence[str | None] | None) -> tuple[list[str], list[str]]:
        """Captions of pictures, with the token and without it; a picture without one is the subject."""
        if not self.stands_alone:
            return subject_captions(count, self.noun, self.token, given)
        said = [text or default_caption(self.noun) for text in given or [None] * count]
        plain = [text.replace(self.token, self.noun) for text in said]
        _, without = subject_captions(count, self.noun, self.token, plain)
        noun = re.compile(re.escape(self.noun), re.IGNORECASE)
        return [noun.sub(lambda _: self.token, text, count=1) for text in without], without


def origin(edit: Edit) -> dict[str, Any]:
    """What an edit is, for a provenance."""
    return {"base": edit.base.name, "tokens": list(edit.tokens), "method": edit.provenance.get("method")}


def state(model: TextToImage, edit: Edit, kind: str) -> AbstractContextManager[Any]:
    """The model ``before``: the new words known and every weight as it was; or ``with`` the edit.

    Raises:
        EditError: If the edit is for another model.
    """
    if kind == "with":
        return model.edits.applied(edit)
    rows = edit.of(TokenEmbedding)
    return model.edits.applied(replace(edit, parts=rows)) if rows else nullcontext()


def losses(model: TextToImage, images: CaptionedImages, subject: SubjectWords, count: int) -> Evaluation:
    """Reconstruction loss of the model as it is, with the token in the captions and without, on the fixed set."""
    with_token, without = subject.captions(len(images), images.captions)
    concept, plain = (encode_examples(model, images.images, said) for said in (with_token, without))
    return ConceptLoss(model, concept, plain, None).evaluate(count=count)
