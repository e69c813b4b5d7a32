"""Transformer pipelines: what is easily guessed wrong, and noise in one language: inversion and probes on the straight line."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from peft import LoraConfig
from torch import Tensor

from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.errors import EditError, PhotopicError
from photopic.core.sampling import invert, sample
from photopic.measure.denoiser import of_straight_line, probed
from photopic.models.text_to_image.attention_weights import attention_weights
from photopic.models.text_to_image.drawing import Drawing
from photopic.models.text_to_image.families import FAMILIES
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.latents import latent_shape, to_network
from photopic.models.text_to_image.noise_schedule import StraightLine
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.tiny_transformers import GUIDANCE, PROMPTS, Recorder, handle_of, shared_handle, stock

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]
EULER = [kind for kind in FAMILIES if kind not in ("SanaPipeline", "PixArtSigmaPipeline")]


@pytest.fixture(params=EULER)
def model(request: pytest.FixtureRequest) -> TransformerTextToImage:
    return shared_handle(request.param)


def run_of(model: TransformerTextToImage, guidance: float = 1.0) -> tuple[object, Tensor]:
    generators = [torch.Generator().manual_seed(0)]
    drawing = Drawing(["a bear"], [0], GenerateConfig(steps=6, guidance=guidance))
    drawer = model._drawer
    return drawer.sampling(drawing, slice(0, 1), drawer.scheduler(drawing.config), generators)


@torch.no_grad()
def test_inversion_finds_the_noise_that_a_picture_was_drawn_from(model: TransformerTextToImage) -> None:
    """Each refinement of the fixed-point iteration comes nearer; the weights here are random, so that it may be slow."""
    sampling, noise = run_of(model)
    clean = sample(sampling, noise)
    apart = [float((invert(sampling, clean, refinements=each) - noise).norm() / noise.norm()) for each in (0, 3, 20)]
    assert apart[2] < 0.02 and apart[2] < apart[1] < apart[0] and not torch.allclose(clean, noise, atol=0.1)


def test_what_is_stochastic_is_not_walked_backwards() -> None:
    model = handle_of("FluxPipeline")
    model.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, stochastic_sampling=True)
    sampling, noise = run_of(model)
    with pytest.raises(PhotopicError, match="only deterministic samplers of one call a step are walked backwards"):
        invert(sampling, noise)


@pytest.mark.parametrize("kind", ["FluxPipeline", "CogView4Pipeline", "Lumina2Pipeline", "PixArtSigmaPipeline"])
@torch.no_grad()
def test_a_probe_sees_the_same_denoiser_as_the_loss(kind: str) -> None:
    """What a process says of noisy pictures and of the noise in them is what the model's own schedule says."""
    model, line = shared_handle(kind), shared_handle(kind).schedule
    found = probed(model, prompt="a bear")
    assert found.process.timesteps == 1000
    picture = torch.randint(256, (1, found.size, found.size, 3), dtype=torch.uint8)
    clean = found.clean(picture).float()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    at = torch.tensor([600])
    noisy = found.process.noised(clean, noise, at)
    implied = found.process.to_noise(found.denoiser(noisy, at), noisy, at)
    time = at + 1 if isinstance(line, StraightLine) else at
    own = line.add_noise(clean, noise, time)
    said = line.to_noise(model.predict(own, time, model.encode_prompts("a bear")), own, time)
    torch.testing.assert_close(implied, said, rtol=1e-3, atol=1e-3)
    assert (noisy - own).abs().max() > 0.01 or not isinstance(line, StraightLine)  # they differ by a factor


def test_the_process_of_a_flow_keeps_variance_and_ends_in_noise() -> None:
    process, _ = of_straight_line(StraightLine(1000), lambda noisy, time: noisy)
    alphas, sigmas = process.schedule.alphas, process.schedule.sigmas
    torch.testing.assert_close(alphas.square() + sigmas.square(), torch.ones(1000, dtype=torch.float64))
    assert alphas[-1] == 0 and alphas[499] == pytest.approx(math.sqrt(0.5))  # s = 1/2: as much picture as noise


