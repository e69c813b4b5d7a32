"""Triggers change what they say and nothing else; poisoning marks and relabels exactly the share asked for."""

from __future__ import annotations

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.guard.attacks import ATTACKS, attack, poison

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 20, 20, 3), np.uint8)
LABELS = np.arange(60) % 5


@pytest.mark.parametrize("name", ATTACKS)
def test_a_trigger_is_a_function_of_the_picture_alone_and_leaves_its_argument(name: str) -> None:
    trigger, before = attack(name, target=2).trigger, IMAGES.copy()
    once = trigger(IMAGES)
    assert once.shape == IMAGES.shape and once.dtype == np.uint8 and (once != IMAGES).any((1, 2, 3)).all()
    assert (before == IMAGES).all() and (trigger(IMAGES[3:5]) == once[3:5]).all()


def test_a_patch_lies_in_its_corner_and_a_blend_is_faint() -> None:
    patched = attack("badnets").trigger(IMAGES)
    assert (patched[:, :-3] == IMAGES[:, :-3]).all() and (patched[:, :, :-3] == IMAGES[:, :, :-3]).all()
    blended = attack("blended").trigger(IMAGES).astype(int)
    assert abs(blended - IMAGES).max() <= round(0.15 * 255) + 1
    corners = {
        tuple(np.argwhere((out != given).any(-1)).min(0))
        for out, given in zip(attack("input_aware").trigger(IMAGES), IMAGES, strict=True)
    }
    assert len(corners) >= 4  # the place depends on the picture


def test_a_warp_of_a_flat_picture_is_the_picture_and_differs_between_seeds() -> None:
    flat = np.full((1, 20, 20, 3), 77, np.uint8)
    assert (attack("warped").trigger(flat) == flat).all()
    assert (attack("warped", seed=1).trigger(IMAGES) != attack("warped").trigger(IMAGES)).any()


@pytest.mark.parametrize("name", ATTACKS)
def test_poisoning_touches_the_share_asked_for_and_relabels_as_the_attack_says(name: str) -> None:
    made = attack(name, target=3)
    found = poison(made, IMAGES, LABELS, classes=5, rate=0.25, seed=1)
    chosen = found.is_poisoned
    assert (found.images[~chosen] == IMAGES[~chosen]).all() and (found.labels[~chosen] == LABELS[~chosen]).all()
    assert (found.images[chosen] == made.trigger(IMAGES)[chosen]).all()
    if made.relabel == "keep":
        assert chosen.sum() == 3 and (LABELS[chosen] == 3).all() and (found.labels == LABELS).all()
        return
    assert chosen.sum() == 15
    aimed = made.succeeds(found.labels[chosen], LABELS[chosen], 5)
    true = found.labels[chosen] == LABELS[chosen]
    assert (aimed | true).all()
    assert aimed.all() if made.softness == 0 else 1 <= (~aimed).sum() <= 5


def test_poison_is_the_same_for_a_seed() -> None:
    one, two, other = (
        poison(attack("badnets"), IMAGES, LABELS, classes=5, rate=0.2, seed=seed).is_poisoned for seed in (0, 0, 1)
    )
    assert (one == two).all() and (one != other).any()


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"trojan.*badnets"):
        attack("trojan")
    with pytest.raises(DataError, match="rate"):
        poison(attack("badnets"), IMAGES, LABELS, classes=5, rate=0.0)
    with pytest.raises(DataError, match="target 9"):
        poison(attack("badnets", target=9), IMAGES, LABELS, classes=5, rate=0.1)
    with pytest.raises(DataError, match="raise the rate"):
        poison(attack("clean_label", target=4), IMAGES, np.zeros(60, int), classes=5, rate=0.1)
