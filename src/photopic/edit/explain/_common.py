"""What the probes of an edit share: a report with pictures, what an edit is called in prompts, and the model before and with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from photopic.core.edits import Edit, TokenEmbedding, TokenResidual
from photopic.core.errors import EditError
from photopic.core.results import Map, Report
from photopic.learning.losses.denoising import ConceptLoss, Evaluation, encode_examples
from photopic.learning.subject.new_token import subject_captions

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


@dataclass(frozen=True)
class ProbeSettings:
    """How probes draw.

    Attributes:
        seed: Of the first picture; picture i uses seed + i.
        pictures: How many of each kind.
        steps: Denoising steps.
        guidance: Classifier-free guidance scale.
    """

    seed: int = 0
    pictures: int = 6
    steps: int = 25
    guidance: float = 5.0

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
        return f"a {self.token if self.stands_alone else f'{self.token} {self.noun}'} on a red background"

    def without(self, prompt: str) -> str:
        """The prompt without the token."""
        return self.captions(1, [prompt])[1][0]

    def captions(self, count: int, given: Sequence[str] | None) -> tuple[list[str], list[str]]:
        """Captions of pictures, with the token and without it."""
        if not self.stands_alone:
            return subject_captions(count, self.noun, self.token, given)
        plain = [f"a {self.noun}"] * count if given is None else [text.replace(self.token, self.noun) for text in given]
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


def losses(
    model: TextToImage,
    images: Float[Tensor, "n 3 height width"],
    captions: Sequence[str] | None,
    subject: SubjectWords,
    count: int,
) -> Evaluation:
    """Reconstruction loss of the model as it is, with the token in the captions and without, on the fixed set."""
    with_token, without = subject.captions(len(images), captions)
    concept, plain = encode_examples(model, images, with_token), encode_examples(model, images, without)
    return ConceptLoss(model, concept, plain, None).evaluate(count=count)
