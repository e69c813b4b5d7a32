"""Random pruning: how many weights each tensor keeps, that what is shut stays shut, and that the edit is what was trained."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch

from photopic.core.edits import SparseWeights, ZeroedWeights
from photopic.core.edits.file import from_bytes, to_bytes
from photopic.data.few_shot import FewShotTask
from photopic.learning.few_shot_batches import batch_at
from photopic.learning.parameters.binary_mask import maskable
from photopic.tune.few_shot._common import cosines
from photopic.tune.few_shot.random_pruning import (
    Pruned,
    RandomPruningConfig,
    Rule,
    layer_densities,
    random_mask,
    random_pruning,
)
from tests.method_cases import labelled
from tests.tiny_encoders import tiny_dual_encoder

SHAPES = {"kernel": (64, 32, 3, 3), "square": (128, 128), "long": (16, 512), "small": (4, 4)}
CONFIG = RandomPruningConfig(steps=3, batch=4, sparsity=0.9, augment=False)


@pytest.mark.parametrize("rule", ["uniform", "er", "erk"])
@pytest.mark.parametrize("density", [0.05, 0.2, 0.7])
def test_densities_keep_what_is_asked_for_of_all_weights(rule: Rule, density: float) -> None:
    found = layer_densities(SHAPES, density, rule)
    sizes = {name: prod(shape) for name, shape in SHAPES.items()}
    assert sum(found[name] * size for name, size in sizes.items()) == pytest.approx(density * sum(sizes.values()))
    assert all(0 < each <= 1 for each in found.values())
    masks = [random_mask(sizes[name], each, torch.Generator().manual_seed(0)) for name, each in found.items()]
    assert [int(mask.sum()) for mask in masks] == [round(found[name] * size) for name, size in sizes.items()]


def test_densities_stand_in_the_published_ratios() -> None:
    uniform, er, erk = (layer_densities(SHAPES, 0.05, each) for each in ("uniform", "er", "erk"))
    assert set(uniform.values()) == {0.05}
    assert er["square"] / er["long"] == pytest.approx((256 / 128**2) / (528 / (16 * 512)))
    assert er["kernel"] / er["square"] == pytest.approx((96 / (64 * 32)) / (256 / 128**2))  # its sides do not count
    assert erk["kernel"] / erk["square"] == pytest.approx((102 / (64 * 32 * 9)) / (256 / 128**2))  # here they do
    assert erk["small"] == 1.0  # would keep more than all of it


def test_what_is_shut_stays_shut_and_the_edit_is_what_was_trained() -> None:
    model, data = tiny_dual_encoder("cnn"), labelled(6)
    before = {name: each.clone() for name, each in model.parameters().items()}
    edit = from_bytes(to_bytes(random_pruning(model, FewShotTask(data), config=CONFIG)))
    (shut,), (kept,) = edit.of(ZeroedWeights), edit.of(SparseWeights)
    sizes = {name: each.numel() for name, each in maskable(model, "all").items()}
    assert kept.count + shut.count == sum(sizes.values())
    assert kept.count == pytest.approx(0.1 * sum(sizes.values()), abs=len(sizes))
    densities = edit.provenance["densities"]
    assert {name: len(kept.indices[name]) for name in sizes} == {
        name: max(1, round(densities[name] * size)) for name, size in sizes.items()
    }
    with model.edits.applied(edit):
        for name, each in model.parameters().items():
            if name in sizes:
                assert int((each == 0).sum()) >= len(shut.indices.get(name, ()))
                assert torch.equal(each.flatten()[kept.indices[name]], kept.values[name])
    moved = [bool((kept.values[name] != before[name].flatten()[kept.indices[name]]).any()) for name in sizes]
    assert all(moved)  # what is left is trained
    assert all(torch.equal(each, before[name]) for name, each in model.parameters().items())


def test_a_step_is_one_of_adam_on_the_masked_tower() -> None:
    model, data = tiny_dual_encoder(), labelled(6)
    rows = model.class_features(data.names)
    masks = {
        name: random_mask(each.numel(), 0.5, torch.Generator().manual_seed(1))
        for name, each in maskable(model, "all").items()
    }
    learner = Pruned(model, data, CONFIG, masks, rows)
    name = next(iter(masks))
    start = {key: each.detach().clone().requires_grad_() for key, each in learner.tensors.items()}
    assert not start[name].flatten()[~masks[name]].any()
    learner.step(0)
    _, pixels, labels = batch_at(model, data, CONFIG, 0)
    logits = cosines(model, model.functional(start)(pixels), rows)
    gradient = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), start[name])[0]
    step = CONFIG.lr * gradient / (gradient.abs() + 1e-8) * masks[name].view_as(gradient)  # the first of Adam
    torch.testing.assert_close(learner.tensors[name].detach(), start[name].detach() - step, atol=1e-6, rtol=1e-4)


def test_random_starts_know_nothing_of_the_weights() -> None:
    model, data = tiny_dual_encoder(), labelled(6)
    rows = model.class_features(data.names)
    masks = {name: torch.ones(each.numel(), dtype=torch.bool) for name, each in maskable(model, "all").items()}
    learner = Pruned(model, data, replace(CONFIG, start="random"), masks, rows)
    for name, each in maskable(model, "all").items():
        drawn = learner.tensors[name].detach()
        both = torch.stack([drawn.flatten(), each.flatten()])
        if each.numel() > 200:
            assert abs(float(torch.corrcoef(both)[0, 1])) < 0.3
            assert float(drawn.std()) == pytest.approx((2 / prod(each.shape[1:])) ** 0.5, rel=0.2)
