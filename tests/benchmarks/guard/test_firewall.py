"""The benchmark of the firewall: what its numbers are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.guard.firewall import DIGITS, EMOJI, WALLS, FirewallConfig, mean_auroc
from benchmarks.guard.poisoned import digits, network, trained
from benchmarks.harness.cache import ResultCache
from photopic.guard.attacks import ATTACKS, attack


def test_the_mean_over_seeds_lies_in_its_interval_and_sees_no_difference_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    same = [(rng.normal(size=80), rng.normal(size=90)) for _ in range(3)]
    value, low, high = mean_auroc(same)
    assert low <= value <= high and low < 0.5 < high
    apart = [(rng.normal(2, 1, 80), rng.normal(size=90)) for _ in range(3)]
    assert mean_auroc(apart)[1] > 0.8


def test_what_the_defender_has_is_in_no_other_part() -> None:
    data = digits()
    seen = [{image.tobytes() for image in images} for images, _ in (data.train, data.clean, data.test)]
    assert sum(map(len, seen)) == len(set.union(*seen)) and len(data.clean[1]) >= 200


def test_at_least_four_attacks_and_three_seeds_are_measured_of_each_data_set() -> None:
    assert all(
        len(names) >= 4 and {"all_to_all", "untargeted"} < set(names) <= set(ATTACKS) for names in (DIGITS, EMOJI)
    )
    assert len(FirewallConfig().seeds) >= 3 and "ibd_psc" in WALLS["resnet"]


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_network_learns_and_is_kept(kind: str, tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    model, again = (trained(cache, "digits", attack("badnets"), 0, kind=kind, epochs=1) for _ in range(2))
    images, labels = digits().test
    assert model.digest() == again.digest()
    right = (model.logits(images).argmax(1).numpy() == labels).mean()
    assert right > 0.2 or kind == "vit"  # chance is 0.1; a ViT needs more than an epoch
    norms = [part for part in network(kind, 10).modules() if "Norm" in type(part).__name__]
    assert len(norms) >= {"resnet": 13, "vit": 9}[kind]
