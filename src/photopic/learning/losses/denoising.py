"""The concept-implanting loss: how well a model denoises a few pictures of a subject, plus what it must not forget.

``L_con = L_rec + lambda * L_pre`` with ``L = E ||eps_hat(x_t, t, c) - z||^2``, in epsilon form whatever the model
predicts, the timestep uniform. Latents and text conditioning are computed once; a step runs only the UNet. Changed
weights are handed in by name and used functionally: the model's own parameters are never written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.core.nn.replaced import replaced
from photopic.learning.losses.attention_masks import Probabilities, Said, attention_outside, watched_attention
from photopic.learning.processes import Processes

if TYPE_CHECKING:
    from photopic.data.layout import Layout
    from photopic.models.text_to_image.handle import Conditioning, TextToImage

EVALUATION_SEED = 20230309  # of the fixed noise of every evaluation set; not an option, so that numbers compare
EVALUATED_AT_ONCE = 32  # problems, where memory has no limit
PIXELS_AT_ONCE = 2**20  # encoded or drawn together: the autoencoder's memory grows with them; four pictures of 512x512


@dataclass(frozen=True)
class Examples:
    """Pictures with captions as the UNet sees them.

    Attributes:
        latents: Scaled latents, (n, channels, height, width).
        conditioning: Encoded captions, n rows.
        captions: The captions.
        places: Of each example the things whose place is known; empty where none is of any.
    """

    latents: Float[Tensor, "n c h w"]
    conditioning: Conditioning
    captions: tuple[str, ...]
    places: tuple[Said, ...] = ()

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True)
class Draws:
    """One batch of denoising problems: which example, at which timestep, under which noise."""

    index: Int[Tensor, " batch"]
    timesteps: Int[Tensor, " batch"]
    noise: Float[Tensor, "batch c h w"]


class Losses(NamedTuple):
    """The parts of one step's loss; ``total`` is differentiable."""

    total: Float[Tensor, ""]
    concept: Float[Tensor, ""]
    prior: Float[Tensor, ""]
    attention: float = 0.0  # the subject's part alone, without its weight; in ``gradients``


