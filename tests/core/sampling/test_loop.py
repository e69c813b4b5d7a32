"""The denoising loop equals the stock pipelines bit for bit; hooks act where they say; a sample does not depend on its batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
)
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.sampling import (
    Control,
    Inpainting,
    Sampling,
    Step,
    invert,
    noised,
    sample,
    sample_events,
    standard_noise,
)
from photopic.core.sampling.inversion import undone
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with NumPy 2

SCHEDULERS: dict[str, tuple[type, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-karras": (EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpm++": (DPMSolverMultistepScheduler, {}),
    "dpm++-sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "lms": (LMSDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
}
ANCESTRAL = ("ddpm", "euler-ancestral", "dpm++-sde")
PIPELINES: dict[str, Callable[[], Any]] = {
    "sd1": tiny_pipeline,
    "sd2": lambda: tiny_pipeline("v_prediction"),
    "sdxl": tiny_sdxl_pipeline,
}
STEPS = 5


def with_scheduler(pipeline: Any, name: str) -> Any:
    kind, options = SCHEDULERS[name]
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)
    return pipeline


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def run_of(model: TextToImage, prompts: list[str], seeds: Sequence[int], **options: Any) -> tuple[Sampling, Tensor]:
    """A run of the loop and the noise it starts from; guided by the empty prompt unless ``scale`` is 1."""
    drawing = generators(seeds)
    shape = torch.empty(len(seeds), 4, 8, 8, dtype=model.dtype)
    options = {"scale": 4.0, "steps": STEPS} | options
    unconditional = None
    if options["scale"] > 1:
        unconditional = model.encode_prompts([""] * len(prompts))
        if unconditional.pooled is not None:  # SDXL's own way with an empty negative prompt
            zeros = (torch.zeros_like(unconditional.hidden), torch.zeros_like(unconditional.pooled))
            unconditional = type(unconditional)(*zeros, unconditional.time_ids)
    conditioning = model.encode_prompts(prompts)
    noise = standard_noise(drawing, shape)
    return Sampling(model.unet, model.pipeline.scheduler, conditioning, drawing, unconditional, **options), noise


@pytest.fixture(scope="module", params=PIPELINES)
def model(request: pytest.FixtureRequest) -> TextToImage:
    return TextToImage(PIPELINES[request.param](), request.param)


@pytest.fixture(scope="module")
def sd() -> TextToImage:
    return TextToImage(tiny_pipeline(), "tiny")


@pytest.fixture(scope="module")
def double() -> TextToImage:
    return TextToImage(tiny_pipeline(dtype=torch.float64), "double")


@pytest.mark.parametrize("scale", [1.0, 4.0], ids=["unguided", "guided"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_without_controls_the_stock_pipeline(model: TextToImage, name: str, scale: float) -> None:
    with_scheduler(model.pipeline, name)
    prompts, seeds = ["a bear", "a cat on a red background"], [3, 4]
    stock = model.pipeline(
        prompts,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        generator=generators(seeds),
        output_type="latent",
    ).images
    assert torch.equal(sample(*run_of(model, prompts, seeds, scale=scale)), stock)


def test_another_run_in_between_changes_nothing(sd: TextToImage) -> None:
    with_scheduler(sd.pipeline, "dpm++")
    alone = sample(*run_of(sd, ["a bear"], [3]))
    events = sample_events(*run_of(sd, ["a bear"], [3]))
    first = [next(events), next(events)]
    sample(*run_of(sd, ["a cat"], [5], steps=3))
    sd.pipeline.scheduler.set_timesteps(7)
    rest = list(events)
    assert torch.equal(rest[-1].latents, alone)
    assert [event.step.index for event in (*first, *rest)] == list(range(STEPS))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_sample_does_not_depend_on_its_batch(double: TextToImage, name: str) -> None:
    with_scheduler(double.pipeline, name)
    prompts, seeds = ["a bear", "a cat", "a dog"], [5, 6, 7]
    together = sample(*run_of(double, prompts, seeds))
    for row in range(3):
        alone = sample(*run_of(double, prompts[row : row + 1], seeds[row : row + 1]))
        assert float((alone[0] - together[row]).norm() / together[row].norm()) < 1e-6
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_steps_say_the_noise_level(sd: TextToImage, name: str) -> None:
    with_scheduler(sd.pipeline, name)
    sampling, noise = run_of(sd, ["a bear"], [3])
    steps = [event.step for event in sample_events(sampling, noise)]
    scheduler = sampling.scheduler
    scheduler.set_timesteps(STEPS)
    assert [step.next_sigma for step in steps[:-1]] == [step.sigma for step in steps[1:]]
    assert steps[-1].next_sigma == 0 and all(step.total == len(scheduler.timesteps) for step in steps)
    clean, drawn = torch.full((1, 4, 8, 8), 2.0), torch.full((1, 4, 8, 8), 0.5)
    for step in steps:
        theirs = scheduler.add_noise(clean, drawn, step.timestep[None])
        ours = noised(clean, drawn, step.sigma, exploding=step.variance_exploding)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_zero_terminal_noise_is_an_infinite_level() -> None:
    model = TextToImage(tiny_pipeline("v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"))
    sampling, noise = run_of(model, ["a bear"], [3], controls=[Twice()])
    events = list(sample_events(sampling, noise))
    assert events[0].step.sigma == float("inf")
    assert events[-1].latents.isfinite().all()


class Twice(Control):
    repeats = 2


class Recorder(Control):
    """Writes down which hook was called with what."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.steps: list[Step] = []

    def start_noise(self, noise: Tensor, sampling: Sampling) -> Tensor:
        self.calls.append("start_noise")
        return noise

    def embeddings(self, conditioning: Any, step: Step) -> Any:
        assert len(conditioning) == 1  # the conditional rows only
        self.calls.append("embeddings")
        return conditioning

    def model_input(self, latents: Tensor, step: Step) -> Tensor:
        assert len(latents) == 1
        self.calls.append("model_input")
        return latents

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float, step: Step) -> None:
        assert scale == 4.0 and step.guided
        self.calls.append("guidance")

    def prediction(self, prediction: Tensor, step: Step) -> Tensor:
        self.calls.append("prediction")
        return prediction

    def latents(self, latents: Tensor, step: Step) -> Tensor:
        self.calls.append("latents")
        self.steps.append(step)
        return latents

    def end(self, latents: Tensor) -> Tensor:
        self.calls.append("end")
        return latents


