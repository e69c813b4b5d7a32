"""The recipe of emoji-composer: what it writes loads beside its base and says how it was made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from photopic.core.runs import Run
from photopic.data import emoji_world
from photopic.data.conditioned_pictures import STYLES, training_scene
from photopic.models.text_to_image.conditional import ConditionalTextToImage
from tests.recipes.conftest import weights


def test_nothing_held_out_is_learnt_from() -> None:
    seen = [item for index in range(300) for item in training_scene((index,)).placements]
    assert {item.style for item in seen} == set(STYLES) and emoji_world.HELD_OUT_STYLE not in STYLES
    assert all(emoji_world.concept(item.concept).split == "known" for item in seen)


def test_a_run_is_written_beside_the_base_and_loads(open_recipe: Callable[[str], None], tmp_path: Path) -> None:
    open_recipe("emoji-composer")
    import train

    train.train(replace(train.CONFIG, steps=1, batch=2), 3, tmp_path / "run")
    train.export(tmp_path / "run", tmp_path / "emoji-composer")
    assert sum(path.stat().st_size for path in (tmp_path / "emoji-composer").iterdir()) < 4e6  # not the base again
    about = json.loads((tmp_path / "emoji-composer" / "conditions.json").read_text())
    assert about["base"] == "emoji-diffusion" and about["provenance"]["steps"] == 1
    model = ConditionalTextToImage.load(tmp_path / "emoji-composer", device="cpu")
    learnt = weights(Run(tmp_path / "run"), "ema.")
    for name, value in model.condition_encoder.state_dict().items():
        assert torch.equal(value, learnt[f"ema.{name}"].half().float()), name
