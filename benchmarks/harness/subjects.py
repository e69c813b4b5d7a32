"""What the benchmarks of customisation share: held-out subjects, prompts, kept edits and samples.

Everything slow is kept under ``runs/customisation``, so that the benchmarks of the family share their located edits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from benchmarks.harness.cache import ResultCache, content_of
from benchmarks.harness.code import code_of
from photopic.core.edits import Edit, TokenEmbedding, ZeroedWeights
from photopic.data import scenes, splits
from photopic.data.captioned import CaptionedImages
from photopic.data.emoji_world import HELD_OUT_STYLE
from photopic.locate.concept_neurons import ConceptNeuronsConfig, concept_neurons
from photopic.metrics.oracle import Oracle
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.subject.located_weights import LocatedWeightsConfig, located_weights

TOKEN = "<mine>"
REFERENCES = ("red", "blue", "yellow", "white", "green")  # backgrounds of the five pictures a user would give
JUDGED_ON = ("orange", "teal", "purple", "pink", "gray", "brown")  # of the pictures similarity is measured to
COLOURS = tuple(scenes.COLOURS)
LOCATING, TUNING = "photopic.locate.concept_neurons", "photopic.tune.subject.located_weights"
DRAWING = "photopic.models.text_to_image.handle"
# Chosen before any result, to spread over animals, plants, food, transport and things.
EIGHT = ("panda", "zebra", "parrot", "tropical fish", "strawberry", "doughnut", "fire engine", "violin")
THREE = ("panda", "strawberry", "violin")


def reference(name: str, backgrounds: Sequence[str] = REFERENCES, seed: int = 0) -> CaptionedImages:
    """One picture a background, slightly moved and resized, (n, 3, 64, 64); captions name the noun and the background."""
    rng = np.random.default_rng((seed, len(backgrounds), *name.encode()))
    images, captions = [], []
    for colour in backgrounds:
        side = rng.uniform(0.68, 0.86)
        centre = (0.5 + rng.uniform(-0.05, 0.05), 0.5 + rng.uniform(-0.05, 0.05))
        background = scenes.Background(colour)
        scene = scenes.compose([scenes.Placement(name, HELD_OUT_STYLE, centre, side)], background)
        images.append(scene.image)
        captions.append(f"a {TOKEN} {splits.SUBJECTS[name]} on {scenes.with_article(background.phrase)}")
    return CaptionedImages(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1, captions)


def token_prompts(name: str, count: int) -> list[str]:
    """``a <mine> bear on a red background`` over the colours in turn."""
    return [
        f"a {TOKEN} {splits.SUBJECTS[name]} on {scenes.with_article(COLOURS[i % 12] + ' background')}"
        for i in range(count)
    ]


def class_prompts(name: str, count: int) -> list[str]:
    """The same without the token."""
    noun = splits.SUBJECTS[name]
    return [
        f"{scenes.with_article(noun)} on {scenes.with_article(COLOURS[i % 12] + ' background')}" for i in range(count)
    ]


def unrelated_prompts(name: str, count: int) -> list[str]:
    """Other known concepts, never the subject's noun."""
    others = sorted(known for known in splits.KNOWN if splits.SUBJECTS[name] not in known.split())
    rng = np.random.default_rng((3, *name.encode()))
    names = rng.choice(others, count, replace=False)
    return [
        f"{scenes.with_article(str(n))} on {scenes.with_article(COLOURS[i % 12] + ' background')}"
        for i, n in enumerate(names)
    ]


@dataclass(frozen=True)
class Judged:
    """What the oracle says of pictures."""

    embedding: np.ndarray  # (n, 128), of length 1
    alignment: np.ndarray  # text alignment, (n,)


