"""Gram matrices of a Jacobian in regions: equal to those of the whole Jacobian, whatever the blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import jacfwd, jvp

from photopic.core.errors import DataError
from photopic.core.nn.gram import gram_matrices
from photopic.core.nn.jacobians import load_forward_mode


@pytest.fixture(scope="module")
def drawn():
    load_forward_mode()  # whose first use warns
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(7, 24), nn.LeakyReLU(0.2), nn.Linear(24, 3 * 36)).double().requires_grad_(False)
    region = torch.zeros(6, 6, dtype=torch.bool)
    region[:2, :3] = True
    return lambda w: network(w[None])[0].reshape(3, 6, 6), torch.randn(7).double(), torch.stack([region, ~region])


@pytest.mark.parametrize("blocks", [{}, {"block": 7}, {"block": 3, "chunk": 2}, {"block": 1, "chunk": 1}])
def test_they_are_those_of_the_whole_jacobian(drawn, blocks):
    picture, at, masks = drawn
    jacobian = jacfwd(picture)(at)  # (3, 6, 6, 7)
    found = gram_matrices(picture, at, masks, **blocks)
    for each, mask in zip(found, masks, strict=True):
        rows = jacobian[:, mask].reshape(-1, 7)
        torch.testing.assert_close(each, rows.mT @ rows, rtol=1e-12, atol=1e-14)
        singular = torch.linalg.svdvals(rows)
        torch.testing.assert_close(torch.linalg.eigvalsh(each).flip(0), singular**2, rtol=1e-12, atol=1e-13)
    whole = jacobian.reshape(-1, 7)
    torch.testing.assert_close(found.sum(0), whole.mT @ whole, rtol=1e-10, atol=1e-12)
    assert torch.equal(found, found.mT)


def test_the_mean_of_channels_is_differentiated_as_such(drawn):
    picture, at, masks = drawn
    rows = jacfwd(lambda w: picture(w).mean(0))(at)[masks[0]]
    torch.testing.assert_close(gram_matrices(picture, at, masks, mean_channels=True)[0], rows.mT @ rows)


def test_directional_derivatives_are_the_jacobian_times_a_vector_and_central_differences(drawn):
    picture, at, _ = drawn
    torch.manual_seed(1)
    along = torch.randn(7).double()
    pushed = jvp(picture, (at,), (along,))[1]
    torch.testing.assert_close(pushed, jacfwd(picture)(at) @ along, rtol=1e-12, atol=1e-14)
    difference = (picture(at + 1e-4 * along) - picture(at - 1e-4 * along)) / 2e-4
    torch.testing.assert_close(difference, pushed, rtol=1e-6, atol=1e-8)


def test_never_more_columns_exist_than_were_asked_for(drawn):
    picture, at, masks = drawn
    widths = []

    def seen(w):
        widths.append(w)
        return picture(w)

    gram_matrices(seen, at, masks, block=2, chunk=1)
    assert len(widths) == (7 + 5 + 3 + 1)  # each block of two, then all the columns after it, one at a time


def test_masks_of_another_size_are_refused(drawn):
    picture, at, _ = drawn
    with pytest.raises(DataError, match="expected 6x6"):
        gram_matrices(picture, at, torch.ones(1, 4, 4, dtype=torch.bool))
