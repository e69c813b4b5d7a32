"""Several things out of one picture: a new word for each masked thing, so that they can be drawn apart and together.

Each step names a random set of the things; the loss of denoising counts inside the union of their masks, and the cross-attention
of each thing's words is drawn to its mask. First the words learn at a high rate, then words and weights at a low one.

Paper: Break-A-Scene: Extracting Multiple Concepts from a Single Image (arXiv:2305.16311). Changed: a word stands before a noun, as
everywhere here, and both are read for the attention loss; the text encoder learns in its new rows alone; by default only keys and
values of cross-attention learn, at rates for some hundred steps of several samples; what is preserved is that of the other
subject learners. Claims: ``break_a_scene.*`` of benchmarks/tune/break_a_scene.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from photopic.core.config import Config, Flags, Sentence
from photopic.core.edits import DenseDelta, Edit, Part
from photopic.core.errors import DataError
from photopic.core.events import Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.nn.replaced import replaced
from photopic.core.runs import Run
from photopic.data.captioned import CaptionedImages
from photopic.data.masked_picture import MaskedPicture
from photopic.data.scenes import with_article
from photopic.learning.losses.attention_masks import Probabilities, attention_mask_loss, watched_attention
from photopic.learning.losses.denoising import Examples, encode_examples, uniform_draws
from photopic.learning.parameters.trained_tokens import TrainedTokens
from photopic.learning.subject.new_token import check_noun, check_token, new_rows
from photopic.learning.subject.preservation import Preservation, preservation_examples
from photopic.models.text_to_image.attention_weights import attention_weights, check_plain
from photopic.models.text_to_image.handle import TextToImage


@dataclass(frozen=True, kw_only=True)
class BreakASceneConfig(Config):
    """How to learn; every field is written into the edit."""

    embedding_steps: Annotated[int, Ge(0)] = 150  # steps in which the new words learn alone
    weight_steps: Annotated[int, Ge(0)] = 150  # steps after them, in which weights learn too; 0 learns words alone
    embedding_lr: Annotated[float, Gt(0)] = 2e-3  # size of a step of the words alone
    weight_lr: Annotated[float, Gt(0)] = 1e-3  # size of a step of words and weights together
    weights: Literal["cross", "all"] = "cross"  # what learns: keys and values of cross-attention, or all of the UNet
    attention_weight: Annotated[float, Ge(0)] = 0.01  # weight of each word's attention to its mask; 0 leaves it out
    union: bool = True  # name random sets of the things together; without it one thing at a time
    template: Annotated[str, Sentence()] = "{}"  # sentence that is learnt from, {} where the things go
    batch: Annotated[int, Ge(1)] = 4  # samples a step, and as many to preserve; lower it when memory is short
    prior_weight: Annotated[float, Ge(0)] = 1.0  # weight of what must not change, against the likeness
    preservation: Preservation = "both"  # what must keep looking as it does: diverse scenes, each noun's class, or both
    preservation_count: Annotated[int, Ge(1)] = 100  # pictures of what must not change, for each noun
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same

    @property
    def steps(self) -> int:
        """Of both phases."""
        return self.embedding_steps + self.weight_steps


PAPER = BreakASceneConfig(
    embedding_steps=400,
    weight_steps=400,
    embedding_lr=5e-4,
    weight_lr=2e-6,
    weights="all",
    template="a photo of {}",
    batch=1,
)


@method(
    paper="arXiv:2305.16311",
    claims="break_a_scene.",
    presets={"paper": PAPER},
    command="tune scene",
    examples=("Example: photopic tune scene shelf.json -o shelf.edit",),
    after=('next: photopic generate "{prompt}" --with {output} -n 8 -o out/',),
)
def break_a_scene(
    model: TextToImage,
    scene: MaskedPicture,
    *,
    preserved: Annotated[CaptionedImages | None, Flags()] = None,
    config: BreakASceneConfig = BreakASceneConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Learn each thing of one picture as a word of its own, so that they can be drawn alone and together.

    Interrupted with Ctrl-C, the same command goes on where it stopped.

    Args:
        model: A bundled model, a folder with a diffusers pipeline, or a hub id. Its weights are never written.
        scene: The picture and a mask for each thing, named by a new word and what it is, such as ``<one> bear``.
        preserved: Pictures and captions to preserve; None makes them as ``config.preservation`` says.
        config: How to learn.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The new words, and what is added to the weights.

    Raises:
        DataError: If a region is not called by a new word and a known noun, the picture does not fit, or no step is asked for.
        EditError: If a word is in the vocabulary already, or two regions have one word.
        ModelError: If the model has no UNet.
        RunMismatchError: If the run folder holds another learning.

    Example:
        >>> edit = break_a_scene(model, read_masked_picture("shelf.json", model.image_size))  # doctest: +SKIP
        >>> edit.tokens  # doctest: +SKIP
        ('<one>', '<two>')
    """
    model.check_unet("whose attention is not learnt from masks")
    things = [_named(model, region.words) for region in scene.layout.regions]
    side = model.image_size
    if tuple(scene.image.shape) != (3, side, side):
        raise DataError(f"scene: {model.name} draws {side}x{side} pixels, found {tuple(scene.image.shape)}; resize it")
    if not config.steps:
        raise DataError(
            "steps: expected a step of one of the phases, found none; raise embedding_steps or weight_steps"
        )
    has_prior = config.prior_weight > 0 and config.weight_steps > 0  # what is kept names no new word: nothing for rows
    if preserved is None and has_prior:
        preserved = yield from _kept(model, [noun for _, noun in things], config, run)
    learner = _Scene(model, scene, things, preserved if has_prior else None, config)
    yield from fit(learner, config.steps, run=run)
    facts = {
        "prompt": _sentence(scene, range(len(things))),
        "parents": [{"token": token, "noun": noun} for token, noun in things],  # the noun of each word
        "regions": [
            {"words": each.words, "share": float(each.coverage(side, side).mean())} for each in scene.layout.regions
        ],
    }
    return Edit(learner.parts(), model.fingerprint(*learner.weights), facts)


