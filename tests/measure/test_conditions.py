"""``measure conditions``: what it writes, what it takes from a user, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.condition_file import load_conditions
from photopic.data.conditioned_pictures import ConditionedPictures, training_scene
from photopic.data.conditions import KINDS
from photopic.measure.conditions import ConditionsConfig, conditions, conditions_view
from tests.tiny_encoders import tiny_dual_encoder

SMALL = ConditionsConfig(size=32)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.fromarray(training_scene((3,), 48).image[:, :40]).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_a_picture_of_each_condition_and_one_file_are_written(photo: str, tmp_path: Path) -> None:
    painted = np.zeros((48, 40), np.uint8)
    painted[10:30, 10:30] = 240
    Image.fromarray(painted).save(tmp_path / "map.png")
    (tmp_path / "photo.txt").write_text("a thing")
    given = {"mask": str(tmp_path / "map.png"), "instances_map": str(tmp_path / "map.png")}
    events = list(
        conditions.events(
            ConditionedPictures(photo), tiny_dual_encoder(), output=str(tmp_path / "out"), config=SMALL, **given
        )
    )
    found = load_conditions(tmp_path / "out" / "photo.conditions")
    assert found.names == tuple(KINDS) and found.encoder == tiny_dual_encoder().digest()
    assert {each.stem for each in (tmp_path / "out").glob("*.png")} == {"photo", *(f"photo-{name}" for name in KINDS)}
    assert any("is 40 x 48; its central square" in event.warning for event in events)
    assert found.values["skeleton"].any() and found.values["masked"][3].min() == 0
    view = conditions_view(events[-1].result)
    assert "1 pictures" in view.lead and len(view.sections[0].blocks[0].figures) == 1


def test_nothing_is_replaced_and_maps_are_for_one_picture(photo: str, tmp_path: Path) -> None:
    out, encoder = str(tmp_path / "out"), tiny_dual_encoder()
    conditions(ConditionedPictures(photo), encoder, output=out, config=SMALL)
    with pytest.raises(DataError, match="expected a new file"):
        conditions(ConditionedPictures(photo), encoder, output=out, config=SMALL)
    with pytest.raises(DataError, match="--mask: is for one picture, found 2"):
        conditions(ConditionedPictures("emoji-scenes:2"), encoder, output=out, mask=photo, config=SMALL)
    with pytest.raises(DataError, match="--invert-sketch"):
        conditions(ConditionedPictures(photo), encoder, output=out, config=ConditionsConfig(invert_sketch=True))


def test_a_picture_without_colours_is_told(tmp_path: Path) -> None:
    Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))).save(tmp_path / "grey.png")
    events = conditions.events(
        ConditionedPictures(str(tmp_path / "grey.png")), tiny_dual_encoder(), output=str(tmp_path / "out"), config=SMALL
    )
    assert any("has no colours" in event.warning for event in events)
