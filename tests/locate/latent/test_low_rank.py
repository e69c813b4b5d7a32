"""Local directions of a generator: projections, ratios, the bound, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from photopic.core.edits import SteeringVector
from photopic.core.edits.file import load, save
from photopic.core.errors import DataError, FieldError, ModelError
from photopic.core.events import finished
from photopic.core.numerics.robust_pca import smallest_weight
from photopic.data.picture_region import region_mask
from photopic.data.pictures import picture_of
from photopic.data.pixels import to_pixels
from photopic.edit.slider import SliderConfig, slider
from photopic.locate.latent._common import Grams, grams_at, linear_ratio
from photopic.locate.latent.global_directions import found_directions
from photopic.locate.latent.low_rank import LowRankConfig, low_rank, subspaces
from photopic.locate.latent.region_factorization import factorized, region_factorization
from photopic.metrics.locality import change_within
from photopic.models.generator import Generator, GeneratorConfig

TINY = GeneratorConfig(resolution=16, channels=(12, 12, 8), z_width=8, w_width=8, seed=3)
EYES = "0.25,0.25,0.75,0.5"


@pytest.fixture(scope="module")
def model():
    return Generator.fresh(TINY, "tiny")


@pytest.fixture(scope="module")
def grams(model):
    w = model.map(model.sample_z(1, seed=5))
    return finished(grams_at(model, w, region_mask(EYES, 16)))


def test_the_projector_is_one_and_leaves_the_rest_alone(grams):
    found = subspaces(grams, LowRankConfig(split="fixed"))
    values, vectors = (each[..., ::-1] for each in np.linalg.eigh(grams.outside))
    null = vectors[:, found.removed :]
    projector = null @ null.T
    np.testing.assert_allclose(projector @ projector, projector, atol=1e-12)
    np.testing.assert_allclose(projector, projector.T, atol=1e-12)
    assert round(np.trace(projector)) == 8 - found.removed == 6
    low = (vectors[:, :2] * values[:2]) @ vectors[:, :2].T
    for row in found.directions.vectors:
        assert np.linalg.norm(low @ row) <= 1e-10 * np.linalg.norm(low)
        np.testing.assert_allclose(projector @ row, row, atol=1e-12)
        assert np.linalg.norm(row) == pytest.approx(1)


def test_relaxing_gives_up_the_weakest_directions_of_the_rest(grams):
    relaxed = subspaces(grams, LowRankConfig(split="fixed", relax=1))
    assert relaxed.removed == 1
    values, vectors = (each[..., ::-1] for each in np.linalg.eigh(grams.outside))
    low = (vectors[:, :2] * values[:2]) @ vectors[:, :2].T
    for row in relaxed.directions.vectors:
        assert np.linalg.norm(low @ row) <= values[1] * (1 + 1e-12)


def test_no_direction_beats_the_top_generalised_eigenvector(grams):
    bound = linear_ratio(factorized(grams, 1e-12).vectors[0], grams)
    rows = [*subspaces(grams).directions.vectors, *np.random.default_rng(0).normal(size=(50, 8))]
    assert all(linear_ratio(row, grams) <= bound * (1 + 1e-9) for row in rows)


def test_a_small_step_changes_the_picture_as_the_matrices_say(model, grams):
    row = subspaces(grams).directions.vectors[0]
    double = Generator.fresh(TINY, "tiny")
    for part in double.components.values():
        part.double()
    w, step = grams.w.double(), 0.003 * float(model.std_w.norm())
    with torch.no_grad():
        after = double.synthesize(w + step * torch.from_numpy(row))
        change = change_within(double.synthesize(w), after, torch.from_numpy(region_mask(EYES, 16)))
    assert change.ratio == pytest.approx(linear_ratio(row, grams), rel=0.01)
    assert change.inside == pytest.approx(step**2 * row @ grams.inside @ row, rel=0.02)


def test_eigenvectors_turn_with_the_axes_and_robust_pca_does_not(grams):
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(8, 8)))[0]
    turned = Grams(turn @ grams.inside @ turn.T, turn @ grams.outside @ turn.T, grams.w)  # J -> J Q^T

    def agreement(one, other):
        return abs(one.vectors[0] @ turn.T @ other.vectors[0])

    fixed = LowRankConfig(split="fixed")
    assert agreement(factorized(grams), factorized(turned)) == pytest.approx(1, abs=1e-6)
    both = (subspaces(each, fixed).directions for each in (grams, turned))
    assert agreement(*both) == pytest.approx(1, abs=1e-6)
    weight = LowRankConfig(sparse_weight=1.2 * max(smallest_weight(each) for each in [*grams[:2], *turned[:2]]))
    both = (subspaces(each, weight).directions for each in (grams, turned))
    assert agreement(*both) < 1 - 1e-4  # the entrywise norm knows the axes


def test_the_edit_moves_w_in_the_layers_asked_for_and_comes_off_again(model):
    edit = low_rank(model, region=EYES, config=LowRankConfig(layers=(2, 3), min_keep=0.0))
    (part,) = edit.of(SteeringVector)
    assert part.modules() == ("synthesis.style.2", "synthesis.style.3")
    before = model.generate(2)
    with model.edits.applied(edit):
        assert not np.array_equal(model.generate(2), before)
        w, moved = model.map(model.sample_z(1)), torch.zeros(1, 6, 8)
        moved[:, 2:4] = part.vectors["synthesis.style.2"]
        edited = model.synthesize(w)
    torch.testing.assert_close(edited, model.synthesize(model.in_layers(w) + moved))
    np.testing.assert_array_equal(model.generate(2), before)
    assert float(part.vectors["synthesis.style.2"].norm()) == pytest.approx(float(model.std_w.norm()), rel=1e-5)


def test_a_slider_is_a_file_that_is_put_on_moved_and_taken_off(model, tmp_path):
    save(low_rank(model, region=EYES, config=LowRankConfig(min_keep=0.0)), tmp_path / "eyes.edit")
    edit = load(tmp_path / "eyes.edit")
    (part,) = edit.of(SteeringVector)
    report = slider(edit, model, config=SliderConfig(weights=(-0.5, 0.0, 0.5), pictures=2))
    w = model.map(model.sample_z(2))
    moved = model.synthesize(w - 0.5 * part.vectors["mapping"])
    assert (picture_of(report.rows[1]["drawn"][0]) == to_pixels(moved[1:])[0]).all()
    assert report.values["change"][0] == pytest.approx(float((moved - model.synthesize(w)).square().mean()), rel=1e-5)
    assert report.values["change"][1] == 0 and report.values["restored"]


def test_where_the_region_is_like_the_rest_nothing_local_is_found():
    matrix = np.diag(np.exp(-np.arange(8.0)))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    same = turn @ matrix @ turn.T
    assert not len(subspaces(Grams(same, same, None)).directions.keep)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"region": "0,0,1,1"}, DataError, "whole"),
        ({"region": "0.5,0.5,0.51,0.51"}, DataError, "found none"),
        ({"region": "no.png"}, DataError, "found neither"),
        ({"region": "a,b,c,d"}, DataError, "four numbers"),
        ({"config": LowRankConfig(min_keep=1.0)}, DataError, "nothing local here"),
        ({"config": LowRankConfig(sparse_weight=1e-4)}, DataError, "leaves nothing"),
        ({"config": LowRankConfig(layers=(6,), min_keep=0.0)}, DataError, "0 to 5"),
    ],
)
def test_what_cannot_be_found_is_refused_in_one_line(model, change, error, said):
    with pytest.raises(error, match=said):
        low_rank(model, **({"region": EYES} | change))


def test_random_noise_is_refused(model, monkeypatch):
    noisy = Generator.fresh(TINY, "noisy")
    for layer in noisy.synthesis.convs:
        layer.strength.data.fill_(1.0)
    monkeypatch.setattr(
        Generator, "noise_maps", lambda self, noise: [torch.randn_like(each.noise) for each in self.synthesis.convs]
    )
    with pytest.raises(ModelError, match="random noise is on"):
        region_factorization(noisy, region=EYES)


def test_the_strongest_global_directions_are_those_of_w_and_of_the_styles(model):
    w = model.map(model.sample_z(4096)).double()
    first = found_directions(model, "ganspace").vectors[0]
    spread = (w @ torch.from_numpy(found_directions(model, "ganspace").vectors).T).var(0)
    assert (
        spread.argmax() == 0
        and spread[0] > (w @ torch.from_numpy(found_directions(model, "random").vectors).T).var(0).max()
    )
    heard = found_directions(model, "sefa").vectors
    gains = [sum((conv.affine.weight.double() @ torch.from_numpy(row)).square().sum() for conv in
             (*model.synthesis.convs, *model.synthesis.to_rgb)) for row in heard]  # fmt: skip
    assert gains == sorted(gains, reverse=True) and np.linalg.norm(first) == pytest.approx(1)
    with pytest.raises(FieldError):
        LowRankConfig(direction=0)
