"""Diffusion features: what a block puts out, a probe against the normal equations, and a report that finds what is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.data.few_shot import FewShotTask
from photopic.measure.diffusion_features import (
    DiffusionFeaturesConfig,
    block_features,
    diffusion_features,
    pixels_of,
    probed,
)
from photopic.models.text_to_image.handle import TextToImage
from tests.method_cases import labelled

CONFIG = DiffusionFeaturesConfig(timesteps=(0, 400), grid=1)


def test_a_feature_is_the_mean_of_what_a_block_puts_out(model: TextToImage) -> None:
    latents, seen = model.encode_images(pixels_of(model, labelled(3))), []
    found = block_features(model, latents, 400, CONFIG, 0)
    assert list(found)[-1] == f"up_blocks.{len(model.unet.up_blocks) - 1}" and "mid_block" in found
    again = block_features(model, latents, 400, CONFIG, 0)
    assert all(torch.equal(found[block], again[block]) for block in found)  # noise by place and seed
    hook = model.unet.mid_block.register_forward_hook(lambda m, a, output: seen.append(output))
    four = block_features(model, latents, 400, replace(CONFIG, grid=2), 0)["mid_block"]
    hook.remove()
    torch.testing.assert_close(found["mid_block"], seen[0].mean((2, 3)), atol=1e-5, rtol=1e-4)
    assert four.shape[1] == 4 * found["mid_block"].shape[1]


def test_the_probe_is_ridge_regression_on_classes() -> None:
    rng = np.random.default_rng(0)
    train, labels, test = rng.normal(size=(20, 6)), np.arange(20) % 3, rng.normal(size=(9, 6))
    x = (train - train.mean(0)) / train.std(0, ddof=1)
    y = np.eye(3)[labels] - np.eye(3)[labels].mean(0)
    weights = np.linalg.solve(x.T @ x + 2.0 * np.eye(6), x.T @ y)  # the primal form
    expected = ((test - train.mean(0)) / train.std(0, ddof=1) @ weights).argmax(1)
    found = probed(torch.tensor(train).float(), torch.tensor(labels), torch.tensor(test).float(), 2.0)
    assert found.tolist() == expected.tolist()


def test_bright_and_dark_pictures_are_told_apart_and_nothing_to_judge_on_is_refused(model: TextToImage) -> None:
    task = FewShotTask(labelled(12), labelled(10, seed=1))
    report = diffusion_features(model, task, config=CONFIG)
    assert report.values["pixels"] == 1.0 and report.values["best"] >= 0.8 and report.values["chance"] == 0.5
    assert report.values["best"] == max(row["accuracy"] for row in report.rows)
    assert len(report.rows) == 2 * (len(model.unet.down_blocks) + 1 + len(model.unet.up_blocks))
    with pytest.raises(DataError, match="expected some to judge on, found none"):
        diffusion_features(model, FewShotTask(labelled(12)), config=CONFIG)
    with pytest.raises(DataError, match=r"--timesteps: expected less than 1000, found 1000"):
        diffusion_features(model, task, config=replace(CONFIG, timesteps=(1000,)))
