"""A saved map is read back as it was; anything else is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from photopic.core.errors import DataError
from photopic.core.mapfile import FORMAT, load, save
from photopic.core.results import Map


@pytest.mark.parametrize("pictured", [False, True])
def test_round_trip_and_equal_bytes(tmp_path: Path, pictured: bool) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 6, 7, 3), np.uint8) if pictured else None
    found = Map(rng.random((5, 2, 3, 4)), ("a bear", "<mine>"), {"seed": 3, "method": "x"}, images)
    for name in ("one", "two"):
        save(found, tmp_path / name)
    again = load(tmp_path / "one")
    np.testing.assert_allclose(again.values, found.values, atol=1e-7)
    np.testing.assert_equal(again.images, images)
    assert (again.labels, dict(again.provenance)) == (found.labels, dict(found.provenance))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_of_before_there_were_pictures_is_the_map_of_one(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
    about = {"format": FORMAT, "labels": ["a bear", "<mine>"], "provenance": {}}
    save_file({"values": values}, tmp_path / "old", {"map": json.dumps(about)})
    found = load(tmp_path / "old")
    np.testing.assert_array_equal(found.values, values[None])
    assert found.images is None


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no map")
    save_file({"values": np.zeros((1, 2, 2), np.float32)}, tmp_path / "plain")
    for name in ("text", "plain"):
        with pytest.raises(DataError, match=f"{name}: expected a map written by photopic"):
            load(tmp_path / name)