def test_every_hook_is_called_in_its_place_and_none_changes_anything(sd: TextToImage) -> None:
    with_scheduler(sd.pipeline, "euler")
    recorder = Recorder()
    plain = sample(*run_of(sd, ["a bear"], [3], steps=2))
    assert torch.equal(sample(*run_of(sd, ["a bear"], [3], steps=2, controls=[recorder])), plain)
    once = ["embeddings", "model_input", "guidance", "prediction", "latents"]
    assert recorder.calls == ["start_noise", *once, *once, "end"]
    unguided = Recorder()
    sample(*run_of(sd, ["a bear"], [3], steps=1, scale=1.0, controls=[unguided]))
    assert "guidance" not in unguided.calls


def changing(hook: str, value: Callable[..., Any]) -> Control:
    """A control with one hook overridden."""
    return type("Changing", (Control,), {hook: lambda self, *arguments: value(*arguments)})()


def test_what_a_hook_returns_is_used(sd: TextToImage) -> None:
    with_scheduler(sd.pipeline, "ddim")
    plain = sample(*run_of(sd, ["a bear"], [3]))

    def found(*controls: Control, **options: Any) -> Tensor:
        return sample(*run_of(sd, ["a bear"], [3], controls=controls, **options))

    other = generators([9])
    swapped = changing("start_noise", lambda noise, sampling: torch.randn(noise.shape, generator=other[0]))
    assert torch.equal(found(swapped), sample(run_of(sd, ["a bear"], [3])[0], run_of(sd, ["a bear"], [9])[1]))
    cat = sd.encode_prompts(["a cat"])
    assert torch.equal(found(changing("embeddings", lambda given, step: cat)), sample(*run_of(sd, ["a cat"], [3])))
    conditional = changing("guidance", lambda conditional, unconditional, scale, step: conditional)
    torch.testing.assert_close(found(conditional), found(scale=1.0))
    assert torch.equal(found(conditional, changing("guidance", lambda c, u, s, step: u)), found(conditional))
    assert torch.equal(found(changing("end", lambda latents: latents + 1)), plain + 1)
    add, double = changing("latents", lambda x, step: x + 1), changing("latents", lambda x, step: 2 * x)
    assert torch.equal(found(add, double, steps=1), 2 * (found(steps=1) + 1))  # in the order given
    for hook in ("model_input", "prediction"):
        assert not torch.allclose(found(changing(hook, lambda x, step: 0.5 * x)), plain)


def test_attention_scores_are_rewritten_for_the_whole_batch_and_only_if_overridden(sd: TextToImage) -> None:
    with_scheduler(sd.pipeline, "ddim")
    seen: list[tuple[int, int]] = []

    def without_bear(scores: Tensor, place: Any, step: Step) -> Tensor:
        seen.append((scores.shape[0], step.index))
        return scores.index_fill(-1, torch.tensor([2]), -torch.inf)

    processors = dict(sd.unet.attn_processors)
    plain = sample(*run_of(sd, ["a bear"], [3], steps=2))
    kept = changing("attention", lambda scores, place, step: scores)
    torch.testing.assert_close(sample(*run_of(sd, ["a bear"], [3], steps=2, controls=[kept])), plain)
    changed = sample(*run_of(sd, ["a bear"], [3], steps=2, controls=[changing("attention", without_bear)]))
    assert not torch.allclose(changed, plain, atol=1e-4)
    assert set(seen) == {(2, 0), (2, 1)}
    assert all(sd.unet.attn_processors[name] is processor for name, processor in processors.items())


