"""Lottery jackpots: how much is shut, that weights stay, what a score's gradient is, and that swaps are restricted."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from photopic.core.edits import ZeroedWeights
from photopic.data.few_shot import FewShotTask
from photopic.learning.few_shot_batches import batch_at
from photopic.learning.parameters.binary_mask import maskable
from photopic.tune.few_shot.lottery_jackpots import (
    LotteryJackpotsConfig,
    Searching,
    lottery_jackpots,
    swapped,
    top_share,
)
from tests.method_cases import labelled
from tests.tiny_encoders import tiny_dual_encoder

CONFIG = LotteryJackpotsConfig(steps=4, batch=4, lr=0.3, sparsity=0.75, swaps=0.1, augment=False)


def test_each_tensor_is_as_sparse_as_asked_for_and_no_weight_changes() -> None:
    model = tiny_dual_encoder()
    before = {name: each.clone() for name, each in model.parameters().items()}
    edit = lottery_jackpots(model, FewShotTask(labelled(6)), config=CONFIG)
    (part,) = edit.of(ZeroedWeights)
    for name, weight in maskable(model, "all").items():
        assert len(part.indices[name]) == weight.numel() - round(0.25 * weight.numel())
    with model.edits.applied(edit):
        for name, each in model.parameters().items():
            shut = part.indices.get(name, torch.zeros(0, dtype=torch.int64))
            expected = before[name].flatten().index_fill(0, shut, 0.0).view_as(each)
            assert torch.equal(each, expected)  # what stays is the pretrained weight, to the byte
    assert all(torch.equal(each, before[name]) for name, each in model.parameters().items())


def test_the_first_mask_is_that_of_the_magnitudes_or_of_chance() -> None:
    model, data = tiny_dual_encoder(), labelled(6)
    rows = model.class_features(data.names)
    by_size, by_chance = (
        Searching(model, data, replace(CONFIG, start=each), rows).masks for each in ("magnitude", "random")
    )
    for name, weight in maskable(model, "all").items():
        kept = weight.abs().flatten()
        assert kept[by_size[name]].min() >= kept[~by_size[name]].max()
    shared = sum(int((by_chance[name] & mask).sum()) for name, mask in by_size.items())
    assert 0.15 < shared / sum(int(mask.sum()) for mask in by_size.values()) < 0.35  # a quarter by chance


def test_a_scores_gradient_is_the_weight_times_that_of_the_masked_weight() -> None:
    model, data = tiny_dual_encoder(), labelled(6)
    rows = model.class_features(data.names)
    learner = Searching(model, data, CONFIG, rows)
    masks = {name: mask.clone() for name, mask in learner.masks.items()}
    learner.step(0)
    base = maskable(model, "all")
    masked = {
        name: (each.flatten() * masks[name]).view_as(each).detach().requires_grad_() for name, each in base.items()
    }
    _, pixels, labels = batch_at(model, data, CONFIG, 0)
    features = functional.normalize(model.functional(masked)(pixels), dim=-1)
    loss = functional.cross_entropy(model.logit_scale * features @ rows.mT, labels)
    for (name, each), slope in zip(base.items(), torch.autograd.grad(loss, list(masked.values())), strict=True):
        found = learner.tensors[name].grad
        assert found is not None
        torch.testing.assert_close(found, (each * slope).flatten(), atol=1e-5, rtol=1e-3)


def test_swaps_are_no_more_than_allowed_and_lead_to_the_best_mask() -> None:
    draw = torch.Generator().manual_seed(0)
    scores, mask = torch.rand(1000, generator=draw), torch.rand(1000, generator=draw) < 0.3
    kept, steps = int(mask.sum()), 0
    while not torch.equal(after := swapped(mask, scores, 0.05), mask):
        assert int(after.sum()) == kept and int((mask & ~after).sum()) <= round(0.05 * kept)
        mask, steps = after, steps + 1
    assert steps > 5 and torch.equal(mask, top_share(scores, kept / 1000))


def test_what_a_step_may_swap_falls_along_the_search() -> None:
    model, data = tiny_dual_encoder(), labelled(6)
    learner = Searching(model, data, replace(CONFIG, steps=40, lr=5.0), model.class_features(data.names))
    shares = []
    for step in (0, 20, 39):
        before = {name: mask.clone() for name, mask in learner.masks.items()}
        learner.step(step)
        moved = sum(int((before[name] & ~mask).sum()) for name, mask in learner.masks.items())
        shares.append(moved / sum(int(mask.sum()) for mask in before.values()))
    assert 0.11 > shares[0] > shares[2] and shares[1] < 0.06 and shares[2] < 0.002
