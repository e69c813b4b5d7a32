"""The two worlds: what is tied in one and free in the other, and masks that are exact."""

from __future__ import annotations

import pytest
import torch

from photopic.core.errors import DataError
from photopic.data.gan_worlds import faces


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_colours_are_tied_in_one_world_alone():
    free, tied = (faces(600, seed=1, correlated=each, size=32).factors for each in (False, True))
    for part, beside in (("eyes", "background"), ("mouth", "face")):
        assert abs(correlation(free[part], free[beside])) < 0.1 and 0.5 < correlation(tied[part], tied[beside]) < 0.75
        assert abs(float(free[part].std() - tied[part].std())) < 0.02
    assert torch.equal(free["smile"], tied["smile"]) and torch.equal(free["background"], tied["background"])


def test_masks_are_disjoint_complete_and_hold_their_colour():
    found = faces(8, seed=2, correlated=True, size=64)
    assert torch.equal(sum(mask.int() for mask in found.masks.values()), torch.ones(8, 64, 64, dtype=torch.int64))
    for name, mask in found.masks.items():
        for picture, region, colour in zip(found.pictures, mask, found.factors[name], strict=True):
            off = (picture[:, region] - colour[:, None]).abs().amax(0)
            assert region.sum() > 10 and float((off < 1e-6).float().mean()) > 0.4  # but for the edges


def test_a_scene_does_not_depend_on_how_many_are_drawn():
    assert torch.equal(faces(5, seed=3, size=32).pictures[:2], faces(2, seed=3, size=32).pictures)
    with pytest.raises(DataError, match="of 48"):
        faces(1, size=48)
