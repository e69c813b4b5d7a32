"""The weighted focal loss is cross-entropy where nothing is weighed, and dice is nothing for what agrees."""

import pytest
import torch
from torch.nn import functional as F

from photopic.learning.losses.skeleton import dice_loss, weighted_focal_loss

LOGITS = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
TARGET = (torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.9).float()


def test_without_gamma_and_with_even_weights_it_is_exactly_half_of_cross_entropy() -> None:
    assert torch.equal(
        weighted_focal_loss(LOGITS, TARGET, 0.5, 0.0), 0.5 * F.binary_cross_entropy_with_logits(LOGITS, TARGET)
    )


def test_it_is_the_formula() -> None:
    p = LOGITS.double().sigmoid()
    expected = -(TARGET * 0.9 * (1 - p) ** 2 * p.log() + (1 - TARGET) * 0.1 * p**2 * (1 - p).log()).mean()
    assert weighted_focal_loss(LOGITS.double(), TARGET.double(), 0.9, 2.0).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_its_slope_is_finite_where_a_pixel_is_certain(gamma: float) -> None:
    logits = torch.tensor([200.0, -200.0, 200.0], requires_grad=True)
    weighted_focal_loss(logits, torch.tensor([1.0, 0.0, 0.0]), 0.9, gamma).backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad[2] > 0


def test_dice_of_a_picture_with_itself_is_zero_and_of_its_complement_almost_one() -> None:
    assert dice_loss(TARGET, TARGET).item() == 0
    assert dice_loss(1 - TARGET, TARGET).item() > 0.99


def test_dice_squares_chances() -> None:
    found = dice_loss(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])).item()
    assert found == pytest.approx(1 - (2 * 0.5 + 1) / (2 * 0.25 + 1 + 1))
