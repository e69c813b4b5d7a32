"""The contrast with several positives against what it is by definition."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from photopic.learning.losses.contrastive import info_loob, info_nce, multi_positive_contrast, retrieved

LOGITS = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_with_itself_as_the_only_positive_it_is_infonce() -> None:
    square = LOGITS[:, :5]
    torch.testing.assert_close(
        multi_positive_contrast(square, torch.eye(5).double()), F.cross_entropy(square, torch.arange(5))
    )


def test_it_is_the_mean_over_positives_and_anchors_that_have_some() -> None:
    positives = torch.zeros(5, 7, dtype=torch.float64)
    positives[0, [1, 2]], positives[3, 4] = 1.0, 2.0  # the weight of an only positive does not count
    allowed = torch.ones(5, 7, dtype=torch.bool)
    allowed[0, 6] = False
    first = torch.cat([LOGITS[0, :6], torch.tensor([-torch.inf])]).log_softmax(0)
    expected = (-(first[1] + first[2]) / 2 - LOGITS[3].log_softmax(0)[4]) / 2
    torch.testing.assert_close(multi_positive_contrast(LOGITS, positives, allowed), expected)


def test_without_positives_it_is_0_and_its_gradient_too() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = multi_positive_contrast(logits, torch.zeros(5, 7).double())
    loss.backward()
    assert loss == 0 and logits.grad is not None and not logits.grad.any()


def test_clips_loss_is_cross_entropy_both_ways_and_texts_of_no_picture_are_in_one_of_them() -> None:
    logits = LOGITS  # 5 pictures, 7 texts
    expected = (F.cross_entropy(logits, torch.arange(5)) + F.cross_entropy(logits[:, :5].mT, torch.arange(5))) / 2
    torch.testing.assert_close(info_nce(logits, torch.eye(5, 7).double()), expected)


def test_the_gradient_of_infoloob_is_the_softmax_of_the_negatives_and_that_of_its_positive_does_not_saturate() -> None:
    logits = (10 * torch.eye(5, dtype=torch.float64) + LOGITS[:, :5]).requires_grad_()
    (gradient,) = torch.autograd.grad(info_loob(logits, torch.eye(5).double()), logits)
    diagonal = torch.eye(5, dtype=torch.bool)
    expected = logits.detach().masked_fill(diagonal, -torch.inf).softmax(1) / 5
    expected[diagonal] = -1 / 5
    torch.testing.assert_close(gradient, expected)
    (saturated,) = torch.autograd.grad(info_nce(logits, torch.eye(5).double()), logits)
    assert saturated.diagonal().abs().max() < 1e-2 / 5  # InfoNCE's fades with the distance of the positive


def test_infoloob_leaves_out_what_is_no_negative() -> None:
    right = torch.eye(5, dtype=torch.float64)
    right[0, 3] = right[3, 0] = 1.0
    rows = [torch.tensor([j for j in range(5) if not right[i, j]]) for i in range(5)]
    expected = torch.stack([LOGITS[i, rows[i]].logsumexp(0) - LOGITS[i, i] for i in range(5)]).mean()
    torch.testing.assert_close(info_loob(LOGITS[:, :5], right), expected)
    assert info_loob(LOGITS[:, :5], torch.ones(5, 5).double()) == 0


def test_a_retrieval_is_a_mean_of_what_is_stored_and_the_nearest_one_when_it_is_sharp() -> None:
    stored = F.normalize(LOGITS, dim=-1)
    states = F.normalize(stored + 0.1, dim=-1)
    expected = F.normalize((3.0 * states @ stored.mT).softmax(1) @ stored, dim=-1)
    torch.testing.assert_close(retrieved(states, stored, 3.0), expected)
    torch.testing.assert_close(retrieved(states, stored, 1e4), stored)
    flat = F.normalize(stored.mean(0, keepdim=True), dim=-1).expand(5, -1)
    torch.testing.assert_close(retrieved(states, stored, 1e-9), flat, atol=1e-6, rtol=0)
