"""Tune a model towards a reward by its gradient through the whole chain of denoising, kept as a low-rank edit.

Pictures are drawn by DDIM with gradients; each denoising step is computed again on the way back (gradient checkpointing), so that
memory does not grow with the number of steps. The gradient goes through a random number of the last steps: through all of them it
finds pictures that please the reward alone.

Paper: Aligning Text-to-Image Diffusion Models with Reward Backpropagation (AlignProp, arXiv:2310.03739). Changed: the reward is any
differentiable function, by default the text alignment of a dual encoder; low-rank factors of attention only; 8 steps of DDIM and a
dozen steps of learning. Claims: ``alignprop.*`` of benchmarks/tune/reward.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from torch import Tensor

from photopic.core.config import Flags
from photopic.core.edits import Edit
from photopic.core.errors import DataError
from photopic.core.events import Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.core.sampling import Control, Step, sample
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.reward._common import SAVE_EVERY, Reward, RewardLearner, RewardTuning, reward_of, reward_view


@dataclass(frozen=True, kw_only=True)
class RewardBackpropagationConfig(RewardTuning):
    """How to draw and to learn; every field is written into the edit."""

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
        Low-rank products beside the attention of the UNet.

    Raises:
        DataError: If there is no prompt or no such reward, or the reward has no gradient.
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


class _Backpropagation(RewardLearner):
    config: RewardBackpropagationConfig

    def step(self, step: int) -> Mapping[str, float]:
        prompts, seeds = self.drawn_in(step)
        kept = TruncatedGradient(self._last(step))
        sampling, noise = self.sampling(prompts, seeds, differentiable=True, checkpoint=True, controls=(kept,))
        with self.in_force():
            rewards = self.judged(sample(sampling, noise), prompts)
            if not rewards.requires_grad:
                raise DataError(
                    "reward: has no gradient; compute it with torch from the pictures, or use photopic tune ddpo"
                )
            (-rewards.mean()).backward()
        self.descend()
        self.rewards[step] = rewards.detach().mean().cpu()
        return {"loss": -self.rewards[step].item(), "reward": self.rewards[step].item()}

    def _last(self, step: int) -> int:
        """K of the step."""
        count = self.config.drawing_steps
        if self.config.truncation == "random":
            return int(np.random.default_rng((self.config.seed, step)).integers(1, count + 1))
        return count if self.config.truncation == "off" else min(self.config.last, count)