@dataclass(frozen=True)
class Limits:
    """How much of a step is in memory at a time; the losses and gradients are the same to rounding.

    Attributes:
        at_once: Denoising problems that go through the UNet together; None: all of a step.
        recompute: Keep only each block's input and compute the rest again on the way back: less memory, a third more time.
        pixels: Of the pictures that are encoded or drawn together; at least one picture is.
    """

    at_once: int | None = None
    recompute: bool = False
    pixels: int = PIXELS_AT_ONCE

    def pictures(self, side: int) -> int:
        """How many square pictures are encoded or drawn together."""
        return max(1, self.pixels // side**2)


UNLIMITED = Limits()


@dataclass(frozen=True)
class Evaluation:
    """Losses on the fixed evaluation set.

    Attributes:
        concept: L_rec with the new token in the prompt.
        class_prompt: L_rec of the same pictures with the prompt that lacks the token.
        prior: L_pre.
    """

    concept: float
    class_prompt: float
    prior: float

    @property
    def identifier_gap(self) -> float:
        """How much better the new token explains the subject than the class noun alone; above zero is good."""
        return self.class_prompt - self.concept


def encode_examples(
    model: TextToImage,
    images: Float[Tensor, "n 3 height width"],
    captions: Sequence[str],
    limits: Limits = UNLIMITED,
    layouts: Sequence[Layout | None] = (),
) -> Examples:
    """Encode pictures and captions once, without gradients.

    Args:
        model: The model that will denoise them.
        images: In -1 to 1, as large as the model's own.
        captions: One a picture.
        limits: How many pictures are encoded together.
        layouts: One a picture, or none at all: where the things of its caption are.

    Raises:
        DataError: If there are no pictures, another number of captions or layouts than of pictures, or a caption does not say the
            words of a region.

    Example:
        >>> len(encode_examples(photopic.load("emoji-diffusion"), images, ["a bear"]))  # doctest: +SKIP
        1
    """
    if not len(images) or len(images) != len(captions):
        raise DataError(f"{len(images)} images with {len(captions)} captions: expected at least one, one caption each")
    if layouts and len(layouts) != len(images):
        raise DataError(f"{len(images)} images with {len(layouts)} layouts: expected one each, or none at all")
    places = tuple(_places(model, caption, layout) for caption, layout in zip(captions, layouts, strict=False))
    together = min(32, limits.pictures(images.shape[-1]))
    with torch.no_grad():
        chunks = [model.encode_images(part.to(model.device)) for part in images.split(together)]
        conditioning = model.encode_prompts(list(captions))
    return Examples(torch.cat(chunks).detach().float(), conditioning, tuple(captions), places if any(places) else ())


def _places(model: TextToImage, caption: str, layout: Layout | None) -> Said:
    try:
        return [(model.token_positions(caption, each.words), each) for each in (layout.regions if layout else ())]
    except ModelError as error:
        raise DataError(f"layout of a picture: {error}") from None


def uniform_draws(examples: Examples, batch: int, timesteps: int, key: Sequence[object]) -> Draws:
    """A random batch; sample i depends on ``key`` and i only, not on the batch size or on what was drawn before.

    Args:
        examples: What to draw from.
        batch: How many problems.
        timesteps: Number of timesteps of the scheduler; drawn uniformly.
        key: What the draw is a pure function of, such as (seed, "concept", step).
    """
    index, times, noise = [], [], []
    for slot in range(batch):
        generator = _generator(*key, slot)
        index.append(torch.randint(len(examples), (), generator=generator))
        times.append(torch.randint(timesteps, (), generator=generator))
        noise.append(torch.randn(examples.latents.shape[1:], generator=generator))
    return _to(Draws(torch.stack(index), torch.stack(times), torch.stack(noise)), examples.latents.device)


def stratified_draws(examples: Examples, count: int, timesteps: int, key: Sequence[object] = ()) -> Draws:
    """The fixed evaluation set: one problem per equal slice of the timesteps, examples in turn, fixed noise."""
    place = torch.arange(count)
    shape = examples.latents.shape[1:]
    noise = [torch.randn(shape, generator=_generator(EVALUATION_SEED, *key, i)) for i in range(count)]
    times = ((place + 0.5) / count * timesteps).long()  # the middle of each slice
    return _to(Draws(place % len(examples), times, torch.stack(noise)), examples.latents.device)


class ConceptLoss:
    """L_rec + prior_weight * L_pre of one model as a function of some of its weights.

    Args:
        model: The frozen model.
        concept: The subject's pictures, captions with the new token.
        class_prompt: The same pictures, captions without the token; only evaluated.
        prior: What must be preserved, or None.
        prior_weight: lambda; 0 or more.
        batch: Problems a step of each of the two parts.
        seed: Of the draws.
        limits: How much is in memory at a time.
        attention: Weight of the attention that a subject's words give to what lies outside their places, where these are known;
            in ``gradients``, without recomputing.

    Example:
        >>> loss = ConceptLoss(model, concept, class_prompt, prior)     # doctest: +SKIP
        >>> loss.step(0, {name: mask * weight}).total.backward()        # doctest: +SKIP
    """

    def __init__(
        self,
        model: TextToImage,
        concept: Examples,
        class_prompt: Examples,
        prior: Examples | None,
        *,
        prior_weight: float = 1.0,
        batch: int = 8,
        seed: int = 0,
        limits: Limits = UNLIMITED,
        attention: float = 0.0,
    ):
        if attention and not concept.places:
            raise DataError("attention: expected pictures with layouts, which say where their things are, found none")
        self.limits, self.attention = limits, attention
        self.model, self.concept, self.class_prompt, self.prior = model, concept, class_prompt, prior
        self.prior_weight, self.batch, self.seed = prior_weight, batch, seed
        self.timesteps = model.timesteps
        self.processes = Processes()
        self._both = concept if prior is None else _joined(concept, prior)

    def errors(
        self, examples: Examples, draws: Draws, weights: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, " batch"]:
        """Mean squared error of the predicted noise of each problem, in float32.

        Args:
            examples: What ``draws`` points into.
            draws: The problems.
            weights: Replacements of the model's parameters, by ``unet.<name>`` or ``transformer.<name>``; the model is left
                as it is.
        """
        latents, conditioning = examples.latents[draws.index], examples.conditioning[draws.index]
        noisy = self.model.schedule.add_noise(latents, draws.noise, draws.timesteps).to(self.model.dtype)
        with replaced(self.model.components, weights or {}):
            prediction = self.model.predict(noisy, draws.timesteps, conditioning)  # (batch, c, h, w)
        noise = self.model.schedule.to_noise(prediction.float(), noisy.float(), draws.timesteps)
        return (noise - draws.noise).square().flatten(1).mean(1)  # (batch, c, h, w) -> (batch,)

    def draws(self, step: int) -> Draws:
        """The problems of a step: ``batch`` of the subject, then ``batch`` of the preservation set."""
        concept = uniform_draws(self.concept, self.batch, self.timesteps, (self.seed, "concept", step))
        if self.prior is None:
            return concept
        prior = uniform_draws(self.prior, self.batch, self.timesteps, (self.seed, "prior", step))
        return Draws(
            torch.cat([concept.index, prior.index + len(self.concept)]),
            torch.cat([concept.timesteps, prior.timesteps]),
            torch.cat([concept.noise, prior.noise]),
        )

    def step(self, step: int, weights: Mapping[str, Tensor]) -> Losses:
        """The loss of step number ``step``; differentiable in ``weights``."""
        return self._losses(self.errors(self._both, self.draws(step), weights))

    def gradients(
        self, step: int, weights: Mapping[str, Tensor], inputs: Sequence[Tensor]
    ) -> tuple[Losses, list[Tensor]]:
        """The loss of step number ``step``, detached, and its gradients by what the weights are made of.

        As ``step`` and a backward pass, but with no more problems in memory at a time than ``limits`` says, and of several
        processes each does its share of the problems: all get the same losses and gradients.

        Args:
            step: Its number.
            weights: Replacements by name.
            inputs: Tensors that require gradients and that the weights depend on.
        """
        draws = self.draws(step)
        share = torch.full((len(draws.index),), 1 / self.batch, device=draws.index.device)
        share[self.batch :] *= self.prior_weight  # total = mean of the subject's errors + lambda * mean of the others'
        own = self.processes.share(len(share))
        draws, whole, share = _slice(draws, own), len(share), share[own]
        count = len(share)
        at_once = min(self.limits.at_once or count, count)
        errors: list[Tensor] = []
        sums: list[Tensor] = []
        outside = share.new_zeros(())
        subjects = len(range(self.batch)[own])  # of this process's problems, which come first
        with replaced(self.model.components, weights), self._recomputing(), self._watching() as seen:
            for start in range(0, count, at_once):  # held through the backward pass
                seen.clear()
                part = _slice(draws, slice(start, start + at_once))
                found = self.errors(self._both, part)
                errors.append(found.detach())
                total = (found * share[start : start + at_once]).sum()
                if seen and (said := [self._both.places[index] for index in part.index[: max(0, subjects - start)]]):
                    missed = attention_outside(seen, said).sum() / self.batch
                    total, outside = total + self.attention * missed, outside + missed.detach()
                parts = torch.autograd.grad(total, inputs, retain_graph=start + at_once < count)
                sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else list(parts)
                seen.clear()
                del found, total  # with them goes the graph of these problems, before the next one is made
        losses = self._losses(self.processes.gathered(torch.cat(errors), whole))
        if self.attention:
            losses = losses._replace(attention=float(self.processes.sums([outside])[0]))
        return losses, self.processes.sums(sums)

    def _watching(self) -> AbstractContextManager[Probabilities]:
        """What the words of the prompts are read by, if the loss asks for it."""
        return watched_attention(self.model.unet) if self.attention else nullcontext([])

    def first_gradient(self, weights: Mapping[str, Tensor]) -> None:
        """The gradient of the first problem alone, for nothing but what it costs."""
        with replaced(self.model.components, weights), self._recomputing():
            error = self.errors(self._both, _slice(self.draws(0), slice(1)))
            torch.autograd.grad(error.sum(), list(weights.values()))

    def _losses(self, errors: Float[Tensor, " batch"]) -> Losses:
        concept = errors[: self.batch].mean()
        prior = errors[self.batch :].mean() if self.prior is not None else torch.zeros_like(concept)
        return Losses(concept + self.prior_weight * prior, concept, prior)

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        """Activation checkpointing of the network's blocks, if the limits ask for it."""
        if not self.limits.recompute:
            yield
            return
        self.model.network.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self.model.network.disable_gradient_checkpointing()

    def evaluate(self, weights: Mapping[str, Tensor] | None = None, count: int = 48) -> Evaluation:
        """Losses on the fixed stratified set.

        Args:
            weights: Replacements by name; None evaluates the model as it is.
            count: Problems of each part.
        """
        prior = self._mean(self.prior, weights, count) if self.prior is not None else 0.0
        return Evaluation(self.evaluate_concept(weights, count), self._mean(self.class_prompt, weights, count), prior)

    def evaluate_concept(self, weights: Mapping[str, Tensor] | None = None, count: int = 48) -> float:
        """L_rec alone on the fixed stratified set; arguments as ``evaluate``."""
        return self._mean(self.concept, weights, count)

    @torch.no_grad()
    def _mean(self, examples: Examples, weights: Mapping[str, Tensor] | None, count: int) -> float:
        draws, chunk = stratified_draws(examples, count, self.timesteps), self.limits.at_once or EVALUATED_AT_ONCE
        draws = _slice(draws, self.processes.share(count))
        parts = [_slice(draws, slice(start, start + chunk)) for start in range(0, len(draws.index), chunk)]
        errors = torch.cat([self.errors(examples, part, weights) for part in parts])
        return self.processes.gathered(errors, count).mean().item()


def _generator(*key: object) -> torch.Generator:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _joined(first: Examples, second: Examples) -> Examples:
    conditioning = first.conditioning.joined(second.conditioning)
    latents, places = torch.cat([first.latents, second.latents]), first.places and (*first.places, *[()] * len(second))
    return Examples(latents, conditioning, first.captions + second.captions, places)


def _slice(draws: Draws, places: slice) -> Draws:
    return Draws(draws.index[places], draws.timesteps[places], draws.noise[places])


def _to(draws: Draws, device: torch.device) -> Draws:
    return Draws(draws.index.to(device), draws.timesteps.to(device), draws.noise.to(device))
