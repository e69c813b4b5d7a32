"""The recipe of the generator: nothing held out is drawn, an interrupted run ends the same and is written as a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from photopic.data import emoji_world
from photopic.data.emoji_faces import emoji_faces, face_sprites
from photopic.models.files import BUNDLED
from photopic.models.generator import Generator
from tests.recipes.conftest import assert_goes_on


def test_no_face_is_held_out_and_a_face_does_not_depend_on_the_count():
    for name, style in face_sprites("train"):
        assert emoji_world.concept(name).split != "held_out" and style in emoji_world.TRAINING_STYLES
    assert not set(face_sprites("train")) & set(face_sprites("held_out"))
    assert (emoji_faces(3, seed=5)[:2] == emoji_faces(2, seed=5)).all()


def test_an_interrupted_run_ends_with_the_same_weights_and_is_written_as_a_model(
    open_recipe: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    open_recipe("emoji-gan")
    import train

    config = replace(train.Config(), steps=4, alone=2, lazy=2, batch=4, pictures=6)
    whole = assert_goes_on(train.train, config, tmp_path, steps=3)
    monkeypatch.setattr(train, "CARD", tmp_path / "card.json")
    monkeypatch.setattr(train, "SHEET", tmp_path / "sheet.png")
    train.export(config, whole, tmp_path / "model")
    model = Generator.load(tmp_path / "model", device="cpu")
    assert model.encoder is not None and model.discriminator is not None and (tmp_path / "sheet.png").is_file()
    assert model.provenance["config"]["steps"] == 4


def test_the_bundled_generator_is_that_of_the_card_and_draws_yellow_faces():
    card = json.loads((Path(__file__).parents[2] / "recipes/emoji-gan/card.json").read_text())["models"]["emoji-gan"]
    folder = BUNDLED / "emoji-gan"
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == card["sha256"]
    assert sum(each.stat().st_size for each in folder.iterdir()) <= 5_000_000
    drawn = Generator.load("emoji-gan", device="cpu").generate(64, seed=3).astype(float)
    red, green, blue = drawn[:, 16:28, 28:36].mean((0, 1, 2))  # foreheads
    assert red > green > blue + 60 and drawn.std(0).mean() > 20  # and no two alike
