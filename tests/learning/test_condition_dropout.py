"""The rule by which conditions are dropped, against its probabilities."""

from __future__ import annotations

import torch

from photopic.data.conditions import EIGHT
from photopic.learning.condition_dropout import kept_conditions

DRAWS = 100_000


def test_shares_are_those_of_the_rule_within_three_standard_errors() -> None:
    kept = kept_conditions(DRAWS, EIGHT, torch.Generator().manual_seed(0)).double()
    wanted = {name: 0.34 if name == "intensity" else 0.5 for name in EIGHT}
    for name, share in zip(EIGHT, kept.mean(0).tolist(), strict=True):
        assert abs(share - wanted[name]) < 3 * (wanted[name] * (1 - wanted[name]) / DRAWS) ** 0.5, name
    each_kept = 0.5 ** (len(EIGHT) - 1)
    for found, share in (
        (1 - kept.amax(1), 0.1 + 0.8 * 0.7 * each_kept),  # P(none)
        (kept.amin(1), 0.1 + 0.8 * 0.3 * each_kept),  # P(all)
    ):
        assert abs(float(found.mean()) - share) < 3 * (share * (1 - share) / DRAWS) ** 0.5
    assert not bool(((kept.amin(1) == 1) & (kept.amax(1) == 0)).any())


def test_the_same_generator_draws_the_same_and_intensity_may_be_dropped_as_the_others() -> None:
    first, second = (kept_conditions(50, EIGHT, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    even = kept_conditions(DRAWS, EIGHT, torch.Generator().manual_seed(0), intensity=0.5).double().mean(0)
    assert abs(float(even[EIGHT.index("intensity")]) - 0.5) < 0.005