class JudgedModel:
    """A text-to-image model whose pictures an oracle judges, with what is kept of edits and pictures.

    Args:
        model: A handle, a bundled name or a diffusers folder.
        cache: Where located and tuned edits and drawn pictures are kept.
        steps: Denoising steps of every sample.
        guidance: Classifier-free guidance scale.
    """

    def __init__(self, model: str | TextToImage, cache: ResultCache, *, steps: int = 16, guidance: float = 4.0):
        for module in (LOCATING, TUNING, DRAWING):
            code_of(module)  # read now: a file that is edited while the benchmark runs changes no key
        self.model = TextToImage.load(model) if isinstance(model, str) else model
        self.cache, self.steps, self.guidance = cache, steps, guidance
        self.base = self.model.edits.fingerprint()
        self.digest = self.base.digest

    @cached_property
    def oracle(self) -> Oracle:
        """The judge of the model's size of pictures; loaded when first asked."""
        return Oracle.load(side=128 if self.model.image_size == 128 else 64)

    def located(self, name: str, config: ConceptNeuronsConfig) -> Edit:
        """The concept neurons of a subject."""

        def make() -> Edit:
            noun = splits.SUBJECTS[name]
            edit = concept_neurons(self.model, reference(name), noun=noun, token=TOKEN, config=config)
            print(f"{name}: {edit.provenance.get('warning') or 'located'}", flush=True)
            return edit

        return self.cache.edit(self._locating(name, config), make)

    def tuned(self, name: str, located: ConceptNeuronsConfig, config: LocatedWeightsConfig) -> Edit:
        """Tuned values of a subject's located weights, or of a baseline's."""

        def make() -> Edit:
            return located_weights(self.model, self.located(name, located), reference(name), config=config)

        key = {"tuned": config, "located": self._locating(name, located), "code": code_of(TUNING)}
        return self.cache.edit(key, make)

    def drawn(self, prompts: str | Sequence[str], seeds: Sequence[int], **options: Any) -> UInt8[np.ndarray, "n h w 3"]:
        """Pictures with the model's steps and guidance, not kept; ``options`` as ``TextToImage.generate`` takes them."""
        return self.model.generate(prompts, seeds=seeds, **({"steps": self.steps, "guidance": self.guidance} | options))

    def judged(self, edit: Edit | None, prompts: Sequence[str], seeds: Sequence[int]) -> Judged:
        """Draw pictures under an edit or none, unless they are kept, and let the oracle read them; a seed a prompt."""
        key = {"edit": content_of(edit.parts if edit else ()), "of": self.digest}

        def make() -> np.ndarray:
            with self.model.edits.applied(*([] if edit is None else [edit])):
                return self.drawn(prompts, seeds, batch=24)

        scores = self.oracle.score(self.pictures(key, make, prompts, seeds))
        return Judged(scores.embedding.numpy(), self.oracle.text_alignment(scores, list(prompts)))

    def pictures(
        self, key: Mapping[str, Any], make: Callable[[], np.ndarray], prompts: Sequence[str], seeds: Sequence[int]
    ) -> UInt8[np.ndarray, "n h w 3"]:
        """Pictures kept under what is in force (``key``), the prompts and the seeds; ``make`` draws them."""
        asked = {"prompts": prompts, "seeds": seeds, "steps": self.steps, "guidance": self.guidance}
        return self.cache.array({**key, "drawn": asked, "code": code_of(DRAWING)}, make)

    def similarity(self, name: str, sample: Judged) -> np.ndarray:
        """Oracle subject similarity of each picture: mean cosine to real pictures of the subject that were not given."""
        return (sample.embedding @ self.truth(name).T).mean(1)

    def truth(self, name: str) -> np.ndarray:
        """Oracle embeddings of real pictures of the subject on backgrounds that were not given, (6, 128)."""
        return self.oracle.score(reference(name, JUDGED_ON, seed=1).images).embedding.numpy()

    def token_only(self, name: str, config: ConceptNeuronsConfig) -> Edit:
        """The base model that knows the token's row and nothing else: what shutting is compared with."""
        located = self.located(name, config)
        rows = tuple(part for part in located.parts if isinstance(part, TokenEmbedding))
        return Edit(rows, located.base, {"method": "token only"})

    def _locating(self, name: str, config: ConceptNeuronsConfig) -> dict[str, Any]:
        """All that decides the concept neurons of a subject."""
        decides = {"located": name, "noun": splits.SUBJECTS[name], "config": config, "of": self.digest}
        return decides | {"data": reference(name).digest(), "code": code_of(LOCATING)}


def shut(edit: Edit) -> dict[str, Tensor]:
    """The shut positions of an edit by name."""
    return dict(next(part for part in edit.parts if isinstance(part, ZeroedWeights)).indices)


def with_shut(edit: Edit, positions: Mapping[str, Tensor], base: Any) -> Edit:
    """The same token with another shut set."""
    rows = tuple(part for part in edit.parts if isinstance(part, TokenEmbedding))
    return Edit((ZeroedWeights(positions), *rows), base, {"method": "control"})
