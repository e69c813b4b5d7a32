"""Tune a model towards a reward by its gradient through the whole chain of denoising, kept as an edit.

Pictures are drawn by DDIM with gradients; each denoising step is computed again on the way back (gradient checkpointing), so that
memory does not grow with the number of steps. The gradient goes through a random number of the last steps: through all of them it
finds pictures that please the reward alone. What learns are low-rank products beside attention, as many entries of the attention
matrices, those with the largest gradients at first, or a residual of what the text encoder says where some words stand.

Paper: Aligning Text-to-Image Diffusion Models with Reward Backpropagation (AlignProp, arXiv:2310.03739). Changed: the reward is any
differentiable function, by default the text alignment of a dual encoder; low-rank factors, of attention only, are not all that may
learn; 8 steps of DDIM and a dozen steps of learning. Claims: ``alignprop.*`` of benchmarks/tune/reward.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Flags
from photopic.core.edits import Edit, Part, SparseWeights
from photopic.core.errors import DataError
from photopic.core.events import Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.nn.replaced import replaced
from photopic.core.runs import Run
from photopic.core.sampling import Control, Step, sample
from photopic.learning.parameters.sparse_values import SparseValues
from photopic.learning.parameters.trained_residual import TrainedResidual
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.reward._common import (
    SAVE_EVERY,
    Learnt,
    LowRank,
    Reward,
    RewardLearner,
    RewardTuning,
    reward_of,
    reward_view,
)


@dataclass(frozen=True, kw_only=True)
class RewardBackpropagationConfig(RewardTuning):
    """How to draw and to learn; every field is written into the edit."""

    # what learns: low-rank products beside attention, as many entries of its matrices where the gradient is largest (located), or
    # vectors added to what is said of some words (residual)
    learned: Literal["low-rank", "located", "residual"] = "low-rank"
    words: str = ""  # words of every prompt whose residual is learnt, such as background
    # how many of the last denoising steps the gradient goes through: a random number, always the same (last), or all
    truncation: Literal["random", "fixed", "off"] = "random"
    last: Annotated[int, Ge(1)] = 1  # steps of the gradient where their number is fixed


@method(
    paper="arXiv:2310.03739",
    claims="alignprop.",
    presets={"paper": RewardBackpropagationConfig(drawing_steps=50, guidance=5.0, batch=128, steps=100, lr=1e-3)},
    command="tune reward",
    examples=(
        "Example: photopic tune reward --prompt 'a bear left of a cat' --prompt 'a mug on a red background' -o aligned.edit",
        "Colours: photopic tune reward --prompt 'a bear' --reward palette --palette '#1e3799,#fafafa' -o blue.edit",
    ),
    after=('next: photopic generate "{prompt}" --with {output} -n 8 -o out/',),
    view=reward_view,
)
def reward_backpropagation(
    model: TextToImage,
    prompts: Annotated[Sequence[str], Flags("--prompt")],
    *,
    reward: str | Reward = "alignment",
    encoder: Annotated[DualEncoder | None, Flags("--encoder")] = None,
    config: RewardBackpropagationConfig = RewardBackpropagationConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Tune a model so that its pictures get a higher reward, by the reward's gradient through the steps of drawing.

    Interrupted with Ctrl-C, the same command goes on where it stopped. The edit may be loaded at less than full weight.

    Args:
        model: A bundled model, a folder with a diffusers pipeline, or a hub id. Its weights are never written.
        prompts: A prompt to draw; several times for several, drawn in turn.
        reward: What is to rise: alignment of picture and prompt, palette, or module:function, code of yours that runs with your
            rights: pictures (n, 3, height, width) of 0 to 1 and prompts to n numbers, with torch alone so that it has a gradient.
        encoder: The dual encoder of the reward alignment; by default the bundled one.
        config: How to draw and to learn.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        Low-rank products beside the attention of the UNet, values of some of its entries, or a residual.

    Raises:
        DataError: If there is no prompt or no such reward, the reward has no gradient, or words for a residual are missing.
        DivergedError: If a reward is not finite.
        ModelError: If the model has no UNet, or a function of yours is not found.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> edit = reward_backpropagation(model, ["a bear left of a cat"])  # doctest: +SKIP
    """
    learner = _Backpropagation(model, prompts, reward_of(reward, encoder, config), config)
    yield from fit(learner, config.steps, run=run, save_every=SAVE_EVERY)
    return learner.edit()


