"""Knowledge extrapolation: the closed form of the game, and a descent along as many coordinates as are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.core.numerics.knowledge_game import discriminator, extrapolated
from photopic.models.generator import Generator, GeneratorConfig
from photopic.tune.latent.knowledge_extrapolation import (
    KnowledgeExtrapolationConfig,
    descend,
    knowledge_extrapolation,
    separation,
)

TINY = GeneratorConfig(resolution=16, channels=(8, 8, 4), z_width=8, w_width=8, seed=3)


def game(strength: float = 0.7) -> tuple[np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(40)), rng.integers(0, 10, 40) / 3.0, strength


def value(q: np.ndarray, p: np.ndarray, k: np.ndarray, strength: float) -> np.ndarray:
    return q @ k - strength * np.where(q > 0, q * np.log(np.maximum(q, 1e-300) / p), 0).sum(-1)


def test_the_solution_of_the_game_is_worth_log_z_and_nothing_is_worth_more():
    p, k, strength = game()
    q, log_z = extrapolated(p, k, strength)
    assert value(q, p, k, strength) == pytest.approx(strength * log_z, abs=1e-12)
    rng = np.random.default_rng(1)
    for concentration in (0.1, 1.0, 10.0):
        others = rng.dirichlet(np.full(40, concentration), 5000)
        assert value(others, p, k, strength).max() < strength * log_z


def test_the_discriminator_is_a_function_of_the_knowledge_and_the_rest_stays_as_it_was():
    p, k, strength = game()
    q, log_z = extrapolated(p, k, strength)
    np.testing.assert_allclose(discriminator(k, strength, log_z), p / (p + q), rtol=1e-14)
    for each in np.unique(k):
        same = k == each
        np.testing.assert_allclose(q[same] / q[same].sum(), p[same] / p[same].sum(), rtol=1e-14)


def test_a_great_strength_leaves_the_data_and_nothing_to_tell():
    p, k, _ = game()
    q, log_z = extrapolated(p, k, 1e9)
    np.testing.assert_allclose(q, p, rtol=1e-7)
    np.testing.assert_allclose(discriminator(k, 1e9, log_z), 0.5, rtol=1e-7)


def test_of_a_gaussian_it_is_the_gaussian_moved():
    grid = np.linspace(-8, 10, 4001)
    p = np.exp(-(grid**2) / 2)
    p /= p.sum()
    q, log_z = extrapolated(p, 1.5 * grid, 0.75)
    assert q @ grid == pytest.approx(2.0, abs=1e-6)  # a / strength
    logit = np.log(discriminator(1.5 * grid, 0.75, log_z) / (1 - discriminator(1.5 * grid, 0.75, log_z)))
    np.testing.assert_allclose(logit[abs(grid) < 4], (-2 * grid + 2)[abs(grid) < 4], atol=1e-6)


def linear(weights: torch.Tensor, **options):
    start = torch.zeros(3, len(weights)).double()
    return descend(
        lambda x: x @ weights, lambda blocks: blocks[0], [start], [torch.ones(len(weights)).double()], **options
    )


def test_with_all_coordinates_it_is_normalised_gradient_ascent():
    weights, at = torch.tensor([3.0, -2.0, 1.0, 0.5]).double(), torch.zeros(3, 4).double()
    found = linear(weights, target=100.0, most=None, steps=7, step=0.1)
    for _ in range(7):
        at = at + 0.1 * (weights / weights.norm())
    assert torch.equal(found.moved, at) and found.steps == 7


@pytest.mark.parametrize("most", [1, 2, 4])
def test_exactly_so_many_coordinates_move(most):
    weights = torch.tensor([3.0, -2.0, 1.0, 0.5]).double()
    found = linear(weights, target=100.0, most=most, steps=5, adaptive=False)
    assert (found.moved != 0).sum(1).tolist() == [most] * 3 and (found.moved[:, :most] != 0).all()


def test_pictures_stop_at_the_target_each_alone():
    found = linear(torch.tensor([2.0, 0.0]).double(), target=1.0, most=1, step=0.1, steps=50)
    assert found.reached.all() and found.steps == 5 and found.value.tolist() == pytest.approx([1.0] * 3)


def test_a_coordinate_more_is_taken_only_where_one_stalls():
    def bent(x):  # the first coordinate stops helping beyond 1
        return 2 * x[:, 0].clamp(max=1) + 0.5 * x[:, 1] + 0.4 * x[:, 2]

    start = torch.zeros(2, 3).double()
    found = descend(bent, lambda blocks: blocks[0], [start], [torch.ones(3).double()], 2.5, most=3, steps=60)
    assert found.reached.all() and found.most >= 2
    found = descend(bent, lambda blocks: blocks[0], [start], [torch.ones(3).double()], 1.5, most=3, steps=60)
    assert found.reached.all() and found.most == 1


def test_the_edit_raises_the_property_and_says_by_how_much():
    model = Generator.fresh(TINY, "tiny")
    config = KnowledgeExtrapolationConfig(beyond=0.0, steps=60, samples=4)
    edit = knowledge_extrapolation(model, property="red", region="0,0,0.5,1", config=config)
    facts, z = edit.provenance, model.sample_z(4)
    with model.edits.applied(edit):
        after = model.synthesize(model.map(z))[:, 0, :, :8].mean()
    assert float(after) == pytest.approx(facts["after"], abs=1e-3) and facts["after"] > facts["before"]
    assert 1 <= facts["coordinates"] <= 32 and 0.5 <= facts["separation"] <= 1
    assert sum(int((each != 0).sum()) for each in edit.parts[0].vectors.values()) <= facts["coordinates"]
    with pytest.raises(DataError, match="whole"):
        knowledge_extrapolation(model, region="0,0,1,1")


def test_what_lies_apart_is_told_apart():
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=400)
    assert separation(drawn, drawn[:50] + 4) > 0.9 and separation(drawn, drawn) < 0.65
