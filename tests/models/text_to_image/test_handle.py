"""The handle says what the pipeline does, for every shape of pipeline, and refuses what it cannot hold."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from photopic.core.edits import Edit, TokenEmbedding, ZeroedWeights
from photopic.core.errors import ModelError, PhotopicError
from photopic.core.fingerprint import fingerprint
from photopic.core.nn.hooks import tap
from photopic.models.text_to_image.checks import check_pipeline
from photopic.models.text_to_image.conditioning import TruncatedPromptWarning
from photopic.models.text_to_image.handle import Generated, TextToImage
from tests.tiny import IMAGE_SIZE, tiny_pipeline, tiny_sdxl_pipeline

EULER_WARNS = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with NumPy 2
WEIGHT = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture(scope="module", params=[tiny_pipeline, tiny_sdxl_pipeline], ids=["sd", "sdxl"])
def model(request: pytest.FixtureRequest) -> TextToImage:
    return TextToImage(request.param(), "tiny")


@pytest.fixture(scope="module")
def sd() -> TextToImage:
    return TextToImage(tiny_pipeline("v_prediction"), "tiny")


def test_predict_is_the_unet_call_the_pipeline_makes(model: TextToImage) -> None:
    with tap(model.unet, "", inputs=True) as given, tap(model.unet, "") as made:
        model.pipeline(["a bear", "a cat"], num_inference_steps=2, guidance_scale=1.0, output_type="latent")
    timestep = model.pipeline.scheduler.timesteps[0]
    ours = model.predict(given[""][0], timestep, model.encode_prompts(["a bear", "a cat"]))
    torch.testing.assert_close(ours, made[""][0][0])


def test_sdxl_conditioning_has_pooled_text_and_sizes() -> None:
    conditioning = TextToImage(tiny_sdxl_pipeline(), "tiny").encode_prompts(["a bear", "a cat"])
    assert conditioning.hidden.shape == (2, 24, 64)
    assert conditioning.pooled is not None and conditioning.pooled.shape == (2, 32)
    assert conditioning.time_ids is not None
    assert conditioning.time_ids.tolist() == [[32, 32, 0, 0, 32, 32]] * 2
    repeated = conditioning[[1, 1, 0]]
    assert len(repeated) == 3
    assert repeated.pooled is not None and torch.equal(repeated.pooled[0], conditioning.pooled[1])


def test_a_picture_does_not_depend_on_its_batch(model: TextToImage) -> None:
    prompts = ["a bear", "a cat on a red background", "a dog"]
    floats, images = {}, {}
    for batch in (1, 2, 3):
        with tap(model.pipeline.vae, "decoder") as seen:
            images[batch] = model.generate(prompts, seeds=[5, 6, 7], steps=4, batch=batch)
        floats[batch] = torch.cat(seen["decoder"])
        assert images[batch].shape == (3, IMAGE_SIZE, IMAGE_SIZE, 3) and images[batch].dtype == np.uint8
        assert np.abs(images[batch].astype(int) - images[1]).max() <= 1  # of 255, as docs/sampling.md says
    torch.testing.assert_close(floats[1], floats[3], atol=1e-4, rtol=0)
    torch.testing.assert_close(floats[2], floats[3], atol=1e-4, rtol=0)
    assert not torch.allclose(floats[3][0], floats[3][1], atol=1e-2)


@EULER_WARNS
def test_a_picture_does_not_depend_on_its_batch_with_an_ancestral_sampler() -> None:
    pipeline = tiny_pipeline()
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    model = TextToImage(pipeline, "tiny")
    together = model.generate("a bear", seeds=[1, 2], steps=3)
    alone = model.generate("a bear", seeds=[2], steps=3)
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1


def test_generate_equals_the_stock_pipeline(sd: TextToImage) -> None:
    stock = sd.pipeline(
        "a bear",
        num_inference_steps=3,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(4),
        output_type="np",
    ).images
    assert np.array_equal(sd.generate("a bear", seeds=[4], steps=3), (stock * 255).round().astype(np.uint8))


def test_events_and_steps_count_to_the_end(sd: TextToImage) -> None:
    steps: list[tuple[int, int]] = []
    events: list[Generated] = list(
        sd.generate_events(
            "a bear", seeds=range(3), steps=2, batch=2, on_step=lambda done, total: steps.append((done, total))
        )
    )
    assert [(event.done, event.total, len(event.images)) for event in events] == [(2, 3, 2), (3, 3, 1)]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert sd.generate([], seeds=[]).shape == (0, IMAGE_SIZE, IMAGE_SIZE, 3)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_prediction_type_is_read_from_the_scheduler(prediction_type: str) -> None:
    assert TextToImage(tiny_pipeline(prediction_type)).prediction_type == prediction_type


@EULER_WARNS
def test_training_schedule_does_not_depend_on_the_sampler() -> None:
    pipeline = tiny_pipeline("v_prediction")
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    before = TextToImage(pipeline).schedule.add_noise(latents, noise, torch.tensor([700]))
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    model = TextToImage(pipeline)
    model.generate("a bear", seeds=[0], steps=2)
    torch.testing.assert_close(model.schedule.add_noise(latents, noise, torch.tensor([700])), before)


def test_images_are_encoded_to_scaled_posterior_means_and_back(sd: TextToImage) -> None:
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = sd.encode_images(images)
    vae = sd.pipeline.vae
    with torch.no_grad():
        torch.testing.assert_close(latents, vae.encode(images).latent_dist.mode() * vae.config.scaling_factor)
        expected = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
    torch.testing.assert_close(sd.decode(latents), expected)


def test_half_precision_handles_and_restores_its_vae() -> None:
    model = TextToImage(tiny_pipeline(dtype=torch.float16))
    before = copy.deepcopy(model.pipeline.vae.state_dict())
    latents = model.encode_images(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE))
    assert latents.dtype == model.dtype == torch.float16
    assert model.decode(latents).dtype == torch.float16
    assert model.predict(latents.float(), torch.tensor([3]), model.encode_prompts("a bear")).dtype == torch.float16
    assert all(torch.equal(value, before[name]) for name, value in model.pipeline.vae.state_dict().items())


def test_positions_of_words_come_from_the_tokenizer(model: TextToImage) -> None:
    prompt = "a zz bear on a  Red background, a bear"
    ids = next(iter(model.tokenizers.values())).convert_ids_to_tokens(model.pipeline.tokenizer(prompt).input_ids)
    for word, tokens in {
        "bear": ["bear</w>"] * 2,
        "zz": ["z", "z</w>"],
        "red": ["red</w>"],
        "a": ["a</w>"] * 3,
    }.items():
        assert [ids[position] for position in model.token_positions(prompt, word)] == tokens
    assert model.token_positions("a bear on a red background", "red background") == [5, 6]


def test_positions_of_missing_or_cut_words_are_errors(sd: TextToImage) -> None:
    with pytest.raises(ModelError, match="'bea' is not a word of the prompt 'a bear'"):
        sd.token_positions("a bear", "bea")
    with pytest.raises(ModelError, match="'cat' lies beyond the 24 tokens"):
        sd.token_positions("a " * 30 + "cat", "cat")


def test_long_prompts_warn_with_what_is_dropped(sd: TextToImage) -> None:
    prompt = "a " * 21 + "bear on red"
    with pytest.warns(TruncatedPromptWarning, match="has 26 tokens, the text encoder reads 24: 'on red' is dropped"):
        sd.encode_prompts(prompt)
    with pytest.warns(TruncatedPromptWarning):
        sd.generate(prompt, seeds=[0], steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sd.encode_prompts("a " * 21 + "bear")


def test_edits_reach_the_weights_and_the_tokenizer_and_leave_no_trace(sd: TextToImage) -> None:
    base = fingerprint(sd.components, sd.name, [WEIGHT])
    row = TokenEmbedding("<mine>", {"text_encoder": torch.full((32,), 0.1)})
    edit = Edit(parts=(ZeroedWeights({WEIGHT: torch.arange(50)}), row), base=base, provenance={})
    before, tokenizer = sd.digest(), sd.pipeline.tokenizer
    plain = sd.generate("a <mine> bear", seeds=[0], steps=2)
    with sd.edits.applied(edit):
        assert sd.token_positions("a <mine> bear", "<mine>") == [2]
        assert sd.pipeline.tokenizer is tokenizer and "<mine>" in tokenizer.get_vocab()  # never swapped
        assert not np.array_equal(sd.generate("a <mine> bear", seeds=[0], steps=2), plain)
    assert sd.pipeline.tokenizer is tokenizer and "<mine>" not in tokenizer.get_vocab()
    assert sd.digest() == before
    assert np.array_equal(sd.generate("a <mine> bear", seeds=[0], steps=2), plain)


def test_a_legacy_end_token_does_not_pool_at_an_added_token() -> None:
    pipelines = [tiny_sdxl_pipeline(), tiny_sdxl_pipeline()]
    for part in pipelines[1].text_encoder_2.modules():
        if hasattr(part, "eos_token_id"):
            part.eos_token_id = 2  # what configurations before transformers 4.31 say
    pooled = []
    for pipeline in pipelines:
        model = TextToImage(pipeline, "tiny")
        rows = {name: torch.full((32,), 0.1) for name in model.tokenizers}
        base = fingerprint(model.components, model.name)
        with model.edits.applied(Edit(parts=(TokenEmbedding("<mine>", rows),), base=base, provenance={})):
            pooled.append(model.encode_prompts("a <mine> bear").pooled)
    torch.testing.assert_close(pooled[0], pooled[1])


def test_wrong_pipelines_are_refused_in_one_line() -> None:
    tiny = tiny_pipeline()
    cases: list[tuple[Any, str]] = [
        (DDPMPipeline(UNet2DModel(block_out_channels=(32, 32), down_block_types=("DownBlock2D",) * 2,
                                  up_block_types=("UpBlock2D",) * 2), tiny.scheduler), "has no UNet2DConditionModel"),
        (StableDiffusionImg2ImgPipeline(**tiny.components, requires_safety_checker=False), "from text alone"),
    ]  # fmt: skip
    broken = tiny_pipeline()
    broken.text_encoder = None
    cases.append((broken, "has no text_encoder"))
    broken = tiny_pipeline()
    broken.tokenizer = None
    cases.append((broken, "has no tokenizer"))
    broken = tiny_pipeline()
    broken.unet = UNet2DConditionModel.from_config(broken.unet.config, in_channels=9)
    cases.append((broken, "inpainting and depth models"))
    broken = tiny_pipeline()
    broken.tokenizer.model_max_length = 10**30
    cases.append((broken, "set model_max_length to 24"))
    broken = tiny_pipeline()
    broken.scheduler = FlowMatchEulerDiscreteScheduler()
    cases.append((broken, "has no alphas_cumprod"))
    broken = tiny_pipeline()
    broken.scheduler.register_to_config(prediction_type="flow")
    cases.append((broken, "prediction_type 'flow'"))
    for pipeline, message in cases:
        with pytest.raises(ModelError, match=message) as caught:
            TextToImage(pipeline, "mine")
        assert str(caught.value).startswith("mine: ") and "\n" not in str(caught.value)


def test_a_bare_network_is_refused() -> None:
    with pytest.raises(ModelError, match="expected a diffusers pipeline, found UNet2DConditionModel"):
        check_pipeline(tiny_pipeline().unet, "mine")


def test_a_scheduler_that_clips_latents_is_refused_at_any_time() -> None:
    pipeline = tiny_pipeline()
    model = TextToImage(pipeline, "mine")
    pipeline.scheduler.register_to_config(clip_sample=True)
    with pytest.raises(ModelError, match="clip_sample=True"):
        model.generate("a bear", seeds=[0])
    with pytest.raises(ModelError, match="set clip_sample to false"):
        TextToImage(pipeline, "mine")


def test_impossible_requests_are_errors(sd: TextToImage) -> None:
    for prompts, options, message in [
        (["a", "b"], {"seeds": [1]}, "2 prompts but 1 seeds"),
        ("a", {"seeds": [1], "steps": 0}, "steps: expected 1 or more, found 0"),
        ("a", {"seeds": [1], "batch": 0}, "batch: expected 1 or more, found 0"),
        ("a", {"seeds": [2**70]}, "does not fit 64 bits"),
    ]:
        with pytest.raises(PhotopicError, match=message):
            sd.generate(prompts, **options)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="got no prompt"):
        sd.encode_prompts([])
    with pytest.raises(ModelError, match="30x32, sides must be multiples of 4"):
        sd.encode_images(torch.zeros(1, 3, 32, 30))
