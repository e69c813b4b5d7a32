"""The diffusion classifier: its errors against the formula, noise shared by all classes, elimination, and how often it calls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.measure.diffusion_classifier import (
    DiffusionClassifierConfig,
    diffusion_classifier,
    eliminated,
    noise_errors,
    timesteps,
)
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline

NAMES = ["bear", "cat", "mug", "red", "blue"]
FLAT = DiffusionClassifierConfig(samples=(6,), keep=())


@pytest.fixture(scope="module")
def latents(model: TextToImage) -> torch.Tensor:
    return model.encode_images(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_an_error_is_that_of_the_noise_implied(prediction: str) -> None:
    model = TextToImage(tiny_pipeline(prediction), "tiny")
    draw = torch.Generator().manual_seed(int(np.random.SeedSequence((3, 0, 1)).generate_state(1)[0]))
    clean = torch.randn(1, 4, 8, 8)
    said, noise = model.encode_prompts(["a bear", "a mug"]), torch.randn(1, 4, 8, 8, generator=draw)
    kept = model.pipeline.scheduler.alphas_cumprod[700]
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    found = noise_errors(model, clean, said, [700], [(3, 0, 1)])[0]
    for place in range(2):
        predicted = model.unet(noisy, 700, said.hidden[place : place + 1]).sample
        implied = predicted if prediction == "epsilon" else (1 - kept).sqrt() * noisy + kept.sqrt() * predicted
        torch.testing.assert_close(found[place], (implied - noise).square().mean(), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_classes_share_their_noise_which_makes_differences_quieter(model: TextToImage, latents: torch.Tensor) -> None:
    said = model.encode_prompts(["a bear", "a bear", "a mug"])
    means, _ = eliminated(model, latents, said, FLAT, 0)
    assert means[0] == pytest.approx(means[1], rel=1e-5)  # one sentence twice is one class twice
    paired, unpaired = [], []
    for seed in range(24):
        one, _, other = noise_errors(model, latents, said, [500], [(seed,)])[0].tolist()
        apart = noise_errors(model, latents, said, [500], [(100 + seed,)])[0].tolist()[2]
        paired.append(one - other), unpaired.append(one - apart)
    assert np.var(paired) < 0.1 * np.var(unpaired)


@torch.no_grad()
def test_without_stages_it_is_the_least_mean_error_over_uniform_timesteps(
    model: TextToImage, latents: torch.Tensor
) -> None:
    said = model.encode_prompts([f"a {name}" for name in NAMES])
    means, calls = eliminated(model, latents, said, FLAT, 4)
    grid = timesteps(model.timesteps, 6)
    rows = torch.cat([noise_errors(model, latents, said, [t], [(0, 4, place)]) for place, t in enumerate(grid)])
    np.testing.assert_allclose([means[place] for place in range(5)], rows.mean(0), rtol=1e-5)
    assert calls == 30 and np.diff(grid).std() < 1


@torch.no_grad()
def test_batches_over_timesteps_and_classes_are_one_at_a_time(model: TextToImage, latents: torch.Tensor) -> None:
    said = model.encode_prompts([f"a {name}" for name in NAMES])
    times, seeds = [0, 300, 999] * 5, [(place,) for place in range(15)]  # 75 pairs: more than a batch
    found = noise_errors(model, latents, said, times, seeds)
    for place, (time, seed) in enumerate(zip(times, seeds, strict=True)):
        alone = [noise_errors(model, latents, said[[row]], [time], [seed])[0, 0].item() for row in range(5)]
        np.testing.assert_allclose(found[place], alone, rtol=1e-4)


@torch.no_grad()
def test_stages_leave_the_best_and_call_as_often_as_they_say(model: TextToImage, latents: torch.Tensor) -> None:
    said = model.encode_prompts([f"a {name}" for name in NAMES])
    staged = replace(FLAT, samples=(2, 6), keep=(3,))
    means, calls = eliminated(model, latents, said, staged, 4)
    assert len(means) == 3 and calls == 2 * 5 + 4 * 3  # what the first stage saw is not seen again
    everything, _ = eliminated(model, latents, said, FLAT, 4)
    for place in means:
        assert means[place] == pytest.approx(everything[place], rel=1e-5)  # the same timesteps and noise
    # of 5 timesteps the third stage finds 4 seen already, and still drops classes
    means, calls = eliminated(model, latents, said, replace(FLAT, samples=(2, 3, 4, 5), keep=(4, 3, 2)), 4)
    assert len(means) == 2 and calls == 2 * 5 + 3 * 4


def test_pictures_get_a_row_each_and_bad_input_a_line(model: TextToImage) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), dtype=np.uint8)
    report = diffusion_classifier(model, images, classes=NAMES, config=replace(FLAT, samples=(1, 2), keep=(2,)))
    assert [row["picture"] for row in report.rows] == [0, 1] and report.values["naive_calls"] == 20
    assert report.values["calls"] == 2 * (5 + 2) and report.values["accuracy"] is None
    assert all(row["margin"] >= 0 and row["named"] != row["second"] for row in report.rows)
    with pytest.raises(DataError, match=r"--class: expected two or more to choose from, found 1"):
        diffusion_classifier(model, images, classes=["bear", "bear"])
    with pytest.raises(DataError, match=r"expected rising samples and one keep less"):
        diffusion_classifier(model, images, classes=NAMES, config=replace(FLAT, samples=(4, 2), keep=(2,)))
