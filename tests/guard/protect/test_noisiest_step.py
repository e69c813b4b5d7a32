"""Protection against inpainting: where pixels change, what is maximised, contours, and models that it is not for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, UNet2DConditionModel
from PIL import Image

from photopic.core.errors import DataError, ModelError
from photopic.guard.protect.noisiest_step import (
    InpaintingProtectionConfig,
    protect_inpainting,
    protected_region,
    shrunk,
)
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.inpainter import Inpainter, InpaintingDrawer
from tests.tiny import IMAGE_SIZE, tiny_pipeline

QUICK = InpaintingProtectionConfig(steps=3, epsilon=5, step_size=3.0)


@pytest.fixture(scope="module")
def model() -> Inpainter:
    plain = tiny_pipeline("v_prediction", rescale_betas_zero_snr=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {name: value for name, value in plain.unet.config.items() if name != "_use_default_values"}
        unet = UNet2DConditionModel.from_config({**config, "in_channels": 9}).eval()
    parts = {name: getattr(plain, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    pipeline = StableDiffusionInpaintPipeline(
        **parts, unet=unet, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return Inpainter(pipeline, "tiny")


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(20, 230, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)


@pytest.fixture
def kept() -> np.ndarray:
    region = np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool)
    region[6:26, 6:26] = True
    return region


def returned(steps):
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def test_only_what_is_kept_changes_and_the_file_lies_in_the_ball(model, picture, kept, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(~kept).convert("L").save(tmp_path / "mask.png")
    words = {"mask": str(tmp_path / "mask.png"), "output": str(tmp_path / "b.png")}
    protect_inpainting(model, str(tmp_path / "a.png"), **words, config=QUICK)
    change = abs(np.asarray(Image.open(tmp_path / "b.png")).astype(int) - picture)
    assert change.max() == QUICK.epsilon and change[~kept].max() == 0
    still = InpaintingProtectionConfig(steps=1, epsilon=0)
    protect_inpainting(model, str(tmp_path / "a.png"), **words, overwrite=True, config=still)
    assert (np.asarray(Image.open(tmp_path / "b.png")) == picture).all()


def first_norm(model: Inpainter, picture: np.ndarray, kept: np.ndarray) -> float:
    told = InpaintingDrawer(model).told(picture[None], ~kept[None]).told
    norms = []
    for seed in range(8):
        noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            output = model.predict(torch.cat([noise, told], 1), torch.tensor([999]), model.encode_prompts(""))
        norms.append(float(output.norm()))
    return float(np.mean(norms))


def test_the_norm_of_the_first_output_rises_with_the_given_mask(model, picture, kept) -> None:
    config = InpaintingProtectionConfig(steps=10, epsilon=40, step_size=8.0, shrink=0.0)
    changed = returned(protected_region(model, picture[None], kept[None], [0], config))
    assert first_norm(model, changed[0], kept) > first_norm(model, picture, kept)


def test_contours_move_inwards_only_and_at_most_as_deep_as_asked(kept) -> None:
    regions = [shrunk(kept, np.random.default_rng(seed), 0.5) for seed in range(20)]
    assert all((each <= kept).all() and each[12:20, 12:20].all() for each in regions)  # half of 10 pixels at most
    assert len({each.tobytes() for each in regions}) == 20 and np.mean([each.sum() for each in regions]) < kept.sum()
    assert (shrunk(kept, np.random.default_rng(0), 0.0) == kept).all()


def test_a_model_that_sees_noise_alone_is_refused(picture, kept) -> None:
    plain = TextToImage(tiny_pipeline(), "plain")
    with pytest.raises(ModelError, match="expected an inpainting model"):
        returned(protected_region(plain, picture[None], kept[None], [0], QUICK))


def test_a_mask_that_keeps_nothing_is_refused(model, picture, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.new("L", (IMAGE_SIZE, IMAGE_SIZE), 255).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="expected something dark"):
        protect_inpainting(
            model, str(tmp_path / "a.png"), mask=str(tmp_path / "mask.png"), output=str(tmp_path / "b.png")
        )


def test_an_inpainting_model_draws_inside_the_mask_as_diffusers_does(model, picture, kept) -> None:
    options = {"steps": 4, "guidance": 3.0}
    found = model.generate("a bear", seeds=[5], image=picture, mask=~kept, **options)[0]
    assert (found[kept] == picture[kept]).all() and (found[~kept] != picture[~kept]).any()
    told = InpaintingDrawer(model).told(picture[None], ~kept[None]).told
    stock = model.pipeline(
        "a bear", masked_image_latents=told[:, 1:], mask_image=told[:, :1], image=torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE),
        height=IMAGE_SIZE, width=IMAGE_SIZE, num_inference_steps=4, guidance_scale=3.0, strength=1.0,
        generator=[torch.Generator().manual_seed(5)], output_type="np",
    ).images[0]  # fmt: skip
    assert (abs((stock * 255).round() - found)[~kept] <= 1).all()


def test_an_inpainting_model_says_what_it_needs(model, picture) -> None:
    with pytest.raises(ModelError, match="expected a picture and a mask"):
        model.generate("a bear", seeds=[0])
    with pytest.raises(ModelError, match="reads 9 channels, found 4"):
        model.predict(torch.zeros(1, 4, 8, 8), torch.tensor([1]), model.encode_prompts("a bear"))


def test_the_bundled_model_is_its_base_and_the_weights_that_differ() -> None:
    found, base = Inpainter.load("emoji-inpainting", "cpu"), TextToImage.load("emoji-diffusion", "cpu")
    assert isinstance(found, Inpainter) and found.unet.config.in_channels == 9
    same = base.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight
    assert torch.equal(found.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight, same)
    assert not torch.equal(found.unet.conv_in.weight[:, :4], base.unet.conv_in.weight)
