"""The recipe of emoji-depth: nothing held out is learnt from, interrupted runs end the same, the card is of the bundled weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from photopic.data import emoji_world
from photopic.models import depth_network
from tests.recipes.conftest import RECIPES, assert_goes_on


@pytest.fixture
def recipe(open_recipe: Callable[[str], None]) -> Any:
    open_recipe("emoji-depth")
    import train

    return train


def test_nothing_held_out_is_learnt_from(recipe: Any) -> None:
    assert all(emoji_world.concept(name).split != "held_out" for name, _ in recipe.LEARNT)
    assert emoji_world.HELD_OUT_STYLE not in {style for _, style in recipe.LEARNT}
    for choices in recipe.MEASURED.values():
        assert choices and not set(choices) & set(recipe.LEARNT)


def test_an_interrupted_run_ends_with_the_same_weights_and_is_written(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(recipe.Config(), steps=4, batch=2, widths=(4, 8, 8))
    whole = assert_goes_on(recipe.train, config, tmp_path, steps=3)
    recipe.export(whole, config, tmp_path / "depth.safetensors")
    monkeypatch.setattr(depth_network, "FILE", tmp_path / "depth.safetensors")
    written = depth_network.depth_network.__wrapped__()
    assert written.config["widths"] == [4, 8, 8]
    found = whole.load()
    assert found is not None
    weight = found[0]["model.down.1.0.weight"]
    assert torch.equal(written.state_dict()["down.1.0.weight"], weight.half().float())


def test_what_is_learnt_is_the_order_of_what_is_seen(recipe: Any) -> None:
    images, wanted = recipe.batch_of(replace(recipe.Config(), batch=6), 0)
    assert images.shape == (6, 3, 64, 64) and wanted.shape == (6, 1, 64, 64)
    for item in range(6):
        masks = recipe.scene(recipe.LEARNT, (recipe.Config.seed, 0, item)).masks
        for place, mask in enumerate(masks):
            assert torch.all((wanted[item, 0][torch.from_numpy(mask)] - (place + 1) / 4).abs() < 0.003)
        assert not wanted[item, 0][torch.from_numpy(~masks.any(0))].any()


def test_the_card_is_of_the_bundled_weights_and_they_reach_what_it_says(recipe: Any) -> None:
    card = json.loads((RECIPES / "emoji-depth" / "card.json").read_text())
    content = depth_network.FILE.read_bytes()
    assert card["sha256"] == hashlib.sha256(content).hexdigest() and card["bytes"] == len(content) < 2e6
    found = recipe.reached(24)
    assert found.keys() == card["reached"].keys()
    for name, (value, *_, count) in found.items():
        assert count >= 20 and abs(value - card["reached"][name][0]) < 0.2, name
    assert np.mean([card["reached"][f"{where}.order"][1] for where in recipe.MEASURED]) > 0.5  # better than chance
