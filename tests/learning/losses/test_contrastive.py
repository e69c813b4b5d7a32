"""The contrast with several positives against what it is by definition."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from photopic.learning.losses.contrastive import multi_positive_contrast

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