@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_repetition_takes_the_variance_back_to_the_level_before(sd: TextToImage, name: str) -> None:
    """With an ideal network of clean latents 0, exact arithmetic gives x = noise of the level, and nothing else."""
    with_scheduler(sd.pipeline, name)
    before: list[tuple[Step, Tensor]] = []
    after: list[Tensor] = []
    inputs = changing("model_input", lambda x, step: before.append((step, x)) or x)
    latents = changing("latents", lambda x, step: after.append(x) or x)
    sampling, noise = run_of(sd, ["a bear"], [3], controls=[inputs, latents, Twice()])
    sample(sampling, noise)
    assert len(before) == len(after) == 2 * STEPS
    drawing = generators([3])
    standard_noise(drawing, noise)  # the start noise
    for index in range(STEPS):
        step, again = before[2 * index + 1]
        assert step.index == index
        z = standard_noise(drawing, noise)
        ab, next_ab = (1 / (1 + level**2) for level in (step.sigma, step.next_sigma))
        if step.variance_exploding:
            expected = after[2 * index] + (step.sigma**2 - step.next_sigma**2) ** 0.5 * z
            assert step.next_sigma**2 + (step.sigma**2 - step.next_sigma**2) == pytest.approx(step.sigma**2)
            again = again * (step.sigma**2 + 1) ** 0.5  # undo the scaling of the model's input
        else:
            expected = (ab / next_ab) ** 0.5 * after[2 * index] + (1 - ab / next_ab) ** 0.5 * z
            assert (ab / next_ab) * (1 - next_ab) + (1 - ab / next_ab) == pytest.approx(1 - ab)
        torch.testing.assert_close(again, expected, atol=2e-5, rtol=2e-5)


def test_repetition_starts_each_step_from_the_same_history(sd: TextToImage) -> None:
    """With the same prediction every time, linear multistep moves by the same amount in each repetition and in a run without."""
    with_scheduler(sd.pipeline, "lms")
    fixed = torch.full((1, 4, 8, 8), 0.3)
    moves: dict[int, list[tuple[int, Tensor]]] = {}
    for times in (1, 3):
        before, found = [], []
        held = changing("model_input", lambda x, step, before=before: before.append(x) or fixed)
        control = changing("latents", lambda x, step, found=found: found.append((step, x)) or x)
        control.repeats = times
        sample(*run_of(sd, ["a bear"], [3], controls=[held, control]))
        unscaled = [x * (step.sigma**2 + 1) ** 0.5 for x, (step, _) in zip(before, found, strict=True)]
        moves[times] = [(step.index, x - start) for start, (step, x) in zip(unscaled, found, strict=True)]
    once = dict(moves[1])
    assert len(moves[3]) == 3 * len(once) == 3 * STEPS
    for index, move in moves[3]:
        torch.testing.assert_close(move, once[index], atol=2e-5, rtol=0)


def test_half_steps_cannot_be_repeated(sd: TextToImage) -> None:
    with_scheduler(sd.pipeline, "heun")
    with pytest.raises(ModelError, match="2 calls a step"):
        sample(*run_of(sd, ["a bear"], [3], controls=[Twice()]))


def test_generators_and_samples_pair_up(sd: TextToImage) -> None:
    sampling, noise = run_of(sd, ["a bear"], [3])
    with pytest.raises(ModelError, match="1 generators for 2 samples"):
        sample(sampling, torch.cat([noise, noise]))


# --- image-to-image, inpainting, inversion


def picture_latents() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(11))


@pytest.mark.parametrize("name", ["ddim", "euler", "dpm++", "euler-ancestral", "heun"])
def test_image_to_image_is_the_stock_pipeline(sd: TextToImage, name: str) -> None:
    with_scheduler(sd.pipeline, name)
    stock = StableDiffusionImg2ImgPipeline(**sd.pipeline.components, requires_safety_checker=False)
    stock.set_progress_bar_config(disable=True)
    theirs = stock(
        "a bear",
        image=picture_latents(),
        strength=0.6,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        generator=generators([3]),
        output_type="latent",
    ).images
    assert torch.equal(sample(*run_of(sd, ["a bear"], [3], image=picture_latents(), strength=0.6)), theirs)


