"""Pictures equal the stock pipeline's to the bit, whatever the sampler; options do what they say; impossible ones are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPAGPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

import photopic
from photopic.core.errors import DataError, ModelError
from photopic.core.sampling import Control, Step
from photopic.models.text_to_image.checks import paired
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.schedulers import SCHEDULERS, scheduler_named
from photopic.models.text_to_image.start_image import read_start
from tests.tiny import IMAGE_SIZE, tiny_pipeline, tiny_sdxl_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with NumPy 2


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def model(request: pytest.FixtureRequest) -> TextToImage:
    return TextToImage(tiny_pipeline() if request.param == "sd" else tiny_sdxl_pipeline(), "tiny")


@pytest.fixture(scope="module")
def sd() -> TextToImage:
    return TextToImage(tiny_pipeline(), "tiny")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)


def stock(model: TextToImage, prompts: list[str], seeds: list[int], **options: Any) -> np.ndarray:
    drawn = model.pipeline(
        prompts,
        num_inference_steps=3,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
        **options,
    ).images
    return (drawn * 255).round().astype(np.uint8)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_pictures_are_the_stock_pipelines_with_every_sampler(model: TextToImage, name: str) -> None:
    own, prompts, seeds = model.pipeline.scheduler, ["a bear", "a cat"], [1, 2]
    ours = model.generate(prompts, seeds=seeds, steps=3, scheduler=name)
    assert model.pipeline.scheduler is own
    model.pipeline.scheduler = scheduler_named(name, own)
    assert np.array_equal(ours, stock(model, prompts, seeds, guidance_scale=5.0))
    model.pipeline.scheduler = own


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("name", ["ddim", "euler-ancestral", "dpm++"])
def test_the_bundled_model_draws_as_its_pipeline(name: str, guidance: float) -> None:
    model = photopic.load("emoji-diffusion", device="cpu")
    ours = model.generate("a bear on a red background", seeds=[7], steps=3, guidance=guidance, scheduler=name)
    model.pipeline.scheduler = scheduler_named(name, model.pipeline.scheduler)
    assert np.array_equal(ours, stock(model, ["a bear on a red background"], [7], guidance_scale=guidance))


def test_negative_prompts_are_the_pipelines(model: TextToImage) -> None:
    prompts, seeds = ["a bear", "a cat"], [1, 2]
    each = model.generate(prompts, seeds=seeds, steps=3, batch=1, negative_prompt=["a dog", "red"])
    theirs = stock(model, prompts, seeds, guidance_scale=5.0, negative_prompt=["a dog", "red"])
    assert np.abs(each.astype(int) - theirs).max() <= 1  # another batch
    one = model.generate(prompts, seeds=seeds, steps=3, negative_prompt="a dog")
    assert np.array_equal(one, stock(model, prompts, seeds, guidance_scale=5.0, negative_prompt=["a dog"] * 2))
    assert not np.array_equal(one, model.generate(prompts, seeds=seeds, steps=3))


def test_guidance_that_is_an_input_of_the_network_stays_one() -> None:
    pipeline = tiny_pipeline()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline.unet = type(pipeline.unet).from_config(pipeline.unet.config, time_cond_proj_dim=8).eval()
    model = TextToImage(pipeline, "distilled")
    ours = model.generate("a bear", seeds=[3], steps=3, guidance=4.0)
    assert np.array_equal(ours, stock(model, ["a bear"], [3], guidance_scale=4.0))
    assert not np.array_equal(ours, model.generate("a bear", seeds=[3], steps=3, guidance=8.0))


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")  # the pipeline's own call
def test_half_precision_sdxl_decodes_as_the_pipeline() -> None:
    pipeline = tiny_sdxl_pipeline().to(torch.float16)
    pipeline.vae.register_to_config(force_upcast=True, latents_mean=[0.1] * 4, latents_std=[1.5] * 4)
    model = TextToImage(pipeline, "half")
    ours = model.generate("a bear", seeds=[3], steps=3)
    assert np.array_equal(ours, stock(model, ["a bear"], [3], guidance_scale=5.0))
    assert pipeline.vae.dtype == torch.float16


def test_normalised_channels_are_encoded_as_they_are_decoded(picture: np.ndarray) -> None:
    pipeline = tiny_sdxl_pipeline()
    pixels = torch.from_numpy(picture)[None].permute(0, 3, 1, 2).float() / 127.5 - 1
    plain = TextToImage(pipeline, "plain").encode_images(pixels) / pipeline.vae.config.scaling_factor
    pipeline.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.4], latents_std=[1.5, 2.0, 0.5, 1.0])
    model = TextToImage(pipeline, "normalised")
    mean, std = (torch.tensor(each).view(1, 4, 1, 1) for each in ([0.1, -0.2, 0.3, 0.4], [1.5, 2.0, 0.5, 1.0]))
    latents = model.encode_images(pixels)
    torch.testing.assert_close(latents, (plain - mean) / std * pipeline.vae.config.scaling_factor)
    decoded = pipeline.vae.decode(plain, return_dict=False)[0].clamp(-1, 1)
    torch.testing.assert_close(model.decode(latents), decoded, atol=1e-5, rtol=1e-5)


def test_a_safety_checker_blanks_what_it_flags_and_says_whose() -> None:
    pipeline = tiny_pipeline()
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = {**small, "image_size": 8, "patch_size": 8, "projection_dim": 8}
    config = CLIPConfig(text_config=small, vision_config=vision, projection_dim=8)
    checker = StableDiffusionSafetyChecker(config).eval()
    checker.concept_embeds_weights.fill_(-2.0)  # below any similarity
    extractor = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    pipeline.register_modules(safety_checker=checker, feature_extractor=extractor)
    model = TextToImage(pipeline, "safe")
    with pytest.warns(UserWarning, match=r"safety checker blanked the images of seeds \[3, 4\]"):
        assert not model.generate("a bear", seeds=[3, 4], steps=1).any()
    checker.concept_embeds_weights.fill_(2.0)
    checker.special_care_embeds_weights.fill_(2.0)
    assert np.array_equal(
        model.generate("a bear", seeds=[3], steps=3), stock(model, ["a bear"], [3], guidance_scale=5.0)
    )


class Bright(Control):
    def __init__(self) -> None:
        self.batches: list[int] = []

    def latents(self, latents: torch.Tensor, step: Step) -> torch.Tensor:
        self.batches.append(len(latents))
        return latents + 0.1


def test_controls_act_on_every_batch(sd: TextToImage) -> None:
    bright = Bright()
    drawn = sd.generate("a bear", seeds=[1, 2, 3], steps=2, batch=2, controls=[bright])
    assert bright.batches == [2, 2, 1, 1]
    assert not np.array_equal(drawn, sd.generate("a bear", seeds=[1, 2, 3], steps=2))


def test_image_to_image_keeps_more_the_lower_the_strength(model: TextToImage, picture: np.ndarray) -> None:
    def drawn(**options: Any) -> np.ndarray:
        return model.generate("a bear", seeds=[1], steps=10, image=picture, **options)[0].astype(float)

    latents = model.encode_images(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1)
    rebuilt = ((model.decode(latents)[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    far = [np.abs(drawn(strength=strength) - rebuilt).mean() for strength in (0.1, 0.5, 1.0)]
    assert far[0] < far[1] < far[2]
    assert np.array_equal(drawn(), drawn(strength=0.8))


def test_image_to_image_is_the_stock_pipelines_from_the_same_latents(sd: TextToImage, picture: np.ndarray) -> None:
    latents = sd.encode_images(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1)
    theirs = StableDiffusionImg2ImgPipeline(**sd.pipeline.components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        "a bear",
        image=latents,
        strength=0.6,
        num_inference_steps=5,
        guidance_scale=5.0,
        generator=[torch.Generator().manual_seed(3)],
        output_type="np",
    ).images
    ours = sd.generate("a bear", seeds=[3], steps=5, image=picture, strength=0.6)
    assert np.array_equal(ours, (expected * 255).round().astype(np.uint8))


@pytest.mark.parametrize("strength", [None, 0.6])
def test_inpainting_leaves_every_pixel_outside_the_mask(
    model: TextToImage, picture: np.ndarray, strength: float | None
) -> None:
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool)
    mask[9:10, 5:20] = True  # thinner than a latent cell
    drawn = model.generate("a bear", seeds=[1, 2], steps=5, image=picture, mask=mask, strength=strength)
    assert all(np.array_equal(each[~mask], picture[~mask]) for each in drawn)
    assert all((each[mask] != picture[mask]).any() for each in drawn)
    assert not np.array_equal(drawn[0], drawn[1])


def test_pil_images_and_files_are_read_by_the_one_rule(sd: TextToImage, picture: np.ndarray, tmp_path: Path) -> None:
    inside = np.zeros(picture.shape[:2], bool)
    inside[:16] = True
    painted = np.dstack(
        [np.full_like(picture, 255), np.where(inside, 255, 0).astype(np.uint8)]
    )  # (h, w, 4), white hidden
    images, files = [Image.fromarray(each) for each in (picture, painted)], [tmp_path / f"{each}.png" for each in "ab"]
    for each, file in zip(images, files, strict=True):
        each.save(file)
    expected = sd.generate("a bear", seeds=[0], steps=2, image=picture, mask=inside)
    for image, mask in ((images[0], images[1]), (files[0], str(files[1])), (images, files[1]), ([files[0]], inside)):
        image = image[:1] if isinstance(image, list) else image  # one for the one prompt
        assert (sd.generate("a bear", seeds=[0], steps=2, image=image, mask=mask) == expected).all()


def test_one_image_for_each_prompt(sd: TextToImage, picture: np.ndarray) -> None:
    images = np.stack([picture, picture[::-1], picture[:, ::-1]])
    options: dict[str, Any] = {"steps": 4, "strength": 0.5}
    together = sd.generate("a bear", seeds=[1, 2, 3], image=images, batch=2, **options)
    alone = sd.generate("a bear", seeds=[3], image=images[2], **options)
    assert np.abs(together[2].astype(int) - alone[0]).max() <= 1


def test_one_seed_in_the_place_of_a_list_is_refused() -> None:
    with pytest.raises(ModelError, match=r"seeds: expected one a picture, such as \[3\], found 3"):
        paired("a bear", 3)


def test_what_is_no_picture_is_called_so() -> None:
    with pytest.raises(DataError, match=r"image should be a PIL image .* found dict"):
        read_start({"a": 1}, None, 8)
    with pytest.raises(DataError, match=r"mask: expected a PIL image, .* found list"):
        read_start(None, [1], 8)


def test_impossible_requests_are_errors_at_once(sd: TextToImage, picture: np.ndarray) -> None:
    mask = np.ones((IMAGE_SIZE, IMAGE_SIZE), bool)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"scheduler": "eular"}, "expected one of ddim, ddpm.* found 'eular'"),
        ({"negative_prompt": "a dog", "guidance": 1.0}, "no effect at guidance 1"),
        ({"negative_prompt": ["a", "b"]}, "one for each of 1 prompts, found 2"),
        ({"mask": mask}, "give image="),
        ({"strength": 0.5}, "give image="),
        ({"image": "no.png"}, "no.png: expected a file, found nothing"),
        ({"image": picture[:8]}, r"expected RGB of \(32, 32, 3\).*found \(8, 32, 3\)"),
        ({"image": picture, "strength": 0.0}, "strength: expected more than 0, found 0"),
        ({"image": picture, "strength": 0.001}, "leaves none to do"),
        ({"image": picture, "mask": mask[:8]}, r"found \(8, 32\)"),
        ({"image": picture, "mask": ~mask}, "found nothing marked"),
        ({"scheduler": EulerDiscreteScheduler(prediction_type="flow")}, "prediction_type 'flow'"),
    ]
    for options, message in cases:
        with pytest.raises((ModelError, DataError), match=message):
            sd.generate_events("a bear", seeds=[1], **options)


def test_a_pipeline_with_a_loop_of_its_own_is_refused() -> None:
    components = tiny_pipeline().components
    model = TextToImage(StableDiffusionPAGPipeline(**components, requires_safety_checker=False), "pag")
    with pytest.raises(ModelError, match="StableDiffusionPAGPipeline draws in a way of its own"):
        model.generate("a bear", seeds=[0])


def test_a_predicted_sample_excludes_samplers_without_a_way_from_it() -> None:
    model = TextToImage(tiny_pipeline("sample"), "tiny")
    assert model.generate("a bear", seeds=[0], steps=2, scheduler="dpm++").any()
    with pytest.raises(ModelError, match="heun does not work with a model that predicts samples"):
        model.generate("a bear", seeds=[0], scheduler="heun")


def test_the_examples_of_the_page_run(sd: TextToImage) -> None:
    page = Path(__file__).resolve().parents[3] / "docs/sampling.md"
    loading, *blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert "photopic.load(" in loading and len(blocks) == 6
    names: dict[str, Any] = {"model": sd}
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)
    assert names["noise"].grad.abs().sum() > 0
    hooks = {name for name, value in vars(Control).items() if callable(value)}
    assert hooks == set(re.findall(r"\| `(\w+)\(", page.read_text()))
