"""Entropies and divergences of hand-sized examples, and their link to mutual information."""

from __future__ import annotations

import math

import pytest
import torch

from photopic.learning.losses.class_ratio import class_weights, pixel_entropy, ratio_divergence


def test_entropy_is_the_mean_over_pixels_of_what_each_class_weighs() -> None:
    chances = torch.tensor([[0.5, 1.0, 0.25], [0.5, 0.0, 0.75]]).view(1, 2, 1, 3)  # three pixels of two classes
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert float(pixel_entropy(chances)) == pytest.approx((math.log(2) + 0 + quarter) / 3, rel=1e-6)
    weights = torch.tensor([0.5, 1.5])
    first = 0.5 * 0.5 * math.log(2) + 1.5 * 0.5 * math.log(2)
    third = -(0.5 * 0.25 * math.log(0.25) + 1.5 * 0.75 * math.log(0.75))
    assert float(pixel_entropy(chances, weights)) == pytest.approx((first + third) / 3, rel=1e-6)
    sure = chances.clone().requires_grad_()
    pixel_entropy(sure).backward()
    assert sure.grad is not None and sure.grad.isfinite().all()  # log 0 does no harm


def test_divergences_are_those_of_the_two_directions() -> None:
    ratios, prior = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]), torch.tensor([0.7, 0.2, 0.1])
    forward = sum(p * math.log(p / q) for row in ratios.tolist() for p, q in zip(prior.tolist(), row, strict=True)) / 2
    backward = sum(q * math.log(q / p) for row in ratios.tolist() for p, q in zip(prior.tolist(), row, strict=True)) / 2
    assert float(ratio_divergence(ratios, prior, "prior-first")) == pytest.approx(forward, rel=1e-5)
    assert float(ratio_divergence(ratios, prior, "predicted-first")) == pytest.approx(backward, rel=1e-5)
    for direction in ("prior-first", "predicted-first"):
        assert float(ratio_divergence(prior[None], prior, direction)) == pytest.approx(0, abs=1e-7)
    # a class that the prior rules out may not be predicted; one that is nowhere predicted is no error of the other direction
    none = torch.tensor([0.7, 0.3, 0.0])
    assert (
        float(ratio_divergence(ratios, none, "predicted-first"))
        > 5
        > float(ratio_divergence(ratios, none, "prior-first"))
    )


def test_adami_is_mutual_information_with_the_sign_turned_plus_a_cross_entropy() -> None:
    draw = torch.Generator().manual_seed(0)
    chances = torch.randn(3, 4, 5, 5, generator=draw, dtype=torch.float64).softmax(1)
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    ratios = chances.mean((0, 2, 3))
    information = -(ratios * ratios.log()).sum() - pixel_entropy(chances)  # H(Y) - H(Y | X)
    loss = pixel_entropy(chances) + ratio_divergence(ratios[None], prior, "predicted-first")
    torch.testing.assert_close(loss, -information - (ratios * prior.log()).sum())


def test_weights_are_the_inverse_of_the_prior() -> None:
    weights = class_weights(torch.tensor([0.8, 0.1, 0.1]))
    torch.testing.assert_close(weights[1] / weights[0], torch.tensor(8.0))
    assert float(weights.mean()) == pytest.approx(1)