class _Scene:
    """The new rows, the weights, their optimisers in two phases, and the loss."""

    def __init__(
        self,
        model: TextToImage,
        scene: MaskedPicture,
        things: Sequence[tuple[str, str]],
        preserved: CaptionedImages | None,
        config: BreakASceneConfig,
    ):
        self.model, self.scene, self.config = model, scene, config
        self.tokens = TrainedTokens(model, [new_rows(model, token, noun, start="noun") for token, noun in things])
        self.picture = encode_examples(model, scene.image[None], [" and ".join(noun for _, noun in things)])
        self.prior: Examples | None = None
        if preserved is not None:
            self.prior = encode_examples(model, preserved.images, [each or "" for each in preserved.captions or ()])
        self.base = _weights(model, config) if config.weight_steps else {}
        self.weights = {name: each.float().clone().requires_grad_() for name, each in self.base.items()}
        rows, rates = self.tokens.values, (config.embedding_lr, config.weight_lr)
        self.phases = [_optimized(rows, rates[0]), _optimized(rows | self.weights, rates[1])]
        height, width = self.picture.latents.shape[-2:]
        self.masks = torch.from_numpy(scene.layout.cells(height, width)).to(model.device)  # (things, h, w)

    def step(self, step: int) -> Mapping[str, float]:
        config, model = self.config, self.model
        tuned = step >= config.embedding_steps
        sets = [self._set(step, slot) for slot in range(config.batch)]
        captions = [_sentence(self.scene, each, config.template) for each in sets]
        draws = uniform_draws(self.picture, config.batch, model.timesteps, (config.seed, "scene", step))
        latents, times, drawn = self.picture.latents[draws.index], draws.timesteps, draws.noise
        with self._in_force(tuned) as seen:
            conditioning = model.encode_prompts(captions)
            positions = [
                {thing: model.token_positions(caption, self.scene.layout.regions[thing].words) for thing in each}
                for each, caption in zip(sets, captions, strict=True)
            ]
            if tuned and self.prior is not None:
                kept = uniform_draws(self.prior, config.batch, model.timesteps, (config.seed, "prior", step))
                latents = torch.cat([latents, self.prior.latents[kept.index]])
                times, drawn = torch.cat([times, kept.timesteps]), torch.cat([drawn, kept.noise])
                conditioning = conditioning.joined(self.prior.conditioning[kept.index])
            noisy = model.schedule.add_noise(latents, drawn, times).to(model.dtype)
            prediction = model.predict(noisy, times, conditioning)
        noise = model.schedule.to_noise(prediction.float(), noisy.float(), times)
        errors = (noise - drawn).square()  # (batch or 2 batch, c, h, w)
        union = torch.stack([self.masks[list(each)].any(0) for each in sets])[:, None]  # (batch, 1, h, w)
        # the mean over all cells, as the paper: a small thing counts less than a large one
        masked = (errors[: config.batch] * union).mean()  # equation 2
        attention = attention_mask_loss(seen, self.scene.layout, positions) if seen else masked.new_zeros(())
        prior = errors[config.batch :].mean() if len(errors) > config.batch else masked.new_zeros(())
        total = masked + config.attention_weight * attention + config.prior_weight * prior
        self.phases[tuned].update(total, step=step)
        return {"loss": masked.item(), "attention": attention.item(), "prior": prior.item()}

    def state(self) -> dict[str, Tensor]:
        return {
            f"{phase}.{name}": each for phase, held in enumerate(self.phases) for name, each in held.state().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for phase, held in enumerate(self.phases):
            mark = f"{phase}."
            held.restore({name.removeprefix(mark): each for name, each in state.items() if name.startswith(mark)})

    def parts(self) -> tuple[Part, ...]:
        """What was learnt, in half precision."""
        deltas = {name: (each.detach() - self.base[name].float()).half() for name, each in self.weights.items()}
        return (*self.tokens.parts(), *([DenseDelta(deltas)] if deltas else []))

    def _set(self, step: int, slot: int) -> tuple[int, ...]:
        """The things a sample names, in the order in which it names them: first how many, then which."""
        rng = np.random.default_rng((self.config.seed, step, slot))
        count = len(self.masks)
        size = int(rng.integers(1, count + 1)) if self.config.union else 1
        return tuple(int(each) for each in rng.permutation(count)[:size])

    @contextmanager
    def _in_force(self, tuned: bool) -> Iterator[Probabilities]:
        """Words, and in the second phase weights, as they are now; gives the attention that is seen meanwhile."""
        model = self.model
        weights = {name: each.to(model.dtype) for name, each in self.weights.items()} if tuned else {}
        watching: AbstractContextManager[Probabilities] = nullcontext([])
        if self.config.attention_weight:
            watching = watched_attention(model.unet)
        with self.tokens.applied(), replaced(model.components, weights), watching as seen:
            yield seen


def _optimized(tensors: Mapping[str, Tensor], rate: float) -> OptimizedTensors:
    return OptimizedTensors(tensors, torch.optim.AdamW(tensors.values(), lr=rate), lambda step: rate)


def _named(model: TextToImage, words: str) -> tuple[str, str]:
    """The new word of a region and its noun."""
    token, _, noun = words.partition(" ")
    if not noun.strip():
        raise DataError(f"region {words!r}: expected a new word and what it is, such as '<one> bear', found one word")
    check_token(model, token)
    check_noun(model, noun)
    return token, noun


def _sentence(scene: MaskedPicture, things: Sequence[int], template: str = "{}") -> str:
    """``a <one> bear, a <two> teapot and a <three> cactus``."""
    named = [with_article(scene.layout.regions[each].words) for each in things]
    return template.format(" and ".join(filter(None, [", ".join(named[:-1]), named[-1]])))


def _weights(model: TextToImage, config: BreakASceneConfig) -> dict[str, Tensor]:
    """The weights that learn, by the names of edits; the model's own, detached."""
    if config.weights == "cross":
        found = attention_weights(model)
    else:
        found = {f"unet.{name}": each.detach() for name, each in model.unet.named_parameters()}
    check_plain(model, found)
    return found


def _kept(
    model: TextToImage, nouns: Sequence[str], config: BreakASceneConfig, run: Run | None
) -> Steps[CaptionedImages]:
    """What must not change, for each noun once."""
    found = []
    for number, noun in enumerate(dict.fromkeys(nouns)):
        kind, count, seed = config.preservation, config.preservation_count, config.seed + number
        part = run and run.part(f"preserved{number}")
        found.append((yield from preservation_examples(model, noun, kind=kind, count=count, seed=seed, run=part)))
    return CaptionedImages(
        torch.cat([each.images for each in found]), [text for each in found for text in each.captions or ()]
    )
