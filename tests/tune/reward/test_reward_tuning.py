"""Rewards and the two ways to follow them on a tiny real pipeline: the exact gradient, flat memory, densities, exact resume."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from photopic.core.edits import Edit
from photopic.core.edits.file import to_bytes
from photopic.core.errors import DataError, DivergedError, FieldError, ModelError
from photopic.core.nn.replaced import replaced
from photopic.core.runs import Run
from photopic.core.sampling import Control, Step, sample, sample_events
from photopic.models.preprocessing import Preprocessing
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.reward import _common, policy_gradient, reward_backpropagation
from photopic.tune.reward._common import Palette, TextAlignment, reward_of
from photopic.tune.reward.policy_gradient import PolicyGradientConfig, clipped_loss, log_probability
from photopic.tune.reward.reward_backpropagation import RewardBackpropagationConfig, TruncatedGradient
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline
from tests.tiny_encoders import tiny_dual_encoder

PROMPTS = ["a bear on a red background", "a cat"]
QUICK = RewardBackpropagationConfig(steps=2, batch=2, drawing_steps=3)


def brightness(pictures: Tensor, prompts: Any) -> Tensor:
    """A smooth reward: no picture of the tiny model is clipped by it."""
    return pictures.square().mean((1, 2, 3))


def learner(model: TextToImage, config: Any = QUICK, reward: Any = brightness) -> Any:
    kind = policy_gradient._PolicyGradient if isinstance(config, PolicyGradientConfig) else None
    return (kind or reward_backpropagation._Backpropagation)(model, PROMPTS, reward, config)


@pytest.fixture(scope="module")
def precise() -> TextToImage:
    return TextToImage(tiny_pipeline(dtype=torch.float64), "tiny")


class Fixed(Control):
    """Latents after a step are given ones."""

    def __init__(self, index: int, latents: Tensor):
        self.index, self.given = index, latents

    def latents(self, latents: Tensor, step: Step) -> Tensor:
        return self.given if step.index == self.index else latents


RESIDUAL = replace(QUICK, learned="residual", words="a")  # a word of both prompts
LOCATED = replace(QUICK, learned="located")


@pytest.mark.parametrize(("config", "last"), [(QUICK, 3), (QUICK, 1), (RESIDUAL, 3)])
def test_the_gradient_of_three_steps_is_that_of_finite_differences(
    precise: TextToImage, config: RewardBackpropagationConfig, last: int
) -> None:
    learnt = learner(precise, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in learnt.tensors.values():  # from where no factor is zero
            each.copy_(0.3 * torch.randn(each.shape, generator=generator, dtype=torch.float64))
    sampling, noise = learnt.sampling(PROMPTS, [0, 1])
    told = learnt.learnt.controls(PROMPTS)

    def value(*controls: Control, **changes: Any) -> Tensor:
        run = replace(sampling, controls=(*controls, *told), **changes)
        with learnt.in_force():
            return learnt.judged(sample(run, noise), PROMPTS).mean()

    factors = list(learnt.tensors.values())
    with learnt.in_force():
        run = replace(sampling, controls=(TruncatedGradient(last), *told), differentiable=True, checkpoint=True)
        found = torch.autograd.grad(learnt.judged(sample(run, noise), PROMPTS).mean(), factors)
    with torch.no_grad(), learnt.in_force():
        kept = [event.latents for event in sample_events(sampling, noise)][2 - last] if last < 3 else None
    held = () if kept is None else (Fixed(2 - last, kept),)  # what the truncated gradient takes for given
    for seed in range(3):
        generator = torch.Generator().manual_seed(10 + seed)
        along = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in factors]
        slope = sum((a * g).sum() for a, g in zip(along, found, strict=True))
        ends = []
        with torch.no_grad():
            for side in (1e-5, -1e-5):
                for each, way in zip(factors, along, strict=True):
                    each.add_(side * way)
                ends.append(value(*held))
                for each, way in zip(factors, along, strict=True):
                    each.sub_(side * way)
        assert abs(slope) > 1e-7
        torch.testing.assert_close(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-10)


def test_located_are_the_entries_with_the_largest_gradients_as_many_as_of_low_rank(precise: TextToImage) -> None:
    learnt = learner(precise, replace(LOCATED, truncation="off", drawing_steps=2))
    base, name = learnt.learnt.values.base, next(iter(learnt.learnt.values.base))
    found = learnt._gradients(base)
    prompts, seeds = learnt.drawn_in(learnt.config.steps)
    sampling, noise = learnt.sampling(prompts, seeds)

    def value(whole: Tensor) -> float:
        with torch.no_grad(), replaced(precise.components, {name: whole}):
            return learnt.judged(sample(sampling, noise), prompts).mean().item()

    for at in (0, 7, 100):
        moved = torch.zeros_like(base[name]).flatten()
        moved[at] = 1e-5
        slope = (value(base[name] + moved.view_as(base[name])) - value(base[name] - moved.view_as(base[name]))) / 2e-5
        assert abs(slope - found[name].flatten()[at].item()) < 1e-8 + 1e-5 * abs(slope)
    learnt.learnt.place(found)
    for name, at in learnt.learnt.values.positions.items():
        size, rest = found[name].abs().flatten(), torch.ones(base[name].numel(), dtype=torch.bool)
        rest[at] = False
        assert len(at) == min(4 * sum(base[name].shape), base[name].numel()) and (at.diff() > 0).all()
        assert not rest.any() or size[at].min() >= size[rest].max()
        assert torch.equal(learnt.tensors[name], base[name].flatten()[at].float())


@pytest.mark.parametrize("pipeline", [tiny_pipeline, tiny_sdxl_pipeline])
def test_a_stored_residual_says_what_it_said_while_it_learnt(pipeline: Callable[[], Any]) -> None:
    model = TextToImage(pipeline(), "tiny")
    learnt = learner(model, RESIDUAL)
    with torch.no_grad():
        for each in learnt.tensors.values():
            each.copy_(torch.randn(each.shape, generator=torch.Generator().manual_seed(0)).half())
    (control,) = learnt.learnt.controls(PROMPTS)
    plain = model.encode_prompts(PROMPTS)
    told = control.embeddings(plain, Step(0, 1, torch.tensor(0), 1.0, 0.0, guided=False))
    assert (told.hidden != plain.hidden).any()
    with model.edits.applied(Edit((learnt.learnt.part(),), model.fingerprint())):
        torch.testing.assert_close(model.encode_prompts(PROMPTS).hidden, told.hidden, rtol=0, atol=1e-6)


class LiveBytes(TorchDispatchMode):
    """The largest number of bytes of tensors that were alive at once, of those made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor) and each.untyped_storage()._cdata not in self.seen:
                storage = each.untyped_storage()
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return made

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


