"""The recipe of the dual encoders: nothing held out is shown, an interrupted run ends the same, what is written can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from photopic.data import renderings, scenes
from photopic.models.dual_encoder import DualEncoder
from tests.recipes.conftest import assert_goes_on


@pytest.fixture
def recipe(open_recipe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    open_recipe("emoji-clip")
    import pictures
    import train

    monkeypatch.setattr(pictures, "CHUNK", 24)
    return train


def test_no_scene_holds_a_held_out_pair(recipe, monkeypatch, tmp_path: Path) -> None:
    import pictures

    seen: list[scenes.Scene] = []
    drawn = scenes.sample_scene
    monkeypatch.setattr(scenes, "sample_scene", lambda *given: seen.append(drawn(*given)) or seen[-1])
    held_out = [(name, style) for name in renderings.classes() for style in ("noto", "twemoji")]
    monkeypatch.setattr(renderings, "held_out_pairs", lambda: held_out)
    found = pictures.bank(tmp_path, 24)
    shown = {image.tobytes() for image in found.images.numpy()}
    allowed = [each for each in seen if not {item.style for item in each.placements} & {"noto", "twemoji"}]
    assert len(seen) > 24 and shown == {each.image.tobytes() for each in allowed}


def test_a_bank_is_kept_and_a_batch_is_the_same_for_its_step(recipe, tmp_path: Path) -> None:
    import pictures

    found, again = pictures.bank(tmp_path, 24), pictures.bank(tmp_path, 24)
    (one, tokens), (other, _), (later, _) = found.batch(1, 8, 0), again.batch(1, 8, 0), again.batch(2, 8, 0)
    assert torch.equal(one, other) and not torch.equal(one, later)
    assert one.shape == (8, 3, 64, 64) and tokens.shape == (8, 24)
    texts = found.texts.tolist()
    assert set(texts) == {1, 4}
    images, said = found.names(2, 6, 0)
    single = {tuple(row) for row, count in zip(found.tokens[:, 3].tolist(), texts, strict=True) if count == 4}
    assert len(images) == 6 and {tuple(row) for row in said.tolist()} <= single  # the bare names


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_an_interrupted_run_ends_with_the_same_weights_and_is_written_as_a_model(recipe, kind, tmp_path: Path) -> None:
    import pictures

    data = pictures.bank(tmp_path / "scenes", 24)
    config = replace(recipe.TrainConfig(kind), steps=3, batch=8, warmup=1, naming_steps=3, naming_batch=4)
    whole = assert_goes_on(recipe.train, config, tmp_path, data, steps=5)
    recipe.export(config, whole, tmp_path / "model")
    model = DualEncoder.load(tmp_path / "model")
    assert model.image_features(np.zeros((2, 50, 50, 3), np.uint8)).shape == (2, 128)
    assert model.class_features(["bear", "mug"]).shape == (2, 128)


def test_the_loss_counts_the_same_sentence_as_right(recipe) -> None:
    network = recipe.build("vit")
    pixels, tokens = torch.randn(4, 3, 64, 64), torch.randint(5, 50, (4, 24))
    tokens[:] = tokens[0]
    loss, accuracy = recipe.contrast(network, pixels, tokens)
    assert loss.item() == pytest.approx(np.log(4), rel=0.05) and accuracy.item() == 1
