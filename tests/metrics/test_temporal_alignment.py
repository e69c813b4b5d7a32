"""Temporal alignment: a hard dynamic program in the limit, blind to nothing in the order of time, with exact gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from photopic.core.errors import DataError
from photopic.metrics.temporal_alignment import alignment_cost, alignment_distance, frame_distances, mean_distance


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(distances: Tensor) -> float:
    """The hard recursion cell by cell in plain Python."""
    rows, columns = distances.shape[0], distances.shape[1] + 2
    padded = [[0.0, *row, 0.0] for row in distances.tolist()]
    cost = [[0.0] * columns for _ in range(rows)]
    for row, column in itertools.product(range(rows), range(1, columns)):
        if row == 0:
            best = cost[0][column - 1]
        else:
            near = [cost[row - 1][column - 1], cost[row][column - 1]]
            if column in (1, columns - 1):
                near.append(cost[row - 1][column])
            best = min(near)
        cost[row][column] = padded[row][column] + best
    return cost[-1][-1]


@pytest.mark.parametrize("shape", [(8, 8), (1, 1), (2, 2), (3, 1), (1, 4), (5, 7)])
def test_lambda_0_is_the_dynamic_program_and_small_lambda_is_near_it(shape: tuple[int, int]) -> None:
    distances = rand(6, *shape)
    hard = torch.tensor([by_hand(each) for each in distances], dtype=torch.float64)
    torch.testing.assert_close(alignment_cost(distances, 0.0), hard)
    soft = alignment_cost(distances, 1e-3)
    assert bool((soft <= hard + 1e-12).all()) and float((hard - soft).max()) < 0.02
    torch.testing.assert_close(alignment_cost(distances, 1e-6), hard, atol=2e-5, rtol=0)


def test_known_values() -> None:
    diagonal = 1 - torch.eye(8)
    assert alignment_cost(diagonal, 0.0).item() == 0
    assert round(alignment_cost(diagonal, 0.5).item(), 2) == -0.37
    assert alignment_cost(torch.ones(8, 8), 0.0).item() == 8


def test_one_frame_is_its_distance() -> None:
    distances = rand(5, 1, 1)
    torch.testing.assert_close(alignment_cost(distances, 0.5), distances[:, 0, 0])


def test_gradients_are_those_of_finite_differences() -> None:
    distances = rand(2, 3, 4).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda each: alignment_cost(each, 0.5), (distances,))


def test_the_distance_is_the_same_from_both_sides_and_the_cost_is_not() -> None:
    distances = rand(8, 8)
    torch.testing.assert_close(alignment_distance(distances), alignment_distance(distances.mT))
    assert abs(float(alignment_cost(distances) - alignment_cost(distances.mT))) > 1e-3


def test_pairs_do_not_depend_on_their_batch() -> None:
    distances = rand(3, 4, 8, 8)
    one = torch.stack([alignment_distance(each) for each in distances.flatten(0, 1)]).view(3, 4)
    torch.testing.assert_close(alignment_distance(distances), one)


def test_permuting_both_videos_changes_the_alignment_only() -> None:
    a, b = rand(8, 16, seed=1), rand(8, 16, seed=2)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    torch.testing.assert_close(frame_distances(a[order], b[order]), frame_distances(a, b)[order][:, order])
    torch.testing.assert_close(mean_distance(a[order], b[order]), mean_distance(a, b))
    moved = alignment_distance(frame_distances(a[order], b[order])) - alignment_distance(frame_distances(a, b))
    assert abs(float(moved)) > 1e-4


def test_the_cosine_has_the_published_epsilon() -> None:
    a = torch.tensor([[3.0, 4.0]])
    assert frame_distances(a, a).item() == pytest.approx(1 - 25 / 25.01, abs=1e-6)


def test_bad_input_is_one_line() -> None:
    with pytest.raises(DataError, match="expected frames and lambda >= 0"):
        alignment_cost(torch.ones(2, 2), -1.0)
    with pytest.raises(DataError, match="expected frames"):
        alignment_cost(torch.ones(0, 2))
