"""A saved map is read back as it was; anything else is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from photopic.core.errors import DataError
from photopic.core.mapfile import load, save
from photopic.core.results import Map


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    found = Map(np.random.default_rng(0).random((2, 3, 4)), ("a bear", "<mine>"), {"seed": 3, "method": "x"})
    for name in ("one", "two"):
        save(found, tmp_path / name)
    again = load(tmp_path / "one")
    np.testing.assert_allclose(again.values, found.values, atol=1e-7)
    assert (again.labels, dict(again.provenance)) == (found.labels, dict(found.provenance))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no map")
    save_file({"values": np.zeros((1, 2, 2), np.float32)}, tmp_path / "plain")
    for name in ("text", "plain"):
        with pytest.raises(DataError, match=f"{name}: expected a map written by photopic"):
            load(tmp_path / name)