def test_a_strength_that_leaves_no_step_is_an_error(sd: TextToImage) -> None:
    with pytest.raises(ModelError, match=r"strength 0\.1 of 5 steps leaves none"):
        sample(*run_of(sd, ["a bear"], [3], image=picture_latents(), strength=0.1))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_inpainting_keeps_what_is_known_to_the_bit(sd: TextToImage, name: str) -> None:
    with_scheduler(sd.pipeline, name)
    known, drawn = picture_latents(), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    drawn[..., 2:6, 2:6] = True
    sampling, noise = run_of(sd, ["a bear"], [3])
    control = Inpainting(known, drawn, noise)
    found = sample(*run_of(sd, ["a bear"], [3], controls=[control]))
    inside = drawn.expand_as(known)
    assert torch.equal(found[~inside], known[~inside])
    assert not torch.isclose(found[inside], known[inside]).all()
    assert not torch.allclose(found[inside], sample(sampling, noise)[inside])  # it sees its surroundings
    nothing = Inpainting(known, torch.ones_like(drawn), noise)
    assert torch.equal(sample(*run_of(sd, ["a bear"], [3], controls=[nothing])), sample(*run_of(sd, ["a bear"], [3])))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_step_is_undone_by_the_prediction_it_was_made_with(prediction_type: str) -> None:
    scheduler = tiny_pipeline(prediction_type).scheduler
    scheduler.set_timesteps(STEPS)
    before, prediction = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double().unbind()
    for index, timestep in enumerate(scheduler.timesteps):
        after = scheduler.step(prediction, timestep, before).prev_sample
        step = Step(index, STEPS, timestep, 1.0, 0.5, guided=False)
        torch.testing.assert_close(undone(scheduler, after, before, prediction, step), before, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_inversion_finds_the_noise_again(prediction_type: str) -> None:
    """Error of the way there and back, relative: 1 call a step against several."""
    model = TextToImage(tiny_pipeline(prediction_type, dtype=torch.float64))
    sampling, noise = run_of(model, ["a bear"], [3], scale=1.0, steps=10)
    clean = sample(sampling, noise)
    errors = []
    for refinements in (0, 8):
        found = invert(sampling, clean, refinements=refinements)
        errors.append(float((sample(sampling, found) - clean).norm() / clean.norm()))
    assert errors[1] < 1e-4 < errors[0] < 1


def test_only_deterministic_ddim_is_inverted(sd: TextToImage) -> None:
    with_scheduler(sd.pipeline, "euler")
    with pytest.raises(ModelError, match="found EulerDiscreteScheduler with eta 0"):
        invert(run_of(sd, ["a bear"], [3])[0], picture_latents())
    with_scheduler(sd.pipeline, "ddim")
    with pytest.raises(ModelError, match=r"with eta 0\.5"):
        invert(run_of(sd, ["a bear"], [3], eta=0.5)[0], picture_latents())


# --- gradients


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "checkpoint"])
def test_gradients_reach_noise_embeddings_and_parameters(recompute: bool) -> None:
    """A directional derivative against a central difference, in double precision, through a rewritten attention."""
    model = TextToImage(tiny_pipeline(dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    tilt = torch.randn(1, 1, 64, 24, generator=generator, dtype=torch.float64)
    control = changing("attention", lambda scores, place, step: scores + tilt[:, :, : scores.shape[2]])
    kept, noise = run_of(model, ["a bear"], [3], steps=3, controls=[control])
    weight = model.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight
    points = {"noise": noise, "embedding": kept.conditioning.hidden.detach().clone(), "weight": weight.detach().clone()}
    ways = {name: torch.randn(value.shape, generator=generator).double() for name, value in points.items()}

    def loss(at: dict[str, Tensor], differentiable: bool) -> Tensor:
        conditioning = type(kept.conditioning)(at["embedding"])
        with torch.no_grad():
            weight.copy_(points["weight"] if differentiable else at["weight"])
        sampling, _ = run_of(
            model, ["a bear"], [3], steps=3, controls=[control], differentiable=differentiable, checkpoint=recompute
        )
        sampling = dataclasses.replace(sampling, conditioning=conditioning)
        return (sample(sampling, at["noise"]) ** 2).mean()

    leaves = {name: value.clone().requires_grad_() for name, value in points.items()}
    weight.requires_grad_(True)
    grads = dict(
        zip(
            points, torch.autograd.grad(loss(leaves, True), [leaves["noise"], leaves["embedding"], weight]), strict=True
        )
    )
    weight.requires_grad_(False)
    for name, way in ways.items():
        up, down = ({**points, name: points[name] + sign * 1e-5 * way} for sign in (1, -1))
        difference = float(loss(up, False) - loss(down, False)) / 2e-5
        assert float((grads[name] * way).sum()) == pytest.approx(difference, rel=1e-5), name


def test_a_plain_run_keeps_no_graph(sd: TextToImage) -> None:
    sampling, noise = run_of(sd, ["a bear"], [3], steps=1)
    events = sample_events(sampling, noise.requires_grad_())
    assert not next(events).latents.requires_grad and torch.is_grad_enabled()
