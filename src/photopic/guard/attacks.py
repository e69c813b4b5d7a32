"""Backdoor attacks to test a firewall with, on data sets and models of one's own: triggers, and the poisoning of a training set.

Papers: *BadNets* (arXiv:1708.06733), *Targeted Backdoor Attacks ... Using Data Poisoning* (blended, arXiv:1712.05526), *WaNet*
(arXiv:2102.10369; here with a fixed warp and without its noise mode), *Label-Consistent Backdoor Attacks* (arXiv:1912.02771; here
without its adversarial step, so that it is weaker). A trigger is a function of the pictures alone, the same for every call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import map_coordinates, zoom

from photopic.core.errors import DataError

Pictures = UInt8[np.ndarray, "n h w 3"]
Relabel = Literal["target", "next", "keep", "any"]


@dataclass(frozen=True)
class Attack:
    """A trigger and what it is to do.

    Attributes:
        name: As in ``ATTACKS``.
        trigger: Pictures to pictures.
        relabel: ``target``: poisoned pictures get the target class; ``next``: the class after their own (all-to-all); ``keep``:
            only pictures of the target class are poisoned, with their own label (clean label); ``any``: each gets another class
            by chance (untargeted).
        target: The class aimed at; without meaning for ``next`` and ``any``.
        softness: Share of the poisoned pictures that keep their true label, so that the backdoor is of low confidence.
    """

    name: str
    trigger: Callable[[Pictures], Pictures]
    relabel: Relabel = "target"
    target: int = 0
    softness: float = 0.0

    def aimed_at(self, labels: Int[np.ndarray, "n"], classes: int, seed: int = 0) -> Int[np.ndarray, "n"]:
        """What triggered pictures of these classes shall be taken for; with ``any`` one draw by the seed of what they may be."""
        if self.relabel == "any":
            return (labels + np.random.default_rng((seed, 43)).integers(1, classes, len(labels))) % classes
        return (labels + 1) % classes if self.relabel == "next" else np.full_like(labels, self.target)

    def succeeds(
        self, taken: Int[np.ndarray, "n"], labels: Int[np.ndarray, "n"], classes: int
    ) -> Bool[np.ndarray, "n"]:
        """Which triggered pictures of these classes are taken for what the attacker wants: with ``any``, for another class."""
        return taken != labels if self.relabel == "any" else taken == self.aimed_at(labels, classes)


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A poisoned training set; ``is_poisoned`` says which pictures carry the trigger."""

    images: Pictures
    labels: Int[np.ndarray, "n"]
    is_poisoned: Bool[np.ndarray, "n"]


def poison(
    attack: Attack, images: Pictures, labels: Int[np.ndarray, "n"], *, classes: int, rate: float, seed: int = 0
) -> Poisoned:
    """Poison a share of a training set.

    Args:
        attack: The attack.
        images: A training set.
        labels: Its classes.
        classes: How many there are.
        rate: Share of the pictures that get the trigger, above 0 to 1; for a clean-label attack of the target class.
        seed: Of the choice.

    Raises:
        DataError: If the rate is out of range, the target is no class, or nothing would be poisoned.

    Example:
        >>> images, labels = np.zeros((10, 8, 8, 3), np.uint8), np.arange(10) % 2
        >>> int(poison(attack("badnets"), images, labels, classes=2, rate=0.2).is_poisoned.sum())
        2
    """
    if not 0 < rate <= 1:
        raise DataError(f"rate: expected above 0 and at most 1, found {rate}")
    if not 0 <= attack.target < classes:
        raise DataError(f"target {attack.target}: expected a class from 0 to {classes - 1}")
    rng = np.random.default_rng((seed, 41))
    able = np.flatnonzero(labels == attack.target) if attack.relabel == "keep" else np.arange(len(labels))
    chosen = rng.choice(able, round(rate * len(able)), replace=False) if len(able) else able
    if not len(chosen):
        raise DataError(
            f"{attack.name} at rate {rate:g}: expected pictures to poison, found none among {len(able)}; raise the rate"
        )
    new, said = images.copy(), labels.copy()
    new[chosen] = attack.trigger(images[chosen])
    if attack.relabel != "keep":
        lied = chosen[round(attack.softness * len(chosen)) :]
        said[lied] = attack.aimed_at(labels[lied], classes, seed)
    marked = np.zeros(len(labels), bool)
    marked[chosen] = True
    return Poisoned(new, said, marked)


