"""Results turn into JSON and refuse to be changed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from photopic.core.results import Map, Report, Verdict, provenance


@pytest.mark.parametrize(
    "result",
    [
        Map(np.zeros((1, 2, 2), np.float32), ("bear",), provenance("locate.attention", seed=1)),
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


def test_a_map_needs_a_label_for_each_picture() -> None:
    with pytest.raises(ValueError, match="a Map of 2 maps has 1 labels"):
        Map(np.zeros((2, 2, 2)), ("bear",))
