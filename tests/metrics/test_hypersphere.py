"""Uniformity, alignment and effective rank of points whose answers can be computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from photopic.metrics.hypersphere import alignment, effective_rank, uniformity


def test_uniformity_is_the_log_of_the_mean_over_different_pairs() -> None:
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])  # squared distances 2, 4 and 2
    assert uniformity(points) == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))
    assert uniformity(torch.ones(4, 1)) == 0


def test_alignment_is_the_mean_squared_distance() -> None:
    first, second = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    assert alignment(first, second) == (0 + 4) / 2


def test_the_effective_rank_counts_directions_by_their_share_and_not_the_mean() -> None:
    two = torch.tensor([[3.0, 0.0, 5.0], [-3.0, 0.0, 5.0], [0.0, 1.0, 5.0], [0.0, -1.0, 5.0]])
    shares = (0.9, 0.1)  # 9 to 1; the third is the same for all
    assert effective_rank(two) == pytest.approx(math.exp(-sum(share * math.log(share) for share in shares)))