class Kept:
    """A tensor that autograd keeps for the way back."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def saved_and_peak(model: TextToImage, steps: int, **changes: Any) -> tuple[int, int, int]:
    """Tensors and bytes that autograd keeps of one forward pass, and the peak of the whole step."""
    learnt = learner(model, replace(QUICK, drawing_steps=steps))
    sampling, noise = learnt.sampling(PROMPTS, [0, 1], differentiable=True, **changes)
    kept: WeakSet[Kept] = WeakSet()

    def pack(each: Tensor) -> Kept:
        held = Kept(each)
        kept.add(held)
        return held

    with learnt.in_force(), saved_tensors_hooks(pack, lambda held: held.tensor), LiveBytes() as live:
        reward = learnt.judged(sample(sampling, noise), PROMPTS).mean()
        alive = [held.tensor.nbytes for held in kept]  # at the end of the way there, when nothing is given back yet
        reward.backward()
    return len(alive), sum(alive), live.peak


def test_memory_is_flat_in_the_number_of_steps(model: TextToImage) -> None:
    """With a fixed number of steps of the gradient exactly in what is kept; through all of them but for a latent a step."""
    latents = 2 * 4 * 8 * 8 * 4  # bytes of the two pictures' latents
    cut = [saved_and_peak(model, steps, checkpoint=True, controls=(TruncatedGradient(2),)) for steps in (3, 6, 9)]
    assert cut[0][:2] == cut[1][:2] == cut[2][:2]
    assert cut[2][2] <= cut[0][2] + 4 * latents
    whole = [saved_and_peak(model, steps, checkpoint=True) for steps in (3, 9)]
    # of a step: its latents, guided twice, and the scheduler's sums
    assert whole[1][2] - whole[0][2] <= 6 * 12 * latents
    plain = [saved_and_peak(model, steps) for steps in (3, 9)]
    assert plain[1][2] - plain[0][2] > 20 * (whole[1][2] - whole[0][2])  # what checkpointing is for


def test_truncation_is_random_fixed_or_off(model: TextToImage) -> None:
    drawn = [learner(model, replace(QUICK, drawing_steps=4))._last(step) for step in range(200)]
    assert sorted(set(drawn)) == [1, 2, 3, 4] and all(30 < drawn.count(each) < 70 for each in (1, 2, 3, 4))
    assert learner(model, replace(QUICK, truncation="off"))._last(5) == 3
    assert learner(model, replace(QUICK, truncation="fixed", last=9))._last(5) == 3


def test_the_density_of_a_step_is_that_of_the_noise_it_was_drawn_with(precise: TextToImage) -> None:
    learnt = learner(precise, PolicyGradientConfig(batch=2, drawing_steps=3))
    sampling, noise = learnt.sampling(PROMPTS, [5, 6], eta=1.0)
    with torch.no_grad():
        path = list(sample_events(sampling, noise))
        before = [noise, *(each.latents for each in path)]
        generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
        drawn = [
            torch.stack([torch.randn(4, 8, 8, generator=each, dtype=torch.float64) for each in generators])
            for _ in range(4)
        ]
        torch.testing.assert_close(drawn[0], noise)
        for place, event in enumerate(path):
            found = log_probability(sampling, before[place], event.latents, event.step)
            scheduler = sampling.scheduler
            kept = scheduler.alphas_cumprod.double()
            at, earlier = kept[int(event.step.timestep)], int(event.step.timestep) - 1000 // 3
            after = kept[earlier] if earlier >= 0 else scheduler.final_alpha_cumprod.double()
            deviation = ((1 - after) / (1 - at) * (1 - at / after)).sqrt()  # formula 16 of DDIM, eta 1
            z = drawn[place + 1]
            expected = (-z.square() / 2 - deviation.log() - 0.5 * torch.log(torch.tensor(2 * torch.pi))).mean((1, 2, 3))
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_the_first_pass_follows_the_score_and_the_ratio_is_clipped() -> None:
    at = torch.tensor([0.2, -0.3], requires_grad=True)
    better = torch.tensor([2.0, -1.0])
    (slope,) = torch.autograd.grad(clipped_loss(at - at.detach(), better, 0.1), at)
    torch.testing.assert_close(slope, -better / 2)  # minus the advantage, mean over two
    (slope,) = torch.autograd.grad(clipped_loss(at - torch.tensor([0.0, 0.0]), better, 0.1), at)
    assert slope.tolist() == [0.0, 0.0]  # both ratios are past the clip on the side that pays


def test_advantages_are_of_a_prompt_as_soon_as_it_has_a_history(model: TextToImage) -> None:
    learnt = learner(model, PolicyGradientConfig(batch=2, drawing_steps=1))
    first = learnt._advantages(0, torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(first, torch.tensor([-1.0, 1.0]))
    for step in range(1, 4):
        found = learnt._advantages(step, torch.tensor([1.0 + step, 30.0]))
    # the first prompt is better than it was, though the second is far above it
    assert found[0] > 1 and abs(found[1]) < 1


@pytest.mark.parametrize("config", [QUICK, LOCATED, RESIDUAL, PolicyGradientConfig(steps=2, batch=2, drawing_steps=3)])
def test_interrupted_is_uninterrupted_and_the_model_is_left_alone(
    model: TextToImage, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = policy_gradient if isinstance(config, PolicyGradientConfig) else reward_backpropagation
    method: Any = getattr(module, module.__name__.rpartition(".")[2])
    monkeypatch.setattr(module, "SAVE_EVERY", 1)
    before, config = model.digest(), replace(config, steps=4)
    whole = method(model, PROMPTS, reward=brightness, config=config)
    cut = method.events(model, PROMPTS, reward=brightness, config=config, run=Run(tmp_path))
    while next(cut).done < 3:
        pass
    cut.close()
    again = method(model, PROMPTS, reward=brightness, config=config, run=Run(tmp_path))
    assert [each.digest() for each in again.parts] == [each.digest() for each in whole.parts]
    assert again.provenance["rewards"] == whole.provenance["rewards"]
    assert model.digest() == before
    with model.edits.applied(whole):
        assert getattr(config, "learned", "") == "residual" or model.digest() != before  # which changes no weight
    assert model.digest() == before and len(to_bytes(whole)) < 60_000


def test_the_reward_rises(model: TextToImage) -> None:
    config = replace(QUICK, steps=12, lr=0.03)
    rewards = reward_backpropagation.reward_backpropagation(
        model, PROMPTS, reward=Palette(["#ffffff"]), config=config
    ).provenance["rewards"]
    by_name = reward_backpropagation.reward_backpropagation(
        model, PROMPTS, reward="palette", config=replace(config, palette=("#ffffff",), steps=2)
    )
    assert by_name.provenance["rewards"] == rewards[:2]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.02


def test_rewards_are_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_dual_encoder()
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    pictures = pixels.permute(0, 3, 1, 2) / 255
    expected = (encoder.image_features(pixels.numpy()) * encoder.text_features(PROMPTS)).sum(1)
    torch.testing.assert_close(TextAlignment(encoder)(pictures, PROMPTS), expected, atol=1e-5, rtol=1e-5)
    half = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].expand(1, 3, 2, 2)
    torch.testing.assert_close(Palette(["#ff0000"])(half, [""]), torch.ones(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(Palette(["#00ff00"])(half, [""]), torch.tensor([1 - (2 / 3) ** 0.5]), atol=1e-5, rtol=0)
    (tmp_path / "my_rewards.py").write_text("def bright(pictures, prompts):\n    return pictures.mean((1, 2, 3))\n")
    monkeypatch.chdir(tmp_path)
    torch.testing.assert_close(reward_of("my_rewards:bright", None, QUICK)(pictures, PROMPTS), pictures.mean((1, 2, 3)))
    with pytest.raises(ModelError, match="my_rewards has no function dark"):
        reward_of("my_rewards:dark", None, QUICK)


def test_pictures_as_tensors_are_prepared_as_pictures_are() -> None:
    pixels = torch.randint(0, 256, (2, 48, 40, 3), dtype=torch.uint8)
    steps = Preprocessing(resize=None, crop=(32, 36), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), blue_first=True)
    torch.testing.assert_close(steps.differentiable(pixels.permute(0, 3, 1, 2) / 255), steps(pixels.numpy()))
    for resize in ((20, 24), 20):
        resized = Preprocessing(resize=resize, resample=2)
        found = resized.differentiable(pixels.permute(0, 3, 1, 2) / 255)
        torch.testing.assert_close(found, resized(pixels.numpy()), atol=2 / 255, rtol=0)  # Pillow rounds to 8 bits


@pytest.mark.parametrize(
    ("reward", "error", "said"),
    [
        ("likeness", DataError, "expected alignment, palette or module:function, found 'likeness'"),
        ("palette", DataError, "palette: expected colours, found none"),
        (lambda pictures, prompts: pictures.detach().mean((1, 2, 3)), DataError, "has no gradient"),
        (lambda pictures, prompts: pictures.mean(), DataError, "expected a tensor of 2 numbers"),
        (lambda pictures, prompts: pictures.mean((1, 2, 3)) / 0, DivergedError, "expected finite numbers"),
    ],
)
def test_a_reward_that_cannot_be_followed_is_refused(
    model: TextToImage, reward: str | Callable[..., Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        reward_backpropagation.reward_backpropagation(model, PROMPTS, reward=reward, config=QUICK)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learned": "residual"}, "words: expected some with learned=residual, and none otherwise"),
        ({"words": "bear"}, "words: expected some with learned=residual, and none otherwise"),
        ({"learned": "residual", "words": "bear"}, "prompt 'a cat': expected the words 'bear'"),
    ],
)
def test_words_are_for_a_residual_and_in_every_prompt(model: TextToImage, changes: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        learner(model, replace(QUICK, **changes))


def test_no_prompt_and_no_colour_are_refused(model: TextToImage) -> None:
    with pytest.raises(DataError, match="prompts: expected one or more"):
        reward_backpropagation.reward_backpropagation(model, [], reward=brightness, config=QUICK)
    with pytest.raises(FieldError, match="expected colours such as"):
        replace(QUICK, palette=("red",))
    assert _common.SAVE_EVERY == 5