class TruncatedGradient(Control):
    """The gradient of a run goes through its last steps alone.

    Args:
        last: How many.
    """

    def __init__(self, last: int):
        self.last = last

    def latents(self, latents: Tensor, step: Step) -> Tensor:
        return latents if step.total - step.index <= self.last else latents.detach()


class Located(Learnt):
    """Entries of the attention matrices, of each as many as low-rank products would have numbers."""

    def __init__(self, weights: Mapping[str, Tensor], config: RewardBackpropagationConfig):
        counts = {name: min(config.rank * sum(each.shape), each.numel()) for name, each in weights.items()}
        places = {name: torch.arange(count) for name, count in counts.items()}  # until they are located
        start = {name: each.flatten()[: counts[name]] for name, each in weights.items()}
        self.values = SparseValues(weights, places, start, bits=16, lr=config.lr)
        self.tensors = self.values.values
        self.kept = {f"positions.{name}": each for name, each in places.items()}

    def weights(self) -> dict[str, Tensor]:
        return self.values.weights()

    def place(self, gradients: Mapping[str, Tensor]) -> None:
        """Take the entries with the largest gradients, from the values that they have."""
        with torch.no_grad():
            for name, at in self.values.positions.items():
                at.copy_(gradients[name].abs().flatten().topk(len(at)).indices.sort().values)
                self.tensors[name].copy_(self.values.base[name].flatten()[at.to(self.tensors[name].device)])

    def part(self) -> SparseWeights:
        return SparseWeights(self.values.positions, self.values.final(), self.values.bits)


class Residual(Learnt, Control):
    """A residual where some words stand, while given prompts are drawn."""

    def __init__(self, model: TextToImage, prompts: Sequence[str], words: str):
        self.residual, self.prompts = TrainedResidual(model, words), prompts
        self.residual.added(prompts)  # refused here where a prompt lacks them
        self.tensors = self.residual.values

    def part(self) -> Part:
        return self.residual.part()

    def controls(self, prompts: Sequence[str]) -> tuple[Control, ...]:
        self.prompts = prompts
        return (self,)

    def embeddings(self, conditioning: Any, step: Step) -> Any:
        hidden = conditioning.hidden
        return replace(conditioning, hidden=hidden + self.residual.added(self.prompts).to(hidden.dtype))


class _Backpropagation(RewardLearner):
    config: RewardBackpropagationConfig

    def __init__(self, model: TextToImage, prompts: Sequence[str], reward: Reward, config: RewardBackpropagationConfig):
        kinds: dict[str, Callable[[Mapping[str, Tensor], Any], Learnt]] = {
            "low-rank": LowRank,
            "located": Located,
            "residual": lambda weights, config: Residual(model, prompts, config.words),
        }
        if (config.learned == "residual") != bool(config.words.strip()):
            raise DataError("words: expected some with learned=residual, and none otherwise")
        super().__init__(model, prompts, reward, config, kinds[config.learned])

    def step(self, step: int) -> Mapping[str, float]:
        if step == 0 and isinstance(self.learnt, Located):
            self.learnt.place(self._gradients(self.learnt.values.base))
        with self.in_force():
            rewards = self._drawn(step)
            (-rewards.mean()).backward()
        self.descend()
        self.rewards[step] = rewards.detach().mean().cpu()
        return {"loss": -self.rewards[step].item(), "reward": self.rewards[step].item()}

    def _drawn(self, step: int) -> Float[Tensor, " n"]:
        """The rewards of a step's pictures, differentiable through the steps that count."""
        prompts, seeds = self.drawn_in(step)
        controls = (TruncatedGradient(self._last(step)), *self.learnt.controls(prompts))
        sampling, noise = self.sampling(prompts, seeds, differentiable=True, checkpoint=True, controls=controls)
        rewards = self.judged(sample(sampling, noise), prompts)
        if not rewards.requires_grad:
            raise DataError(
                "reward: has no gradient; compute it with torch from the pictures, or use photopic tune ddpo"
            )
        return rewards

    def _gradients(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the mean reward in whole matrices, on pictures that no step of learning draws."""
        whole = {name: each.detach().clone().requires_grad_() for name, each in weights.items()}
        with replaced(self.model.components, whole):
            found = torch.autograd.grad(self._drawn(self.config.steps).mean(), list(whole.values()))
        return dict(zip(whole, found, strict=True))

    def _last(self, step: int) -> int:
        """K of the step."""
        count = self.config.drawing_steps
        if self.config.truncation == "random":
            return int(np.random.default_rng((self.config.seed, step)).integers(1, count + 1))
        return count if self.config.truncation == "off" else min(self.config.last, count)
