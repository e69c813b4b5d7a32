"""Attacks of dual encoders: the ball, one word, what each attack moves away from, and how hits are counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from photopic.data.captioned_pictures import CaptionedPictures, captioned_scenes
from photopic.data.scenes import SceneOptions, sample_scene
from photopic.guard.protect.set_level_guidance import (
    ATTACKS,
    RobustnessConfig,
    attacked,
    exchanged,
    hits,
    rescaled,
    rewordings,
    robustness,
    substitutes,
    successes,
)
from photopic.models.preprocessing import Preprocessing
from tests.tiny_encoders import tiny_dual_encoder

QUICK = RobustnessConfig(steps=3, epsilon=5, step_size=3.0, words=3, scales=(0.5,))


@pytest.fixture(scope="module")
def data() -> CaptionedPictures:
    options = SceneOptions(concepts=("bear", "cat", "dog", "panda"), size=32, objects=(0.3, 0.7, 0.0, 0.0))
    scenes = [sample_scene(options, (1, index)) for index in range(6)]
    return CaptionedPictures(np.stack([each.image for each in scenes]), tuple(each.caption for each in scenes))


def returned(steps):
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize("attack", ATTACKS)
def test_pictures_stay_in_the_ball_and_captions_lose_one_word_at_most(attack, data) -> None:
    images, captions = returned(attacked(tiny_dual_encoder(), data, attack, QUICK))
    assert abs(images.astype(int) - data.images).max() == QUICK.epsilon
    for new, old in zip(captions, data.captions, strict=True):
        words = list(zip(new.split(), old.split(), strict=True))
        assert sum(one != other for one, other in words) <= (0 if attack == "pgd" else 1)
    still = replace(QUICK, epsilon=0, words=0)
    images, captions = returned(attacked(tiny_dual_encoder(), data, attack, still))
    assert (images == data.images).all() and captions == data.captions


def test_each_attack_takes_pictures_and_captions_farther_apart_than_chance(data) -> None:
    model, config = tiny_dual_encoder(), replace(QUICK, steps=8, epsilon=20, step_size=5.0)

    def cosine(attack: str) -> float:
        images, captions = returned(attacked(model, data, attack, config))
        return float((model.image_features(images) * model.text_features(captions)).sum(1).mean())

    chance = cosine("random")
    assert all(cosine(attack) < chance for attack in ATTACKS[1:] if attack != "separate")


def test_gradients_go_through_the_preprocessing_as_the_model_prepares_files(data) -> None:
    steps = Preprocessing(
        resize=16, crop=(12, 14), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), blue_first=True, resample=3
    )
    levels = torch.from_numpy(data.images).permute(0, 3, 1, 2).float()
    assert (
        steps.differentiable(levels / 255) - steps(data.images)
    ).abs().mean() < 0.01  # Pillow rounds to 8 bits in between
    same = replace(steps, resize=None)
    assert torch.allclose(same.differentiable(levels / 255), same(data.images), atol=1e-6)


def test_rewordings_say_the_same_and_exchanges_keep_the_kind_of_word() -> None:
    assert rewordings("a bear below a red cat")[1] == "a red cat above a bear"
    assert rewordings("a bear on a red background")[1] == "a photo of a bear on a red background"
    lexicon = {("bear", True): ["cat"], ("red", False): ["blue"], ("bear", False): ["never"]}
    assert exchanged("a red bear", lexicon) == ["a blue bear", "a red cat"]
    model = tiny_dual_encoder()
    found = substitutes(model, ["a red bear and a blue cat", "a green dog"], 1)
    names = ["bear", "cat", "dog"]
    features = model.text_features(names)
    nearest = {
        name: names[int(((features @ features[k]).index_fill(0, torch.tensor(k), -2)).argmax())]
        for k, name in enumerate(names)
    }
    assert {name: found[name, True] for name in names} == {name: [other] for name, other in nearest.items()}


def test_copies_at_scale_one_are_the_pictures(data) -> None:
    levels = torch.from_numpy(data.images).permute(0, 3, 1, 2).float()
    assert torch.allclose(rescaled(levels, 1.0), levels, atol=1e-3)
    assert rescaled(levels, 0.5).shape == levels.shape and not torch.allclose(rescaled(levels, 0.5), levels, atol=1)


def test_hits_are_those_of_the_score_matrix_and_equal_captions_are_one() -> None:
    model, data = tiny_dual_encoder(), captioned_scenes(5)
    scores = (model.image_features(data.images) @ model.text_features(data.captions).mT).numpy()
    expected = np.stack([scores.argmax(1) == np.arange(5), scores.argmax(0) == np.arange(5)])
    assert (hits(model, data.images, data.captions) == expected).all()
    assert hits(model, data.images[:1].repeat(2, 0), ["a bear", "a bear"]).all()


def test_success_counts_only_what_was_right_before() -> None:
    before, after = (
        np.array([[True, True, False], [True, False, False]]),
        np.array([[False, True, True], [False, True, True]]),
    )
    assert successes(before, after).tolist()[:2] == [1.0, 0.0] and np.isnan(successes(before, after)[2])


def test_the_report_has_both_models_before_and_after(data) -> None:
    other = tiny_dual_encoder("cnn")
    other.name = "other"
    found = robustness(
        tiny_dual_encoder(), data, transfer=other, config=replace(QUICK, attacks=("random", "set-level"))
    )
    kinds = [(row["model"] == "other", row["attack"]) for row in found.rows]
    assert kinds == [(is_other, name) for name in ("none", "random", "set-level") for is_other in (False, True)]
    assert all(row["success"] == 0 for row in found.rows if row["attack"] == "none")
