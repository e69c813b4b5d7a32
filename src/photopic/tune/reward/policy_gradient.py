"""Tune a model towards a reward by policy gradient: the reward needs no gradient, each denoising step is an action.

Pictures are drawn with the full noise of DDIM, so that every step is a draw from a normal distribution whose log-probability is
known; steps that led to better pictures than usual for their prompt are made more likely, within a clipped ratio.

Paper: Training Diffusion Models with Reinforcement Learning (DDPO, arXiv:2305.13301), its importance-sampling form. Changed:
low-rank factors of attention only; eight steps and small batches. It is the baseline of ``alignprop.*`` of
benchmarks/tune/reward.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Flags
from photopic.core.edits import Edit
from photopic.core.events import Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.core.sampling import Sampling, Step, sample_events
from photopic.core.sampling.predict import predict
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.reward._common import SAVE_EVERY, Reward, RewardLearner, RewardTuning, reward_of, reward_view

REMEMBERED = 16  # rewards of a prompt that say what is usual for it
ENOUGH = 4  # of them; with fewer the batch says it


@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(RewardTuning):
    """How to draw and to learn; every field is written into the edit."""

    steps: Annotated[int, Ge(1)] = 100  # steps of learning; more raises the reward, and takes longer
    lr: Annotated[float, Gt(0)] = 1e-3  # size of a step
    passes: Annotated[int, Ge(1)] = 1  # steps of the optimiser on each batch of pictures
    ratio_clip: Annotated[float, Gt(0)] = 1e-4  # how far a step's probability may move from that it was drawn with
    largest: Annotated[float, Gt(0)] = 5.0  # largest advantage that counts, in standard deviations


@method(
    paper="arXiv:2305.13301",
    claims="alignprop.",
    presets={"paper": PolicyGradientConfig(drawing_steps=50, guidance=5.0, batch=128, steps=100, lr=3e-4)},
    command="tune ddpo",
    examples=("Example: photopic tune ddpo --prompt 'a bear left of a cat' --reward my_rewards:score -o liked.edit",),
    after=('next: photopic generate "{prompt}" --with {output} -n 8 -o out/',),
    view=reward_view,
)
def policy_gradient(
    model: TextToImage,
    prompts: Annotated[Sequence[str], Flags("--prompt")],
    *,
    reward: str | Reward = "alignment",
    encoder: Annotated[DualEncoder | None, Flags("--encoder")] = None,
    config: PolicyGradientConfig = PolicyGradientConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Tune a model so that its pictures get a higher reward, where the reward has no gradient.

    Interrupted with Ctrl-C, the same command goes on where it stopped. With a gradient photopic tune reward is faster.

    Args:
        model: A bundled model, a folder with a diffusers pipeline, or a hub id. Its weights are never written.
        prompts: A prompt to draw; several times for several, drawn in turn.
        reward: What is to rise: alignment of picture and prompt, palette, or module:function, code of yours that runs with your
            rights: pictures (n, 3, height, width) of 0 to 1 and prompts to n numbers.
        encoder: The dual encoder of the reward alignment; by default the bundled one.
        config: How to draw and to learn.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        Low-rank products beside the attention of the UNet.

    Raises:
        DataError: If there is no prompt or no such reward.
        DivergedError: If a reward is not finite.
        ModelError: If the model has no UNet, or a function of yours is not found.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> edit = policy_gradient(model, ["a bear left of a cat"])  # doctest: +SKIP
    """
    learner = _PolicyGradient(model, prompts, reward_of(reward, encoder, config), config)
    yield from fit(learner, config.steps, run=run, save_every=SAVE_EVERY)
    return learner.edit()


class _PolicyGradient(RewardLearner):
    config: PolicyGradientConfig

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.usual = torch.full((len(self.prompts), REMEMBERED), torch.nan)  # the last rewards of each prompt

    def step(self, step: int) -> Mapping[str, float]:
        prompts, seeds = self.drawn_in(step)
        sampling, noise = self.sampling(prompts, seeds, eta=1.0)
        with torch.no_grad(), self.in_force():
            path = list(sample_events(sampling, noise))
            rewards = self.judged(path[-1].latents, prompts).cpu()
        before = [noise, *(each.latents for each in path[:-1])]
        better = self._advantages(step, rewards).to(noise.device)
        drawn_with: list[Tensor] = []
        for number in range(self.config.passes):
            for place, event in enumerate(path):
                with self.in_force():
                    now = log_probability(sampling, before[place], event.latents, event.step)
                    if number == 0:
                        drawn_with.append(now.detach())
                    loss = clipped_loss(now - drawn_with[place], better, self.config.ratio_clip)
                    (loss / len(path)).backward()
            self.descend()
        self.rewards[step] = rewards.mean()
        return {"loss": -self.rewards[step].item(), "reward": self.rewards[step].item()}

    def _advantages(self, step: int, rewards: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """How much better than usual for its prompt each picture is, in standard deviations."""
        found = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-8)
        for row, reward in enumerate(rewards):
            own = self.usual[(step * self.config.batch + row) % len(self.prompts)]
            own.copy_(torch.cat([own[1:], reward[None]]))
            seen = own[~own.isnan()]
            if len(seen) >= ENOUGH:
                found[row] = (reward - seen.mean()) / (seen.std(correction=0) + 1e-8)
        return found.clamp(-self.config.largest, self.config.largest)

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"usual": self.usual}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.usual = state["usual"].clone()


def log_probability(
    sampling: Sampling, before: Float[Tensor, "n c h w"], after: Float[Tensor, "n c h w"], step: Step
) -> Float[Tensor, " n"]:
    """Log-density of a DDIM step that was drawn with ``eta=1``, mean over the latent's numbers; differentiable in the weights.

    Args:
        sampling: The run.
        before: Latents before the step.
        after: Latents that were drawn.
        step: Which.
    """
    scheduler = sampling.scheduler
    scheduler.set_timesteps(sampling.steps, device=before.device)
    said = {"eta": 1.0, "return_dict": False}
    zero, one = torch.zeros_like(before), torch.ones_like(before)
    deviation = scheduler.step(zero, step.timestep, zero, variance_noise=one, **said)[0]  # sigma_t: of noise alone
    prediction = predict(sampling, scheduler, before, step)
    mean = scheduler.step(prediction, step.timestep, before, variance_noise=zero, **said)[0]
    return torch.distributions.Normal(mean, deviation).log_prob(after).float().flatten(1).mean(1)


def clipped_loss(log_ratio: Float[Tensor, " n"], advantages: Float[Tensor, " n"], clip: float) -> Float[Tensor, ""]:
    """Of proximal policy optimisation: the ratio counts within ``1 - clip`` to ``1 + clip`` (equation 5).

    Example:
        >>> clipped_loss(torch.tensor([1.0]), torch.tensor([1.0]), 0.1).item()  # e is clipped to 1.1
        -1.100000023841858
    """
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()
