"""Transformer pipelines, a tiny random one of each class: samplers, pictures to start from, layouts, the diffusion classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photopic.core.sampling import Control, Sampling, Step, sample
from photopic.core.sampling.levels import share_of
from photopic.data.layout import Layout, Region
from photopic.generate.guidance.layout_guidance import LayoutGuidance
from photopic.measure.diffusion_classifier import noise_errors
from photopic.models.text_to_image.capture import by_name
from photopic.models.text_to_image.denoiser import argument_names
from photopic.models.text_to_image.drawing import Drawing
from photopic.models.text_to_image.families import FAMILIES
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.latents import latent_shape
from photopic.models.text_to_image.schedulers import FLOW_SCHEDULERS
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.tiny_transformers import shared_handle

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]
EACH = [name for name in FLOW_SCHEDULERS if name != "dpm++-sde"]  # which is dpm++ but for its noise
SDE = [("FluxPipeline", "dpm++-sde"), ("CogView4Pipeline", "dpm++-sde")]
FLOW = [kind for kind, family in FAMILIES.items() if family.predicts == "velocity"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> TransformerTextToImage:
    return shared_handle(request.param)


def run_of(
    model: TransformerTextToImage,
    control: Control,
    *,
    prompt: str = "a bear",
    picture: np.ndarray | None = None,
    **options: object,
) -> tuple[Sampling, Tensor]:
    """A run of one picture, and the noise it starts from."""
    mask = None
    if picture is not None:
        mask = np.zeros(picture.shape[:2], bool)
        mask[: len(mask) // 2] = True  # the upper half is drawn
    config = GenerateConfig(guidance=1.0, **options)  # type: ignore[arg-type]
    drawing, drawer = Drawing([prompt], [0], config, [control], picture, mask), model._drawer
    return drawer.sampling(drawing, slice(0, 1), drawer.scheduler(config), [torch.Generator().manual_seed(0)])


class Perfect(Control):
    """Predicts the velocity towards one picture, at the noise level that the sampler says it is at."""

    def __init__(self, clean: Tensor):
        self.clean, self.shares = clean, list[float]()

    def model_input(self, latents: Tensor, step: Step) -> Tensor:
        self.given = latents
        return latents

    def prediction(self, prediction: Tensor, step: Step) -> Tensor:
        self.shares.append(share_of(step.sigma))
        return (self.given - self.clean) / self.shares[-1]  # x_s = x_0 + s v


@pytest.mark.parametrize(("kind", "name"), [*((kind, name) for kind in FLOW for name in EACH), *SDE])
@torch.no_grad()
def test_every_sampler_ends_where_a_perfect_prediction_points(kind: str, name: str) -> None:
    """And the network is told the time of the noise that it is given, by the schedule that losses and probes use."""
    model = shared_handle(kind)
    shape = latent_shape(model.pipeline, model.family, model.image_size, model.image_size)
    control = Perfect(torch.randn(1, *shape, generator=torch.Generator().manual_seed(1)))
    told: list[Tensor] = []

    def keep(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = by_name(network, args, kwargs)
        told.append(arguments[argument_names(network)[1]].flatten()[:1].float())

    (slope, start), run = model.family.time, run_of(model, control, steps=2, scheduler=name)
    hook = model.network.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        found = sample(*run)
    finally:
        hook.remove()
    torch.testing.assert_close(found, control.clean, rtol=1e-3, atol=1e-3)
    assert len(control.shares) == (3 if name == "heun" else 2)
    for time, share in zip(told, control.shares, strict=True):  # DPM-Solver rounds times to whole ones
        own = model.schedule.sigmas(found, (time - start) / slope)
        assert float(own) == pytest.approx(share, abs=3e-3)


class Kept(Control):
    """The latents before the first step and after each."""

    def __init__(self) -> None:
        self.found: list[tuple[Tensor, Step]] = []

    def model_input(self, latents: Tensor, step: Step) -> Tensor:
        self.found.append((latents, step))
        return latents


def test_a_picture_is_drawn_from_its_noise_level_on_and_what_is_known_is_put_back(
    model: TransformerTextToImage,
) -> None:
    side, kept = model.image_size, Kept()
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    sampling, noise = run_of(model, kept, picture=picture, steps=4, strength=0.5)
    known = model.encode_images(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1)
    last = sample(sampling, noise)
    half = known.shape[2] // 2
    assert len(kept.found) == 2
    for number, (latents, step) in enumerate(kept.found):
        wanted = model.schedule.add_noise(known, noise, step.timestep.reshape(1))
        rows = slice(0 if number == 0 else half, None)  # later only what is below the mask
        torch.testing.assert_close(latents[:, :, rows], wanted[:, :, rows], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(last[:, :, half:], known[:, :, half:])
    assert not torch.allclose(last[:, :, :half], known[:, :, :half], atol=0.05)


@torch.no_grad()
def test_a_layout_puts_the_attention_to_a_word_into_its_region(model: TransformerTextToImage) -> None:
    layout = Layout((Region("bear", (0.0, 0.0, 0.5, 1.0)), Region("mug", (0.5, 0.0, 1.0, 1.0))))
    prompt = "a bear and a mug"
    with model.text_maps([model.token_positions(prompt, word) for word in ("bear", "mug")]) as maps:
        sample(*run_of(model, LayoutGuidance(layout), prompt=prompt, steps=2))
    bear, mug = maps.mean()
    half = bear.shape[1] // 2
    assert bear[:, half:].sum() < 0.05 * bear.sum() and mug[:, :half].sum() < 0.05 * mug.sum()


@torch.no_grad()
def test_the_diffusion_classifiers_error_is_that_of_the_noise_a_prediction_implies(
    model: TransformerTextToImage,
) -> None:
    schedule, time = model.schedule, torch.tensor([700])
    draw = torch.Generator().manual_seed(int(np.random.SeedSequence((3, 0, 1)).generate_state(1)[0]))
    shape = latent_shape(model.pipeline, model.family, model.image_size, model.image_size)
    clean = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    said, noise = model.encode_prompts(["a bear", "a cat"]), torch.randn(1, *shape, generator=draw)
    (found,) = noise_errors(model, clean, said, [700], [(3, 0, 1)])  # (timesteps, classes)
    if model.family.predicts == "scheduler":  # the noise itself
        kept = model.pipeline.scheduler.alphas_cumprod[700]
        noisy, scale, target = kept.sqrt() * clean + (1 - kept).sqrt() * noise, 1.0, noise
    else:
        shift = schedule.shift  # type: ignore[union-attr]
        sigma = shift * 0.7 / (1 + (shift - 1) * 0.7)  # 0.7 where nothing is shifted against the time
        # e - e' = (1 - sigma) (v - v'), with v = e - x_0
        noisy, scale, target = (1 - sigma) * clean + sigma * noise, 1 - sigma, noise - clean
    for place in range(2):
        wanted = (scale * (model.predict(noisy, time, said[[place]]) - target)).square().mean()
        torch.testing.assert_close(found[place], wanted, rtol=1e-4, atol=1e-6)
