"""Controls and what goes with them on transformer pipelines: each works there, or is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import ModelError
from photopic.core.sampling import Control
from photopic.generate.guidance.adaptive_guidance import AdaptiveGuidance, AdaptiveGuidanceConfig
from photopic.generate.guidance.entropy_scaling import EntropyScaling
from photopic.generate.guidance.good_seeds import GoodSeeds, GoodSeedsConfig
from photopic.generate.guidance.linear_guidance import (
    LinearFitConfig,
    LinearGuidance,
    LinearGuidanceConfig,
    fit_linear_guidance,
)
from photopic.generate.guidance.negative_token_merging import NegativeTokenMerging
from photopic.generate.guidance.start_noise import start_noise
from photopic.generate.style.style_injection import StyleInjection
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.reward.reward_backpropagation import reward_backpropagation
from tests.method_cases import ranking
from tests.tiny_transformers import shared_handle

GUIDED, DISTILLED = "StableDiffusion3Pipeline", "FluxPipeline"  # by two halves, by a number told to the network
STEPS = 3


def draw(model: TextToImage, *controls: Control, seed: int = 0) -> np.ndarray:
    return model.generate("a bear", seeds=[seed], steps=STEPS, controls=controls)


def test_adaptive_and_linear_guidance_spare_halves_of_a_guided_transformer(tmp_path: Path) -> None:
    model = shared_handle(GUIDED)
    plain = draw(model)
    never, soon = (AdaptiveGuidance(config=AdaptiveGuidanceConfig(threshold=each)) for each in (1.0, 0.0))
    assert np.array_equal(draw(model, never), plain) and never.guided_steps.tolist() == [STEPS]
    assert (draw(model, soon) != plain).any() and soon.guided_steps.tolist() == [1]
    report = fit_linear_guidance(model, prompts=["a bear"], config=LinearFitConfig(steps=STEPS, pictures=2))
    file = tmp_path / "linear.json"
    file.write_text(json.dumps(report.to_dict()))
    whole, half = (LinearGuidance(str(file), config=LinearGuidanceConfig(start=each)) for each in (1.0, 0.5))
    assert np.array_equal(draw(model, whole), plain) and whole.guided_steps == STEPS
    draw(model, half)
    assert half.guided_steps == 2


def test_a_transformer_without_halves_has_none_to_spare() -> None:
    model = shared_handle(DISTILLED)
    assert np.array_equal(draw(model, AdaptiveGuidance(config=AdaptiveGuidanceConfig(threshold=0.0))), draw(model))
    with pytest.raises(ModelError, match="tiny: is guided by a number told to its network"):
        fit_linear_guidance(model, prompts=["a bear"], config=LinearFitConfig(steps=STEPS, pictures=1))


@pytest.mark.parametrize("kind", [GUIDED, DISTILLED])
def test_good_seeds_are_the_noises_of_those_seeds(kind: str) -> None:
    control = GoodSeeds(ranking(), config=GoodSeedsConfig(top=1))
    assert np.array_equal(draw(shared_handle(kind), control), draw(shared_handle(kind), seed=100))


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda model, file: draw(model, NegativeTokenMerging()), "NegativeTokenMerging looks into"),
        (lambda model, file: draw(model, NegativeTokenMerging(file)), "NegativeTokenMerging looks into"),
        (lambda model, file: draw(model, EntropyScaling()), "EntropyScaling looks into"),
        (lambda model, file: draw(model, StyleInjection(file)), "StyleInjection looks into"),
        (lambda model, file: start_noise(ranking(), model), "whose noise has no one size"),
        (
            lambda model, file: reward_backpropagation(model, ["a bear"], reward=lambda pictures, prompts: pictures),
            "through whose chain no reward is followed",
        ),
    ],
)
@pytest.mark.parametrize("kind", [GUIDED, DISTILLED])
def test_what_looks_into_a_unet_is_refused_in_one_line(
    kind: str, use: Callable[[Any, str], Any], said: str, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "style.png")
    with pytest.raises(ModelError, match=said) as caught:
        use(shared_handle(kind), str(tmp_path / "style.png"))
    assert "\n" not in str(caught.value) and f"{kind} has a transformer" in str(caught.value)
