"""Points of the great arc, and the contrast with them against what it is by definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from photopic.learning.losses.geodesic import geodesic, mixed_negatives


def unit(count: int, *, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 6, generator=draw, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_a_mixture_has_length_1_and_lies_at_its_share_of_the_angle(share: float) -> None:
    first, second = unit(50), unit(50, seed=1)
    mixed = geodesic(first, second, share)
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(50, dtype=torch.float64), rtol=1e-14, atol=1e-14)
    angle = (first * second).sum(1).arccos()
    torch.testing.assert_close((mixed * second).sum(1).clamp(-1, 1).arccos(), share * angle, rtol=0, atol=1e-7)
    plane = torch.linalg.matrix_rank(torch.stack([first, second, mixed], 1), rtol=1e-9)
    assert (plane == 2).all()


def test_it_is_the_papers_formula_and_equal_points_stay_with_finite_gradients() -> None:
    first, second = unit(8), unit(8, seed=1)
    theta = (first * second).sum(1, keepdim=True).arccos()
    expected = first * (0.3 * theta).sin() / theta.sin() + second * (0.7 * theta).sin() / theta.sin()  # equation 3
    torch.testing.assert_close(geodesic(first, second, 0.3), expected)
    same = unit(4).requires_grad_()
    mixed = geodesic(same, same.detach(), torch.full((4, 1), 0.4, dtype=torch.float64))
    torch.testing.assert_close(mixed, same)
    mixed.sum().backward()
    assert same.grad is not None and same.grad.isfinite().all()


def test_mixed_negatives_are_by_definition() -> None:
    images, texts, scale = unit(3), unit(3, seed=1), 5.0
    mixed = geodesic(images, texts, 0.5)
    right = torch.eye(3, dtype=torch.float64)
    right[0, 2] = right[2, 0] = 1.0  # the captions of 0 and 2 are the same
    expected = 0.0
    for i in range(3):
        positive = math.exp(scale * float(images[i] @ texts[i]))
        negatives = [math.exp(scale * float(images[i] @ mixed[j])) for j in range(3) if right[i, j] == 0]
        expected -= math.log(positive / (positive + sum(negatives))) / 3
    assert mixed_negatives(images, texts, mixed, right, scale).item() == pytest.approx(expected, rel=1e-12)
