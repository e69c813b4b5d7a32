"""Protection against imitation: the ball after saving, the two gradients by hand, the meter, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from photopic.core.errors import DataError
from photopic.guard.protect._common import as_model_reads
from photopic.guard.protect.score_distillation import (
    ProtectConfig,
    noise_error_slope,
    protect,
    protected,
    vulnerability,
)
from photopic.models.text_to_image.autoencoder import latents_of
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import IMAGE_SIZE, tiny_pipeline

QUICK = ProtectConfig(steps=3, draws=1, epsilon=5, step_size=3.0)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def model(request: pytest.FixtureRequest) -> TextToImage:
    return TextToImage(tiny_pipeline(request.param), "tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number, shape in enumerate([(IMAGE_SIZE, IMAGE_SIZE, 3), (40, 52, 3)]):  # one is read whole, one resized
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / "in" / f"{number}.png")
    return tmp_path


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.parametrize("objective", ["sds-", "sds+", "semantic-", "semantic+", "textural"])
def test_saved_pictures_lie_in_the_ball_and_reach_its_edge(model: TextToImage, folder: Path, objective) -> None:
    config = replace(QUICK, objective=objective)
    report = protect(model, str(folder / "in"), output=str(folder / "out"), config=config)
    for number, row in enumerate(report.rows):
        change = abs(read(folder / "out" / f"{number}.png") - read(folder / "in" / f"{number}.png"))
        assert change.max() == QUICK.epsilon == row["largest_change"]


def test_epsilon_zero_leaves_the_pixels(model: TextToImage, folder: Path) -> None:
    report = protect(model, str(folder / "in"), output=str(folder / "out"), config=replace(QUICK, epsilon=0))
    assert all((read(folder / "in" / f"{n}.png") == read(folder / "out" / f"{n}.png")).all() for n in (0, 1))
    assert report.values["encoder_amplification"] == 0 and report.rows[0]["psnr_db"] == float("inf")


def drawn(model: TextToImage):
    generator = torch.Generator().manual_seed(3)
    shape = (2, model.pipeline.vae.config.latent_channels, 8, 8)
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    return latents, noise, torch.tensor([200, 700]), model.encode_prompts(["a bear", "a cat"])


def test_score_distillation_is_the_hand_formula_without_the_jacobian(model: TextToImage) -> None:
    latents, noise, timesteps, told = drawn(model)
    kept = model.pipeline.scheduler.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    with torch.no_grad():
        output = model.unet(noisy, timesteps, **told.unet_kwargs()).sample
    is_velocity = model.prediction_type == "v_prediction"
    epsilon = (1 - kept).sqrt() * noisy + kept.sqrt() * output if is_velocity else output
    found = noise_error_slope(model, latents, noise, timesteps, told, jacobian=False)
    assert torch.allclose(found, kept.sqrt() * (epsilon - noise), atol=1e-6) and not found.requires_grad


def test_the_full_gradient_agrees_with_finite_differences(model: TextToImage) -> None:
    latents, noise, timesteps, told = drawn(model)
    found = noise_error_slope(model, latents, noise, timesteps, told, jacobian=True)
    along = torch.randn(latents.shape, generator=torch.Generator().manual_seed(4))

    @torch.no_grad()
    def loss(moved: torch.Tensor) -> float:
        noisy = model.schedule.add_noise(moved, noise, timesteps)
        output = model.schedule.to_noise(model.predict(noisy, timesteps, told), noisy, timesteps)
        return float((output - noise).double().square().sum() / 2)

    step = 1e-2
    expected = (loss(latents + step * along) - loss(latents - step * along)) / (2 * step)
    assert float((found * along).sum()) == pytest.approx(expected, rel=0.02)
    without = noise_error_slope(model, latents, noise, timesteps, told, jacobian=False)
    assert float((without * along).sum()) != pytest.approx(expected, rel=0.02)


def test_minus_lowers_and_plus_raises_the_noise_error(model: TextToImage) -> None:
    pictures = np.random.default_rng(1).integers(60, 200, (2, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    told = model.encode_prompts(["", ""])

    @torch.no_grad()
    def error(changed: np.ndarray) -> float:
        levels = torch.from_numpy(changed).permute(0, 3, 1, 2).float()
        latents = latents_of(model.pipeline, as_model_reads(levels, IMAGE_SIZE))
        total = 0.0
        for timestep in range(200, 800, 20):
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(timestep))
            steps = torch.tensor([timestep] * 2)
            noisy = model.schedule.add_noise(latents, noise, steps)
            output = model.schedule.to_noise(model.predict(noisy, steps, told), noisy, steps)
            total += float((output - noise).square().sum())
        return total

    config = replace(QUICK, epsilon=24, steps=8, step_size=6.0, draws=4)
    errors = {}
    for sign in "-+":
        steps = protected(model, pictures, [0, 1], replace(config, objective=f"semantic{sign}"))
        errors[sign] = error(returned(steps))
    assert errors["-"] < error(pictures) < errors["+"]


def returned(steps):
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def test_what_is_found_does_not_depend_on_the_batch(model: TextToImage, folder: Path) -> None:
    pictures = np.random.default_rng(2).integers(0, 256, (3, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    together = returned(protected(model, pictures, [0, 1, 2], QUICK))
    alone = returned(protected(model, pictures[2:], [2], QUICK))
    assert (abs(together[2].astype(int) - alone[0]) > 0).mean() < 0.01  # signs of gradients near zero may round apart


def test_the_meter_is_the_ratio_of_root_mean_squares(model: TextToImage) -> None:
    pictures = np.full((1, IMAGE_SIZE, IMAGE_SIZE, 3), 100, np.uint8)
    changed = pictures + np.uint8(8)
    first, second = (model.encode_images(torch.full((1, 3, IMAGE_SIZE, IMAGE_SIZE), v / 127.5 - 1)) for v in (100, 108))
    expected = float((second - first).square().mean().sqrt()) / (8 / 127.5)
    assert vulnerability(model, pictures, changed, [0])["encoder_amplification"] == pytest.approx(expected, rel=1e-3)


def test_what_is_there_is_left_alone(model: TextToImage, folder: Path) -> None:
    before = (folder / "in" / "0.png").read_bytes()
    with pytest.raises(DataError, match=r"expected a new name"):
        protect(model, str(folder / "in" / "0.png"), output=str(folder / "in" / "0.png"))
    with pytest.raises(DataError, match="name a folder"):
        protect(model, str(folder / "in"), output=str(folder / "x.png"))
    assert (folder / "in" / "0.png").read_bytes() == before
