"""The family's learner: which patches are masked, what is read, what has to be said of the masked ones, and what else counts.

A method is a ``MaskedTask``: its masks, its input, its target, its further losses. The encoder reads visible patches only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from photopic.core.events import Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.runs import Run
from photopic.learning.few_shot_batches import Training, drawn, pictures_of
from photopic.models.maskable_vit import (
    POSITIONS,
    at_places,
    decode,
    embed,
    encode,
    maskable_vit,
    patches_of,
    visible_places,
)
from photopic.models.masked_autoencoder import MaskedAutoencoder
from photopic.models.networks import fastest, put_on
from photopic.models.preprocessing import Preprocessing

WARMUP = 0.05  # of the steps, over which the rate rises
DECAY = 0.05  # of the weights of matrices, times the rate


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(Training):
    """What to train and how."""

    size: Annotated[int, Ge(16)] = 48  # side of the pictures in pixels
    patch: Annotated[int, Ge(2)] = 4  # side of a patch in pixels; the side of a picture is a multiple of it
    width: Annotated[int, Ge(32)] = 96  # channels of the encoder, a multiple of 32
    depth: Annotated[int, Ge(1)] = 4  # layers of the encoder
    decoder_width: Annotated[int, Ge(32)] = 64  # channels of the decoder, a multiple of 32; it is used in training only
    decoder_depth: Annotated[int, Ge(1)] = 1  # layers of the decoder
    ratio: Annotated[float, Gt(0), Lt(1)] = 0.75  # share of the patches that are masked
    steps: Annotated[int, Ge(1)] = 4000  # steps of learning; more takes longer
    lr: Annotated[float, Gt(0)] = (
        1.5e-3  # size of a step of AdamW at its peak; it rises at first, then falls along a half cosine
    )
    batch: Annotated[int, Ge(1)] = 64  # pictures a step, all where there are fewer

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        return super().rate(step) * min(1.0, (step + 1) / (WARMUP * self.steps))

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.size // self.patch

    @property
    def visible(self) -> int:
        """Patches of a picture that are not masked, one at least."""
        return max(1, self.grid**2 - round(self.ratio * self.grid**2))


@dataclass(frozen=True)
class MaskedBatch:
    """What losses see of a step.

    Attributes:
        pixels: What the encoder was given.
        masked: Where patches were masked.
        places: Of the patches that the encoder read.
        tokens: What it made of them, the class token first.
        predicted: What the decoder says of every patch.
        target: What it should say.
        rng: For what a loss draws.
    """

    pixels: Float[Tensor, "n 3 side side"]
    masked: Bool[Tensor, "n patches"]
    places: Int64[Tensor, "n some"]
    tokens: Float[Tensor, "n encoded width"]
    predicted: Float[Tensor, "n patches values"]
    target: Float[Tensor, "n patches values"]
    rng: np.random.Generator


Pixels: TypeAlias = Float[Tensor, "n 3 side side"]
Masks: TypeAlias = Callable[[int, np.random.Generator], Bool[np.ndarray, "n patches"]]
Loss: TypeAlias = Callable[[MaskedBatch], Float[Tensor, ""]]


def normalised_patches(pixels: Pixels, patch: int) -> Float[Tensor, "n patches values"]:
    """The pixels of each patch less their mean, in their standard deviations (MAE, arXiv:2111.06377, section 4)."""
    patches = patches_of(pixels, patch)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def masked_error(batch: MaskedBatch) -> Float[Tensor, ""]:
    """The mean squared error of masked patches; what is said of visible ones does not count."""
    return (batch.predicted - batch.target).square().mean(-1)[batch.masked].mean()


@dataclass(frozen=True)
class MaskedTask:
    """What makes one method of masked modelling another.

    Attributes:
        masks: Of so many pictures, all with the same number of masked patches.
        target: Of pixels, given the side of a patch: what the decoder has to say of each.
        inputs: What the encoder is given in the place of pixels; None: the pixels.
        loss: Of a batch.
        further: Losses that are added, each with its weight.
        visible_only: Encode visible patches only; else all of them, the masked ones blank.
    """

    masks: Masks
    target: Callable[[Pixels, int], Float[Tensor, "n patches values"]] = normalised_patches
    inputs: Callable[[Pixels, np.random.Generator], Pixels] | None = None
    loss: Loss = masked_error
    further: Sequence[tuple[float, Loss]] = ()
    visible_only: bool = True


class MaskedLearner(OptimizedTensors):
    """A learner of encoder and decoder.

    Args:
        images: To learn from.
        config: What to train and how.
        task: What has to be filled in.
    """

    def __init__(self, images: UInt8[np.ndarray, "n h w 3"], config: MaskedConfig, task: MaskedTask):
        self.images, self.config, self.task = images, config, task
        network = maskable_vit(
            config.size,
            config.patch,
            width=config.width,
            depth=config.depth,
            decoder_width=config.decoder_width,
            decoder_depth=config.decoder_depth,
            seed=config.seed,
        )
        put_on(network, fastest())
        sides = (config.size, config.size)
        self.model = MaskedAutoencoder(network, Preprocessing(resize=sides, mean=(0.5,) * 3, std=(0.5,) * 3))
        tensors = {name: each.requires_grad_() for name, each in network.named_parameters() if name not in POSITIONS}
        decayed = [each for each in tensors.values() if each.ndim > 1]
        others = [each for each in tensors.values() if each.ndim < 2]
        groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        super().__init__(tensors, torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95)), config.rate)

    def step(self, step: int) -> Mapping[str, float]:
        """One step down the losses of a batch."""
        batch = self.batch(step)
        filled = self.task.loss(batch)
        loss = sum((weight * each(batch) for weight, each in self.task.further), filled)
        self.update(loss, step=step)
        return {"loss": loss.item(), "filled": filled.item()}

    def batch(self, step: int) -> MaskedBatch:
        """Of a step: a function of the seed, the step and the weights."""
        rng, network = np.random.default_rng((self.config.seed, 4, step)), self.model.network
        index = drawn(len(self.images), self.config, step)
        pixels = self.model.preprocess(pictures_of(self.images, index, self.config, step))
        given = pixels if self.task.inputs is None else self.task.inputs(pixels, rng)
        masked = torch.from_numpy(self.task.masks(len(pixels), rng)).to(pixels.device)
        places = visible_places(masked if self.task.visible_only else torch.zeros_like(masked))
        if not self.task.visible_only:
            given = given * ~_enlarged(masked, self.config.patch)
        tokens = encode(network, at_places(embed(network, given), places))
        predicted = decode(network, tokens, places)
        return MaskedBatch(given, masked, places, tokens, predicted, self.task.target(pixels, self.config.patch), rng)


def _enlarged(masked: Bool[Tensor, "n patches"], patch: int) -> Bool[Tensor, "n 1 side side"]:
    grid = round(masked.shape[1] ** 0.5)
    return masked.view(-1, 1, grid, grid).repeat_interleave(patch, 2).repeat_interleave(patch, 3)


def pretrained(learner: MaskedLearner, run: Run | None) -> Steps[MaskedAutoencoder]:
    """Train, and give the model with what it was learnt from."""
    yield from fit(learner, learner.config.steps, run=run)
    learner.model.network.requires_grad_(False)
    facts = {"pictures": len(learner.images), "trained": sum(each.numel() for each in learner.tensors.values())}
    return replace(learner.model, provenance=facts)
