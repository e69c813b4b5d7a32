"""Adaptive guidance: full guidance and none at its ends, a picture of its own in any batch, and really fewer calls."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from photopic.core.sampling import Control, Step
from photopic.generate.guidance.adaptive_guidance import AdaptiveGuidance, AdaptiveGuidanceConfig
from photopic.models.text_to_image.handle import TextToImage
from tests.core.sampling.test_controls import counted

STEPS = 6


class Agreement(Control):
    """Writes down how far the two predictions agree."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float, step: Step) -> None:
        self.seen.append(F.cosine_similarity(conditional.flatten(1), unconditional.flatten(1)))


def adaptive(threshold: float) -> AdaptiveGuidance:
    return AdaptiveGuidance(config=AdaptiveGuidanceConfig(threshold=threshold))


def draw(model: TextToImage, seeds: list[int], *controls: Control, guidance: float = 5.0) -> np.ndarray:
    return model.generate("a bear", seeds=seeds, steps=STEPS, guidance=guidance, controls=controls)


def test_a_threshold_never_reached_is_full_guidance_and_one_always_reached_guides_the_first_step(
    model: TextToImage,
) -> None:
    with counted(model) as rows:
        assert np.array_equal(draw(model, [0, 1], adaptive(1.0)), draw(model, [0, 1]))
    assert rows == [4] * 2 * STEPS
    always = adaptive(-1.0)
    with counted(model) as rows:
        draw(model, [0, 1], always)
    assert rows == [4] + [2] * (STEPS - 1) and always.guided_steps.tolist() == [1, 1]


def test_each_picture_stops_for_itself_once_its_predictions_agree(model: TextToImage) -> None:
    watched = Agreement()
    draw(model, [0, 1, 2], watched)
    agreement = torch.stack(watched.seen)  # (steps, pictures)
    # two of three reach it by the third step; it lies between two of them, so that no rounding decides
    threshold = float(agreement[2].sort().values[:2].mean())
    control = adaptive(threshold)
    together = draw(model, [0, 1, 2], control)
    reached = agreement >= threshold
    first = torch.where(reached.any(0), reached.int().argmax(0) + 1, STEPS)  # up to there nothing was changed
    assert control.guided_steps.tolist() == first.tolist() and first.min() <= 3
    for row in range(3):
        alone = draw(model, [row], control)[0]
        assert np.abs(alone.astype(int) - together[row]).max() <= 1 and control.guided_steps.tolist() == [
            int(first[row])
        ]


def test_a_model_without_guidance_is_left_alone_and_a_run_forgets_the_last(model: TextToImage) -> None:
    control = adaptive(-1.0)
    assert np.array_equal(draw(model, [0], control, guidance=1.0), draw(model, [0], guidance=1.0))
    assert np.array_equal(draw(model, [0], control), draw(model, [0], control))
