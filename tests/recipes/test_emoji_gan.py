"""The recipe of the generator: nothing held out is drawn, an interrupted run ends the same and is written as a model."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from photopic.core.runs import Run
from photopic.data import emoji_world
from photopic.data.emoji_faces import emoji_faces, face_sprites
from photopic.models.files import BUNDLED
from photopic.models.generator import Generator, GeneratorConfig
from photopic.models.style_networks import Mapping
from tests.recipes.conftest import assert_goes_on


def test_no_face_is_held_out_and_a_face_does_not_depend_on_the_count():
    for name, style in face_sprites("train"):
        assert emoji_world.concept(name).split != "held_out" and style in emoji_world.TRAINING_STYLES
    assert not set(face_sprites("train")) & set(face_sprites("held_out"))
    assert (emoji_faces(3, seed=5)[:2] == emoji_faces(2, seed=5)).all()


def test_interrupted_runs_end_with_the_same_weights_and_are_written_as_a_model_and_a_checkpoint(
    open_recipe: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    open_recipe("emoji-gan")
    import codes
    import train

    drawing = replace(codes.Config(), steps=4, mapping_steps=4, batch=4, pictures=6, draws=100)
    out = tmp_path / "run"
    learnt = assert_goes_on(codes.train, drawing, tmp_path / "codes", steps=3)
    mapped = assert_goes_on(codes.map_codes, drawing, tmp_path / "mapping", learnt, steps=3)
    codes.write(drawing, learnt, mapped)
    config = replace(train.Config(), steps=4, waiting=2, lazy=2, batch=4, pictures=6, reading=2)
    whole = assert_goes_on(train.train, config, tmp_path / "adversarial", mapped.folder, steps=3)
    for name, run in (("codes", learnt), ("mapping", mapped), ("adversarial", whole)):
        shutil.copytree(run.folder, out / name)
    for _ in train.read_again(config, Run(out / "encoder", config), Generator.load(mapped.folder, device="cpu")):
        pass
    monkeypatch.setattr(train, "CARD", tmp_path / "card.json")
    monkeypatch.setattr(train, "SHEET", tmp_path / "sheet.png")
    train.export(config, out, tmp_path / "model", tmp_path / "all.safetensors")
    model = Generator.load(tmp_path / "model", device="cpu")
    assert model.encoder is not None and model.discriminator is not None and (tmp_path / "sheet.png").is_file()
    assert model.provenance["config"]["steps"] == 4
    for part, options in ((train, config), (codes, drawing)):
        again = part.train(options, Run(tmp_path / f"on-{part.__name__}", options), tmp_path / "all.safetensors")
        assert next(again)["step"] == 1


def test_codes_are_drawn_about_equally_often_once_evened_out(open_recipe: Callable[[str], None]):
    open_recipe("emoji-gan")
    import codes

    mapping = Mapping(GeneratorConfig(z_width=8, codes=12))
    z = torch.randn(4_000, 8, generator=torch.Generator().manual_seed(1))
    at = (z * z.square().mean(1, keepdim=True).rsqrt())[:, :4]  # as the mapping reads it
    apart = [mapping.choice(at).mean(0).std()]
    codes.even_out(mapping, 8, seed=2, draws=4_000)
    apart.append(mapping.choice(at).mean(0).std())
    assert apart[1] < apart[0] / 3


def test_the_bundled_generator_is_that_of_the_card_and_draws_yellow_faces():
    card = json.loads((Path(__file__).parents[2] / "recipes/emoji-gan/card.json").read_text())["models"]["emoji-gan"]
    folder = BUNDLED / "emoji-gan"
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == card["sha256"]
    assert sum(each.stat().st_size for each in folder.iterdir()) <= 5_000_000
    drawn = Generator.load("emoji-gan", device="cpu").generate(64, seed=3).astype(float)
    red, green, blue = drawn[:, 16:28, 28:36].mean((0, 1, 2))  # foreheads
    assert red > green > blue + 60 and drawn.std(0).mean() > 20  # and no two alike
