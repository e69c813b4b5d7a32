"""The table of gains and leaks: what a model obeys gains, what it is not told does not, and the control stays a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from photopic.core.errors import DataError, ModelError
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.data.conditions import Conditions
from photopic.generate import condition_gains as module
from photopic.generate.condition_gains import ConditionGainsConfig, Gains, condition_gains, gains_view
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline
from tests.tiny_conditional import tiny_conditional
from tests.tiny_encoders import tiny_dual_encoder

SCENES = ConditionedPictures("emoji-scenes:4")


@pytest.fixture(scope="module")
def composer() -> TextToImage:
    return tiny_conditional()


def painted(model: object, given: Sequence[Conditions], config: ConditionGainsConfig) -> np.ndarray:
    """A painter that obeys grey values to the byte and nothing else."""
    grey = np.full((32, 32), 127, np.uint8)
    return np.stack([np.stack([each.values.get("intensity", [grey])[0]] * 3, -1) for each in given])


def test_what_is_obeyed_gains_and_what_is_not_told_does_not(
    composer: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_drawn", painted)
    encoder = tiny_dual_encoder()
    report = condition_gains(composer, SCENES, encoder, encoder)
    rows = {row["condition"]: row for row in report.rows}
    assert list(rows) == ["caption", "embedding", "palette", "sketch", "instances", "depth", "intensity", "masked"]
    kept = rows["intensity"]
    assert kept["error_with"] < 0.005 < 0.05 < kept["gain"] and kept["low"] > 0
    assert kept["on_intensity"] == pytest.approx(kept["gain"] / kept["error_without"])
    assert kept["shuffled_gain"] < kept["gain"] / 2
    for name, row in rows.items():
        if name != "intensity":
            assert row["gain"] == 0 and row["on_intensity"] == 0
    assert all(f"on_{name}" in kept for name in rows)


def test_the_grid_holds_the_sources_and_what_is_drawn_of_each(
    composer: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EIGHT", ("caption", "embedding", "palette"))
    config = ConditionGainsConfig(steps=1, batch=2)
    own, encoder = tiny_dual_encoder(), tiny_dual_encoder("cnn")
    with pytest.raises(ModelError):  # an embedding of another encoder is not what the model reads
        condition_gains(composer, SCENES, encoder, encoder, config=config)
    three = ConditionedPictures("emoji-scenes:3")
    report = condition_gains(composer, three, own, encoder, config=config)
    again = condition_gains(composer, three, own, encoder, config=replace(config, batch=3))
    assert isinstance(report, Gains)
    assert list(report.grid)[:2] == ["source", "nothing"] and list(report.grid)[-1] == "everything"
    assert all(pictures.shape == (3, 32, 32, 3) for pictures in report.grid.values())
    assert len({pictures.tobytes() for pictures in report.grid.values()}) == len(report.grid)
    assert report.rows[0]["gain"] == pytest.approx(again.rows[0]["gain"], abs=1e-3)  # whatever is drawn together
    view = gains_view(report)
    assert "3 pictures, 1 steps" in view.lead and len(view.sections[0].blocks) == 4


def test_what_cannot_be_measured_is_refused(composer: TextToImage) -> None:
    encoder = tiny_dual_encoder()
    with pytest.raises(DataError, match="expected two pictures or more, found 1"):
        condition_gains(composer, ConditionedPictures("emoji-scenes:1"), encoder, encoder)
    with pytest.raises(ModelError, match="reads no conditions; load emoji-composer"):
        condition_gains(TextToImage(tiny_pipeline(), "tiny"), SCENES, encoder, encoder)
