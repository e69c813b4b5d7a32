"""The gradient's sign and scale, and the values of the schedule."""

from __future__ import annotations

import math

import pytest
import torch

from photopic.learning.losses.gradient_reversal import adversarial_strength, reversed_gradient


def test_values_pass_and_the_gradient_comes_back_turned_and_scaled() -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(4, 3, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2))
    reference = torch.autograd.grad((x * weight).sin().sum(), (x, weight))
    for strength in (0.0, 0.25, 1.0, 3.0):
        passed = reversed_gradient(x, strength)
        assert torch.equal(passed, x)
        found = torch.autograd.grad((passed * weight).sin().sum(), (x, weight))
        torch.testing.assert_close(found[0], -strength * reference[0])
        assert torch.equal(found[1], reference[1])  # what comes after the layer learns as ever


def test_twice_reversed_is_the_product_of_both_strengths() -> None:
    x = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(reversed_gradient(reversed_gradient(x, 2.0), 0.5).sum(), x)
    assert gradient.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.0), (0.1, 0.46211716), (0.25, 0.84828364), (1.0, 0.99990920)]
)
def test_the_schedule_is_that_of_the_paper(progress: float, expected: float) -> None:
    assert adversarial_strength(progress) == pytest.approx(expected, abs=1e-8)
    assert adversarial_strength(progress, 4.0) == pytest.approx(
        math.tanh(2 * progress)
    )  # the same function written otherwise
