"""Locality: masked mean squares by area and by total, and a report of an edit at several weights."""

from __future__ import annotations

import pytest
import torch

from photopic.core.edits import Edit, SteeringVector
from photopic.core.errors import DataError
from photopic.measure.locality import LocalityConfig, locality
from photopic.metrics.locality import change_within
from photopic.metrics.measurements import NAMES, measurement
from photopic.models.generator import Generator, GeneratorConfig

TINY = GeneratorConfig(resolution=16, channels=(8, 8, 4), z_width=8, w_width=8, seed=3)


def test_changes_are_divided_by_the_area_or_by_the_picture():
    torch.manual_seed(0)
    before, after = torch.randn(2, 5, 3, 4, 4)
    mask = torch.rand(5, 4, 4) > 0.6
    found, squared = change_within(before, after, mask), (after - before).square().mean(1).double()
    by_hand = torch.stack([each[inside].mean() for each, inside in zip(squared, mask, strict=True)]).mean()
    assert found.inside == pytest.approx(float(by_hand)) and found.ratio == pytest.approx(found.inside / found.outside)
    assert found.inside_total + found.outside_total == pytest.approx(float(squared.mean()))


def test_a_report_is_of_the_edit_at_each_weight_and_of_the_base_at_none():
    model = Generator.fresh(TINY, "tiny")
    edit = Edit((SteeringVector({"mapping": 0.1 * torch.ones(8)}),), model.fingerprint(), {})
    report = locality(
        edit, model, region="0,0,0.5,1", config=LocalityConfig(weights=(0.0, 0.5, 1.0), samples=3, strips=1)
    )
    still, half, moved = report.rows
    assert still["inside"] == still["outside"] == 0 and still["ratio"] is None
    w, mask = model.map(model.sample_z(3)), torch.zeros(16, 16, dtype=torch.bool)
    mask[:, :8] = True
    by_hand = change_within(model.synthesize(w), model.synthesize(w + 0.1), mask)
    assert moved["inside"] == pytest.approx(by_hand.inside, rel=1e-5) and moved["ratio"] == pytest.approx(
        by_hand.ratio, rel=1e-5
    )
    by_half = change_within(model.synthesize(w), model.synthesize(w + 0.05), mask)
    assert half["outside"] == pytest.approx(by_half.outside, rel=1e-4)
    assert report.values["strip_weights"] == [-1.0, -0.5, 0.0, 0.5, 1.0] and len(report.values["strips"]) == 1


@pytest.mark.parametrize("name", NAMES)
def test_measurements_see_only_their_region_and_have_gradients(name):
    torch.manual_seed(0)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 2:6] = True
    pictures, other = torch.rand(2, 3, 8, 8, requires_grad=True), torch.rand(2, 3, 8, 8)
    found = measurement(name, mask)(pictures)
    assert torch.autograd.grad(found.sum(), pictures)[0].any()
    far = torch.zeros(8, 8, dtype=torch.bool)
    far[6:, :2] = True  # no neighbour of the region
    torch.testing.assert_close(measurement(name, mask)(torch.where(far, other, pictures)), found)
    with pytest.raises(DataError, match="found 'shine'"):
        measurement("shine")
