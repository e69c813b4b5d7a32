"""What tuning by a reward shares: rewards, low-rank factors that learn, the chain that draws, and the edit with its curve.

A reward is a function of pictures ``(n, 3, height, width)`` of 0 to 1 and their n prompts to n numbers; higher is better.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config
from photopic.core.edits import Edit, Part
from photopic.core.errors import DataError, DivergedError, FieldError
from photopic.core.fit import OptimizedTensors
from photopic.core.nn.replaced import replaced
from photopic.core.sampling import Control, Sampling
from photopic.core.view import Lines, Section, Text, View
from photopic.learning.parameters.low_rank import LowRankFactors
from photopic.models.dual_encoder import DualEncoder
from photopic.models.factories import function_named, is_factory
from photopic.models.text_to_image.attention_weights import attention_weights, check_plain
from photopic.models.text_to_image.autoencoder import pictures_of
from photopic.models.text_to_image.drawing import Drawing
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.unet_drawing import UNetDrawer

Reward = Callable[[Tensor, Sequence[str]], Tensor]
Pictures = Float[Tensor, "n 3 height width"]  # of 0 to 1
CLIP = 1.0  # largest norm of a gradient
SAVE_EVERY = 5  # steps: one takes seconds


@dataclass(frozen=True, kw_only=True)
class RewardTuning(Config):
    """How to draw and to learn; every field is written into the edit."""

    steps: Annotated[int, Ge(1)] = 12  # steps of learning; more raises the reward, and in the end spoils the pictures
    batch: Annotated[int, Ge(1)] = 8  # pictures a step; lower it when memory is short
    drawing_steps: Annotated[int, Ge(1)] = 8  # denoising steps of a picture
    guidance: Annotated[float, Ge(1)] = 4.0  # how strongly the prompt is followed
    lr: Annotated[float, Gt(0)] = 3e-3  # size of a step
    rank: Annotated[int, Ge(1)] = 4  # width of every product; more can change more
    palette: tuple[str, ...] = ()  # colours of the reward palette, such as #d63031; commas between
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same

    def __post_init__(self) -> None:
        super().__post_init__()
        for each in self.palette:
            if not re.fullmatch(r"#[0-9a-fA-F]{6}", each):
                raise FieldError("palette", f"expected colours such as '#d63031', found {each!r}")


def reward_of(reward: str | Reward, encoder: DualEncoder | None, config: RewardTuning) -> Reward:
    """The reward asked for, checked before anything slow.

    Raises:
        DataError: If there is none of that name, or it lacks its colours.
        ModelError: If it is a function of one's own that is not found.
    """
    if callable(reward):
        return reward
    if reward == "alignment":
        return TextAlignment(encoder or DualEncoder.load(DualEncoder.default_name))
    if reward == "palette":
        if not config.palette:
            raise DataError("palette: expected colours, found none; name them with palette, such as '#d63031,#fafafa'")
        return Palette(config.palette)
    if is_factory(reward):
        return function_named(reward)
    raise DataError(f"reward: expected alignment, palette or module:function, found {reward!r}")


class TextAlignment:
    """Cosine of a picture and its prompt in a dual encoder."""

    def __init__(self, encoder: DualEncoder):
        self.encoder = encoder

    def __call__(self, pictures: Pictures, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        texts = self.encoder.text_features(list(prompts)).to(pictures.device)
        return (F.normalize(self.encoder.encode_images(pictures).float(), dim=-1) * texts).sum(-1)


class Palette:
    """1 minus the mean distance of a pixel to the nearest of some colours, in units of the distance from black to white.

    Example:
        >>> Palette(["#000000", "#ffffff"])(torch.full((1, 3, 2, 2), 0.5), ["a bear"]).item()
        0.5
    """

    def __init__(self, colours: Sequence[str]):
        self.colours = torch.tensor([[int(each[at : at + 2], 16) / 255 for at in (1, 3, 5)] for each in colours])

    def __call__(self, pictures: Pictures, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        away = pictures[:, None] - self.colours.to(pictures)[:, :, None, None]  # (n, colours, 3, h, w)
        return 1 - (away.square().sum(2) + 1e-12).sqrt().amin(1).mean((1, 2)) / 3**0.5


class Learnt(ABC):
    """What a reward is followed into.

    Attributes:
        tensors: What the optimiser changes.
        kept: What else a checkpoint needs.
    """

    tensors: dict[str, Tensor]
    kept: Mapping[str, Tensor] = {}

    def weights(self) -> dict[str, Tensor]:
        """Effective weights by the names of edits, differentiable in the tensors."""
        return {}

    def controls(self, prompts: Sequence[str]) -> tuple[Control, ...]:
        """What else acts while these prompts are drawn."""
        return ()

    @abstractmethod
    def part(self) -> Part:
        """What is stored."""


class LowRank(Learnt):
    """Low-rank products beside the attention of the UNet."""

    def __init__(self, weights: Mapping[str, Tensor], config: RewardTuning):
        self.factors = LowRankFactors(weights, rank=config.rank, seed=config.seed)
        self.tensors = self.factors.factors

    def weights(self) -> dict[str, Tensor]:
        return self.factors.weights()

    def part(self) -> Part:
        return self.factors.part()


class RewardLearner(OptimizedTensors):
    """What learns beside a model, its optimiser, and the pictures that are drawn with it.

    Args:
        model: Stays as it is.
        prompts: What is drawn, in turn.
        reward: What is to rise.
        config: How.
        learnt: What learns, of the attention matrices by name and the config; low-rank products by default.

    Attributes:
        rewards: The mean reward of each step done, NaN of those to come.
    """

    def __init__(
        self,
        model: TextToImage,
        prompts: Sequence[str],
        reward: Reward,
        config: RewardTuning,
        learnt: Callable[[Mapping[str, Tensor], Any], Learnt] = LowRank,
    ):
        model.check_unet("through whose chain no reward is followed")
        if not prompts:
            raise DataError("prompts: expected one or more, found none")
        self.model, self.prompts, self.reward, self.config = model, list(prompts), reward, config
        weights = attention_weights(model, "all", ("q", "k", "v", "out.0"))
        check_plain(model, weights)
        self.learnt = learnt(weights, config)
        tensors = self.learnt.tensors
        super().__init__(
            tensors, torch.optim.AdamW(tensors.values(), lr=config.lr, weight_decay=1e-4), lambda step: config.lr
        )
        self.rewards = torch.full((config.steps,), torch.nan)

    def drawn_in(self, step: int) -> tuple[list[str], list[int]]:
        """The prompts and seeds of a step: all prompts are equally often drawn, and no noise twice."""
        places = range(step * self.config.batch, (step + 1) * self.config.batch)
        return [self.prompts[place % len(self.prompts)] for place in places], [
            self.config.seed * 1_000_003 + place for place in places
        ]

    def sampling(self, prompts: Sequence[str], seeds: Sequence[int], **changes: Any) -> tuple[Sampling, Tensor]:
        """The DDIM run that draws some prompts, and its start noise."""
        config = GenerateConfig(steps=self.config.drawing_steps, guidance=self.config.guidance, scheduler="ddim")
        drawer, drawing = UNetDrawer(self.model), Drawing(prompts, seeds, config)
        drawer.check(drawing)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with torch.no_grad():
            sampling, noise = drawer.sampling(drawing, slice(None), drawer.scheduler(config), generators)
        return replace(sampling, **changes), noise

    def in_force(self) -> AbstractContextManager[None]:
        """The effective weights in the network, backward passes included."""
        return replaced(self.model.components, self.learnt.weights())

    def judged(self, latents: Float[Tensor, "n c h w"], prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """The rewards of finished latents.

        Raises:
            DataError: If the reward is no finite number a picture.
        """
        pictures = (pictures_of(self.model.pipeline, latents) + 1) / 2
        found = self.reward(pictures.to(torch.promote_types(pictures.dtype, torch.float32)), prompts)
        if not isinstance(found, Tensor) or found.shape != (len(prompts),):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DataError(f"reward: expected a tensor of {len(prompts)} numbers, one a picture, found {shape}")
        if not torch.isfinite(found).all():
            raise DivergedError("reward: expected finite numbers, found nan or inf; lower the rate or check the reward")
        return found

    def descend(self) -> None:
        """One step of the optimiser with the gradients that the tensors have."""
        torch.nn.utils.clip_grad_norm_(self.tensors.values(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"rewards": self.rewards} | dict(self.learnt.kept)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.rewards = state["rewards"].clone()
        for name, each in self.learnt.kept.items():
            each.copy_(state[name])

    def edit(self) -> Edit:
        """What was learnt."""
        part = self.learnt.part()
        facts = {"prompt": self.prompts[0], "prompts": len(self.prompts), "rewards": self.rewards.tolist()}
        return Edit((part,), self.model.fingerprint(*part.names()), facts)


def reward_view(result: Any) -> View:
    """The reward of the pictures drawn while learning."""
    rewards = result.provenance["rewards"]
    curve = Lines([("reward", list(enumerate(rewards, 1)))], "step", "mean reward of the step's pictures")
    text = Text("A reward that rises says that the reward was reached, not that pictures are better: look at them.")
    return View("reward", [Section("", [curve, text])])
