"""Where a good guess about a transformer pipeline is wrong, its schedulers, and pictures to start from."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.sampling import Control, Step
from photopic.models.text_to_image.latents import to_network
from photopic.models.text_to_image.noise_schedule import StraightLine
from photopic.models.text_to_image.schedulers import flow_scheduler
from photopic.models.text_to_image.transformer_drawing import call_arguments, told_scheduler
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.tiny_transformers import (
    GUIDANCE,
    PROMPTS,
    STEPS,
    drawn,
    handle_of,
    shared_handle,
    stock,
    tiny_transformer_pipeline,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]


# faults of good guesses


def test_cogview4_is_told_another_time_than_its_noise() -> None:
    model = shared_handle("CogView4Pipeline")
    schedule = model.schedule
    assert isinstance(schedule, StraightLine) and schedule.shift != 1
    seen: list[tuple[float, float]] = []

    class Levels(Control):
        def latents(self, latents: Tensor, step: Step) -> Tensor:
            seen.append((float(step.timestep), 1.0 if step.sigma == np.inf else step.sigma / (1 + step.sigma)))
            return latents

    model.generate("a bear", seeds=[0], steps=4, controls=[Levels()])
    for time, share in seen:
        found = schedule.sigmas(torch.zeros(1, 1, 1, 1), torch.tensor([time]))
        assert float(found) == pytest.approx(share, abs=1e-5)
    assert any(abs(time / 1000 - share) > 0.01 for time, share in seen)


def test_cogview4_draws_a_prompt_alike_in_every_batch() -> None:
    model = shared_handle("CogView4Pipeline")
    prompts = ["a bear", " ".join(["a cat and a dog"] * 6)]  # of different multiples of 16 tokens
    options = {"steps": STEPS, "guidance": GUIDANCE}
    together = model.generate(prompts, seeds=[0, 1], **options)
    assert np.abs(together[0].astype(int) - model.generate(prompts[:1], seeds=[0], **options)[0]).max() <= 1


@pytest.mark.parametrize("kind", ["ZImagePipeline", "Krea2Pipeline"])
def test_guidance_of_1_is_none_where_the_pipelines_own_number_is_one_less(kind: str) -> None:
    model = shared_handle(kind)
    assert call_arguments(model.pipeline, model.family, ["a"], (16, 16), guidance=2.0)["guidance_scale"] == 1.0
    unguided = drawn(model, PROMPTS[:1], [0], 1.0)[0][0]
    wanted = {scale: stock(model, PROMPTS[:1], [0], scale + 1)[0][0] for scale in (0.0, 1.0)}  # in its own count
    own = to_network(unguided, "packed") if wanted[0].ndim == 3 else unguided
    torch.testing.assert_close(own, wanted[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(wanted[0], wanted[1], atol=1e-4)  # its 1 is not off


def test_chroma_lets_the_picture_see_padding_as_the_stock_pipeline_does() -> None:
    model = shared_handle("ChromaPipeline")
    said = model.encode_prompts("a bear")
    row = dict(said.rows[0])
    assert row["attention_mask"].is_floating_point()  # added to the scores, where a mask of truth values would hide
    other = row | {"encoder_hidden_states": row["encoder_hidden_states"].clone()}
    other["encoder_hidden_states"][:, -1] += 1
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    first, second = (model.predict(latents, torch.tensor([500]), type(said)((each,), ("",))) for each in (row, other))
    assert not torch.equal(first, second)


def test_ernie_ignores_the_epsilon_of_its_vaes_configuration() -> None:
    model = shared_handle("ErnieImagePipeline")
    assert model.pipeline.vae.config.batch_norm_eps != 1e-5
    latents = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    given: list[Tensor] = []
    decode, vae = model.pipeline.vae.decode, model.pipeline.vae
    vae.decode = lambda z, **options: (given.append(z), decode(z, **options))[1]
    try:
        model.decode(latents)
    finally:
        del vae.decode
    deviation = (vae.bn.running_var.view(1, -1, 1, 1) + 1e-5).sqrt()
    wanted = model.pipeline._unpatchify_latents(latents * deviation + vae.bn.running_mean.view(1, -1, 1, 1))
    torch.testing.assert_close(given[0], wanted, rtol=1e-6, atol=1e-6)


def test_prompts_in_quotes_are_read_by_the_encoder_of_bytes() -> None:
    model = shared_handle("HunyuanImagePipeline")
    plain, quoted = (model.encode_prompts(f"a house with {word} on it").rows[0] for word in ("red", '"red"'))
    assert not plain["encoder_attention_mask_2"].any() and quoted["encoder_attention_mask_2"].any()
    prompts = ['a house with "red" on it']
    predictions, wanted = drawn(model, prompts, [0], GUIDANCE)[0], stock(model, prompts, [0], GUIDANCE)[0]
    torch.testing.assert_close(predictions[0], wanted[0], rtol=1e-4, atol=1e-5)


def test_the_second_network_is_for_the_unconditional_half_alone() -> None:
    model = handle_of("Ideogram4Pipeline")
    plain, guided = (drawn(model, PROMPTS[:1], [0], scale)[0][0] for scale in (1.0, GUIDANCE))
    with torch.no_grad():
        for parameter in model.pipeline.unconditional_transformer.parameters():
            parameter.mul_(1.1)
    assert torch.equal(drawn(model, PROMPTS[:1], [0], 1.0)[0][0], plain)
    assert not torch.allclose(drawn(model, PROMPTS[:1], [0], GUIDANCE)[0][0], guided, atol=1e-4)


def test_a_distilled_klein_has_no_unconditional_half() -> None:
    pipeline = tiny_transformer_pipeline("Flux2KleinPipeline")
    pipeline.register_to_config(is_distilled=True)
    model = TransformerTextToImage(pipeline, "tiny")
    model.image_size = 16
    found = [model.generate("a bear", seeds=[0], steps=STEPS, guidance=scale) for scale in (1.0, 4.0)]
    assert np.array_equal(*found)
    with pytest.raises(ModelError, match="a negative prompt has no effect"):
        model.generate("a bear", seeds=[0], negative_prompt="a cat")


def test_qwen_image_is_guided_without_a_negative_prompt_as_with_an_empty_one() -> None:
    model = shared_handle("QwenImagePipeline")
    plain = model.generate("a bear", seeds=[0], steps=2, guidance=1.0)
    guided = [model.generate("a bear", seeds=[0], steps=2, guidance=9.0, negative_prompt=each) for each in (None, "")]
    assert np.array_equal(*guided) and not np.array_equal(plain, guided[0])


def test_rows_of_two_times_are_those_of_one_each() -> None:
    model = shared_handle("StableDiffusion3Pipeline")
    said, latents = model.encode_prompts(PROMPTS), torch.randn(2, 4, 8, 8)
    together = model.predict(latents, torch.tensor([100.0, 900.0]), said)
    for row, time in enumerate((100.0, 900.0)):
        alone = model.predict(latents[[row]], torch.tensor([time]), said[[row]])
        torch.testing.assert_close(together[[row]], alone, rtol=1e-5, atol=1e-6)


# schedulers, pictures to start from


def test_dpm_solver_is_told_what_it_takes() -> None:
    """It refuses a shift by the size that is linear, or none, and timesteps beside their number."""
    own = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear")
    asked = flow_scheduler("dpm++", own, 4, "tiny")
    found, told = told_scheduler(asked, {"mu": 0.7, "sigmas": [1.0], "timesteps": [900]}, own)
    assert found.config.flow_shift == pytest.approx(0.7) and told == {}
    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    found, told = told_scheduler(flow_scheduler("dpm++", own, 4, "tiny"), {"mu": 0.7}, own)
    assert found.config.flow_shift == 3.0 and told == {}


@pytest.mark.parametrize(("kind", "shift"), [("exponential", np.exp(0.7)), ("linear", 0.7)])
def test_a_scheduler_that_takes_no_mu_gets_the_shift_it_stands_for(kind: str, shift: float) -> None:
    own = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    asked = flow_scheduler("heun", own, 4, "tiny")
    found, told = told_scheduler(asked, {"mu": 0.7, "sigmas": [1.0]}, own)
    assert found.config.shift == pytest.approx(shift) and told == {}
    assert told_scheduler(own, {"mu": 0.7, "sigmas": [1.0]}, own)[1] == {"mu": 0.7, "sigmas": [1.0]}


def test_heun_draws_as_the_stock_pipeline_with_it() -> None:
    model = handle_of("StableDiffusion3Pipeline")  # its own: the scheduler stays
    model.pipeline.scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    wanted = stock(model, PROMPTS[:1], [0], GUIDANCE)[1]
    assert np.array_equal(drawn(model, PROMPTS[:1], [0], GUIDANCE)[1], wanted)


@pytest.mark.parametrize("kind", ["FluxPipeline", "PixArtSigmaPipeline"])
def test_what_is_outside_a_mask_stays_and_a_weak_start_keeps_the_picture(kind: str) -> None:
    model = shared_handle(kind)
    side = model.image_size
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), bool)
    mask[: side // 2] = True
    drawn = model.generate("a bear", seeds=[0], steps=4, image=picture, mask=mask)[0]
    assert np.array_equal(drawn[~mask], picture[~mask]) and not np.array_equal(drawn[mask], picture[mask])
    weak, strong = (
        model.generate("a bear", seeds=[0], steps=8, image=picture, strength=share)[0].astype(float)
        for share in (0.125, 1.0)
    )
    vae = model.decode(model.encode_images(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1))
    seen = (vae[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(weak - seen).mean() < np.abs(strong - seen).mean()
