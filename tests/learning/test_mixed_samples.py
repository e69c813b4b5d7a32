"""Mixed batches: exact shares, masks of the right spectrum, labels by area."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from photopic.learning.mixed_samples import Mixing, cutmix_box, fmix_mask, mixed

PIXELS = torch.arange(6.0)[:, None, None, None].expand(6, 3, 16, 16)  # each picture is one number


@pytest.mark.parametrize("shape", [(100,), (32, 32), (11, 9), (8, 8, 8)])
@pytest.mark.parametrize("share", [0.0, 0.137, 0.5, 1.0])
def test_the_mean_of_a_mask_is_the_share_to_one_sample(shape: tuple[int, ...], share: float) -> None:
    rng, size = np.random.default_rng(0), int(np.prod(shape))
    means = [fmix_mask(shape, share, 3.0, rng).mean() for _ in range(200)]
    assert max(abs(mean - share) for mean in means) < 1 / size
    assert np.mean(means) == pytest.approx(share, abs=0.15 / size)


def test_masks_have_few_parts_that_follow_the_decay() -> None:
    rng = np.random.default_rng(0)
    borders = {
        decay: np.mean(
            [np.abs(np.diff(fmix_mask((32, 32), 0.5, decay, rng).astype(int), axis=0)).mean() for _ in range(50)]
        )
        for decay in (0.0, 1.0, 3.0)
    }
    assert borders[0.0] > 0.4 > borders[1.0] > 3 * borders[3.0]  # white noise has a border at every other sample


def test_boxes_have_the_area_before_they_are_cut_off() -> None:
    rng = np.random.default_rng(0)
    boxes = [cutmix_box((32, 64), 0.25, rng) for _ in range(300)]
    areas = np.array([box.mean() for box in boxes])
    assert areas.max() == 0.25 and areas.min() < 0.1
    for box in boxes[:20]:
        rows, columns = box.any(1), box.any(0)
        assert np.array_equal(box, rows[:, None] & columns[None])


@pytest.mark.parametrize("mixing", ["fmix", "cutmix", "mixup"])
def test_pixels_and_loss_have_the_same_share_of_the_same_partner(mixing: Mixing) -> None:
    for seed in range(20):
        batch = mixed(PIXELS, mixing, np.random.default_rng(seed), alpha=1.0, decay=3.0)
        own = torch.arange(6.0)
        wanted = batch.share * own + (1 - batch.share) * own[batch.partners]
        assert torch.allclose(batch.pixels.mean((1, 2, 3)), wanted, atol=1e-5)
        assert sorted(batch.partners.tolist()) == list(range(6))
        if mixing != "mixup":  # every pixel is one of the two pictures'
            both = torch.stack([own, own[batch.partners]])[..., None, None, None]
            assert bool((batch.pixels == both).any(0).all())
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 1])
    soft = batch.share * F.one_hot(labels, 4) + (1 - batch.share) * F.one_hot(labels[batch.partners], 4)
    assert batch.loss(logits, labels).item() == pytest.approx(F.cross_entropy(logits, soft).item(), abs=1e-5)


def test_shares_are_of_the_beta_distribution() -> None:
    rng = np.random.default_rng(0)
    shares = [mixed(PIXELS[:2, :, :1], "mixup", rng, alpha=0.2, decay=3.0).share for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.4), abs=0.01)  # of Beta(a, a): 1 / (4 (2 a + 1))


def test_none_changes_nothing() -> None:
    batch = mixed(PIXELS, "none", np.random.default_rng(0), alpha=1.0, decay=3.0)
    assert torch.equal(batch.pixels, PIXELS) and batch.share == 1