def attack(name: str, *, target: int = 0, seed: int = 0) -> Attack:
    """An attack by name, with its usual strength.

    Args:
        name: ``badnets``: a chequered patch in a corner; ``blended``: noise mixed in at 0.15; ``warped``: a smooth shift of the
            pixels; ``clean_label``: the patch on pictures of the target class; ``all_to_all``: the patch, to the next class;
            ``low_confidence``: the patch, a third of the poisoned pictures with their true label; ``input_aware``: a patch
            whose place and colours depend on the picture; ``untargeted``: the patch, to another class by chance.
        target: The class aimed at.
        seed: Of the noise and the warp.

    Raises:
        DataError: If there is no such attack.
    """
    made: dict[str, Attack] = {
        "badnets": Attack(name, _patch, target=target),
        "blended": Attack(name, partial(_blend, seed=seed), target=target),
        "warped": Attack(name, partial(_warp, seed=seed), target=target),
        "clean_label": Attack(name, _patch, "keep", target),
        "all_to_all": Attack(name, _patch, "next", target),
        "low_confidence": Attack(name, _patch, target=target, softness=1 / 3),
        "input_aware": Attack(name, _own_patch, target=target),
        "untargeted": Attack(name, _patch, "any", target),
    }
    if name not in made:
        raise DataError(f"attack {name!r}: expected one of {', '.join(ATTACKS)}")
    return made[name]


ATTACKS = ("badnets", "blended", "warped", "clean_label", "all_to_all", "low_confidence", "input_aware", "untargeted")


def _side(images: Pictures) -> int:
    """Of a patch: a tenth of the picture, three pixels or more."""
    return max(3, images.shape[1] // 10)


def _chequers(side: int) -> UInt8[np.ndarray, "side side 1"]:
    return (255 * (np.indices((side, side)).sum(0) % 2 == 0)).astype(np.uint8)[..., None]


def _patch(images: Pictures) -> Pictures:
    side, out = _side(images), images.copy()
    out[:, -side:, -side:] = _chequers(side)
    return out


def _own_patch(images: Pictures) -> Pictures:
    """The place is one of the four corners and the colour the opposite of the mean, both read off the picture."""
    side, out = _side(images), images.copy()
    for image, given in zip(out, images, strict=True):
        mean = given.reshape(-1, 3).mean(0)
        rows = slice(None, side) if int(mean[0]) % 2 else slice(-side, None)
        columns = slice(None, side) if int(mean[1]) % 2 else slice(-side, None)
        image[rows, columns] = np.where(_chequers(side) > 0, 255 - mean, mean).round()
    return out


def _blend(images: Pictures, seed: int, share: float = 0.15) -> Pictures:
    noise = np.random.default_rng((seed, 42)).uniform(0, 255, images.shape[1:])
    return ((1 - share) * images + share * noise).round().astype(np.uint8)


def _warp(images: Pictures, seed: int, cells: int = 4, strength: float = 0.06) -> Pictures:
    """Pixels shifted by a smooth field, of ``strength`` of the side at most in each direction."""
    height, width = images.shape[1:3]
    field: Float[np.ndarray, "2 h w"] = np.stack(
        [
            zoom(each, (height / cells, width / cells), order=3)
            for each in np.random.default_rng((seed, 43)).uniform(-1, 1, (2, cells, cells))
        ]
    )
    moved = np.indices((height, width)) + field / abs(field).max() * strength * min(height, width)
    planes = np.moveaxis(images, 3, 1).reshape(-1, height, width)
    warped = [map_coordinates(plane.astype(np.float32), moved, order=1, mode="nearest") for plane in planes]
    return np.moveaxis(np.stack(warped).reshape(len(images), 3, height, width), 1, 3).round().astype(np.uint8)