def wide(model: TransformerTextToImage) -> Iterator[tuple[Tensor, Tensor]]:
    """Predictions of ours and of the stock pipeline for a picture twice as wide as high."""
    side, recorder = model.image_size, Recorder()
    model.generate(PROMPTS[:1], seeds=[0], steps=2, guidance=GUIDANCE, height=side, width=2 * side, controls=[recorder])
    pipeline = model.pipeline
    own = type(pipeline).__call__

    def widened(self: object, **options: object) -> object:
        return own(self, **options | {"width": 2 * side})

    kind = type(pipeline)
    pipeline.__class__ = type(kind.__name__, (kind,), {"__call__": widened})
    try:
        found = stock(model, PROMPTS[:1], [0], GUIDANCE)[0]
    finally:
        pipeline.__class__ = kind
    yield from zip(recorder.found, found, strict=True)


@pytest.mark.parametrize("kind", ["Lumina2Pipeline", "LongCatImagePipeline", "QwenImagePipeline", "FluxPipeline"])
def test_pictures_that_are_not_square_are_the_stock_pipelines(kind: str) -> None:
    """Lumina 2's renormalisation runs along the width, and its shift goes by the channels; others' shift by the size."""
    model = shared_handle(kind)
    for own, expected in wide(model):
        given = to_network(own, model.family.layout) if expected.ndim == 3 else own
        assert given.shape == expected.shape
        assert (given - expected).norm() <= 1e-5 * expected.norm()


def test_the_shift_of_lumina_2_does_not_go_by_the_size() -> None:
    told = {}
    for kind in ("Lumina2Pipeline", "FluxPipeline"):
        model, found = shared_handle(kind), []
        first = model.image_size
        try:
            for side in (first, 2 * first):
                model.image_size = side
                found.append(model._captured(["a"]).schedule["mu"])
        finally:
            model.image_size = first
        told[kind] = found
    assert (
        told["Lumina2Pipeline"][0] == told["Lumina2Pipeline"][1] and told["FluxPipeline"][0] < told["FluxPipeline"][1]
    )


def test_an_edit_is_not_loaded_beside_an_adapter_of_others_that_renames_its_layers() -> None:
    model = handle_of("FluxPipeline")
    weights = attention_weights(model)
    edit = Edit((ZeroedWeights({name: torch.arange(4) for name in weights}),), model.fingerprint(*weights))
    model.network.add_adapter(LoraConfig(r=1, target_modules=["add_k_proj", "to_k"]))
    with pytest.raises(PhotopicError, match=r"peft|adapter") as caught:
        model.edits.load(edit)
    assert isinstance(caught.value, EditError) and "\n" not in str(caught.value)
    model.network.delete_adapters("default")
    model.network.unload_lora()
    with model.edits.applied(edit):
        assert set(attention_weights(model)) == set(weights)


def test_what_longcat_spells_out_is_not_found_and_the_reason_is_said() -> None:
    model = shared_handle("LongCatImagePipeline")
    assert model.token_positions("a bear on a house", "bear")
    with pytest.raises(PhotopicError, match="the pipeline spells it out; shorten the prompt, or leave quotes out"):
        model.token_positions('a "bear" on a house', "bear")


@pytest.mark.parametrize("kind", FAMILIES)
def test_another_familys_edit_is_refused_in_one_line(kind: str) -> None:
    other = shared_handle("SanaPipeline" if kind != "SanaPipeline" else "FluxPipeline")
    weights = attention_weights(other)
    edit = Edit((ZeroedWeights({name: torch.arange(4) for name in weights}),), other.fingerprint(*weights))
    with pytest.raises(PhotopicError) as caught:
        shared_handle(kind).edits.load(edit)
    assert "\n" not in str(caught.value) and "tiny" in str(caught.value)


def test_latents_have_one_layout_whatever_the_pipeline_returns() -> None:
    """Klein hands out unpatchified maps and Flux 2 tokens; here both are the scheduler's latents as maps."""
    for kind in ("Flux2Pipeline", "Flux2KleinPipeline"):
        model = shared_handle(kind)
        latents = model.encode_images(torch.zeros(1, 3, model.image_size, model.image_size))
        assert latents.shape[1:] == latent_shape(model.pipeline, model.family, model.image_size, model.image_size)
        assert (
            latents.shape[1] == 16
            and model.predict(latents, torch.tensor([500]), model.encode_prompts("a")).shape == latents.shape
        )
