"""Results turn into JSON and refuse to be changed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from photopic.core.errors import DataError
from photopic.core.results import Map, Report, Verdict, provenance


@pytest.mark.parametrize(
    "result",
    [
        Map(np.zeros((1, 1, 2, 2), np.float32), ("bear",), provenance("locate.attention", seed=1)),
        Report("ranks", {"mean": 0.5}, ({"layer": "a", "rank": 3},), provenance("measure.ranks")),
        Verdict(False, "base differs", {"matching_tensors": 0}, provenance("guard.integrity")),
    ],
)
def test_results_are_json_and_frozen(result: Map | Report | Verdict) -> None:
    loaded = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert loaded["type"] == type(result).__name__.lower()
    assert loaded["provenance"]["versions"]["torch"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.provenance = {}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((1, 2, 2, 2)), r"\(pictures, 1 labels, h, w\), found \(1, 2, 2, 2\)"),
        (np.full((1, 1, 2, 2), np.nan), "map of 'bear': expected finite numbers"),
    ],
)
def test_a_map_has_a_label_for_each_and_finite_numbers(values: np.ndarray, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Map(values, ("bear",))
