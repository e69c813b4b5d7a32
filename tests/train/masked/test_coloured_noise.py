"""Coloured-noise masking: exact shares, spectra that peak where they should, a loss of masked patches alone, exact resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.core.runs import Run
from photopic.data.picture_set import PictureSet
from photopic.metrics.radial_spectrum import radial_spectrum
from photopic.models.maskable_vit import POSITIONS, patches_of
from photopic.train.masked._common import MaskedBatch, MaskedLearner, MaskedTask, masked_error
from photopic.train.masked.coloured_noise import ColouredNoiseConfig, coloured_noise, masks_of, window

SMALL: dict[str, Any] = {"size": 24, "patch": 2, "width": 32, "depth": 1, "decoder_width": 32, "batch": 4, "field": 64}
CONFIG = ColouredNoiseConfig(**SMALL, steps=4)
COLOURS = ("random", "red", "green", "blue", "purple")


def masks(colour: Any, count: int = 1500, **settings: Any) -> np.ndarray:
    return masks_of(ColouredNoiseConfig(colour=colour, **settings))(count, np.random.default_rng(0))


@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.9])
def test_every_colour_masks_exactly_as_many_as_random(ratio: float) -> None:
    counts = {colour: set(masks(colour, 50, ratio=ratio).sum(1).tolist()) for colour in COLOURS}
    assert counts == {key: {round(144 * ratio)} for key in COLOURS}


@pytest.mark.parametrize(("size", "middle"), [(48, range(2, 4)), (96, range(3, 7))])
def test_spectra_of_masks_peak_low_in_red_in_the_middle_in_green_and_high_in_blue(size: int, middle: range) -> None:
    grid = size // 4
    power = {}
    for colour in COLOURS:
        found = masks(colour, size=size).reshape(-1, grid, grid, 1) - 0.75
        power[colour] = radial_spectrum(found)[1:]  # without the mean, which is the same for all
    peaks = {colour: int(each.argmax()) + 1 for colour, each in power.items()}
    assert peaks["red"] == 1 and peaks["green"] in middle and peaks["blue"] >= grid // 2 - 1
    assert power["random"].max() / power["random"].min() < 1.15
    ends = power["purple"][[0, -1]]  # both ends are above what green keeps
    assert power["purple"].argmin() + 1 in middle and ends.min() > power["purple"].min()


def test_windows_lie_everywhere_and_are_mirrored_both_ways() -> None:
    field = np.arange(64.0).reshape(8, 8)
    found = {tuple(window(field, 7, np.random.default_rng(seed)).ravel()) for seed in range(300)}
    places = [field[top : top + 7, left : left + 7] for top in (0, 1) for left in (0, 1)]
    assert found == {tuple(each[::up, ::across].ravel()) for each in places for up in (1, -1) for across in (1, -1)}


def test_every_picture_has_a_mask_of_its_own_and_the_seed_decides() -> None:
    found = masks("green", 40)
    assert len(np.unique(found, axis=0)) == 40 and np.array_equal(found, masks("green", 40))
    assert not np.array_equal(found, masks("green", 40, seed=1))


def learner(**changes: Any) -> MaskedLearner:
    images = PictureSet("emoji-scenes:6").read(24).numpy()
    config = replace(CONFIG, augment=False)
    return MaskedLearner(images, config, replace(MaskedTask(masks_of(config)), **changes))


def test_the_loss_is_of_masked_patches_alone() -> None:
    batch = learner().batch(0)
    assert batch.masked.sum(1).tolist() == [108] * 4 and batch.tokens.shape == (4, 37, 32)
    elsewhere = torch.where(batch.masked[..., None], batch.predicted, torch.full_like(batch.predicted, 1e3))
    assert torch.equal(masked_error(batch), masked_error(replace(batch, predicted=elsewhere)))
    there = batch.predicted + batch.masked[..., None]
    assert not torch.equal(masked_error(batch), masked_error(replace(batch, predicted=there)))
    gradient = torch.autograd.grad(masked_error(batch), batch.predicted)[0]
    assert bool((gradient.abs().sum(2) > 0).eq(batch.masked).all())


def test_targets_are_patches_in_their_own_standard_deviations() -> None:
    batch = learner().batch(0)
    raw = patches_of(batch.pixels, 2)
    rough = raw.var(2) > 0.01
    assert torch.allclose(batch.target.mean(2), torch.zeros(4, 144), atol=1e-4)
    assert torch.allclose(batch.target.var(2)[rough], torch.ones(int(rough.sum())), atol=1e-3)


def test_a_method_may_bring_its_own_input_target_and_losses() -> None:
    def length(batch: MaskedBatch) -> torch.Tensor:
        return batch.tokens.square().mean()

    plain = learner().step(0)
    more = learner(further=[(0.5, length)])
    added = 0.5 * length(more.batch(0)).item()
    found = more.step(0)
    assert found["filled"] == plain["loss"] and found["loss"] == pytest.approx(plain["loss"] + added, rel=1e-5)
    raw = learner(target=patches_of, inputs=lambda pixels, rng: -pixels).batch(0)
    assert torch.equal(raw.target, patches_of(-raw.pixels, 2))


def test_all_tokens_can_be_read_and_masked_ones_stay_unseen() -> None:
    every = learner(visible_only=False)
    batch = every.batch(0)
    assert batch.tokens.shape == (4, 145, 32)
    assert not patches_of(batch.pixels, 2)[batch.masked].any() and patches_of(batch.pixels, 2)[~batch.masked].any()


def test_it_learns_to_fill_in() -> None:
    held = learner()
    held.config = replace(held.config, steps=60)
    held.rate = held.config.rate
    losses = [held.step(step)["loss"] for step in range(60)]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5])
    for name in POSITIONS:  # which are fixed
        assert torch.equal(held.model.network.get_parameter(name), learner().model.network.get_parameter(name))


def test_an_interrupted_run_ends_in_the_same_model(tmp_path: Path) -> None:
    data = PictureSet("emoji-scenes:6")
    whole = coloured_noise(data, config=CONFIG)
    events = coloured_noise.events(data, config=CONFIG, run=Run(tmp_path / "run"))
    for event in events:
        if event.done == 2:
            break
    events.close()  # type: ignore[attr-defined]
    again = coloured_noise(data, config=CONFIG, run=Run(tmp_path / "run"))
    assert again.digest() == whole.digest() and again.provenance["pictures"] == 6
    assert coloured_noise(data, config=replace(CONFIG, seed=1)).digest() != whole.digest()


def test_bad_numbers_are_one_error() -> None:
    with pytest.raises(DataError, match="expected 12 to 512 patches along a side for green noise, found 6"):
        ColouredNoiseConfig(size=48, patch=8)
    assert ColouredNoiseConfig(size=48, patch=8, colour="random").visible == 9
    with pytest.raises(DataError, match=r"narrow: expected less than wide, 1\.5, found 2\.0"):
        ColouredNoiseConfig(narrow=2.0)
