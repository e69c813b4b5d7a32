"""The recipe of the oracle: it goes on where it was stopped, and never sees what is held out."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from photopic.core.runs import Run
from photopic.data import emoji_world

FOLDER = Path(__file__).parents[2] / "recipes" / "emoji-oracle"
MODULES = ("train", "pictures")


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import train

    yield train
    for name in MODULES:
        sys.modules.pop(name, None)


def weights(run):
    return {name: value for name, value in run.load()[0].items() if name.startswith("model.")}


def test_an_interrupted_run_ends_with_the_same_weights(recipe, tmp_path):
    config = replace(recipe.TrainConfig(), steps=4, batch=4, warmup=1)
    whole, parts = Run(tmp_path / "whole", config), Run(tmp_path / "parts", config)
    list(recipe.train(config, whole, save_every=2))
    steps = recipe.train(config, parts, save_every=2)
    for _ in range(3):  # the third step is lost: the last checkpoint is of the second
        next(steps)
    steps.close()
    assert [line["step"] for line in recipe.train(config, parts, save_every=2)] == [3, 4]
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(parts).items())


def test_scenes_hold_no_held_out_concept_and_no_held_out_style(recipe):
    painter = recipe.Painter(recipe.oracle_config(), seed=0)
    rng = np.random.default_rng(0)
    placements = [item for _ in range(200) for item in painter.scene(rng).placements]
    assert all(emoji_world.concept(item.concept).split != "held_out" for item in placements)
    assert emoji_world.HELD_OUT_STYLE not in {item.style for item in placements}


def test_a_step_draws_the_same_batch_whenever_it_is_asked(recipe):
    import pictures

    config = recipe.oracle_config()
    fresh, used = recipe.Painter(config, 1), recipe.Painter(config, 1)
    first = used.batch(0, 3)
    again, resumed = used.batch(pictures.REUSE, 3), fresh.batch(pictures.REUSE, 3)
    assert torch.equal(again.images, resumed.images) and torch.equal(first.concept, again.concept)
    assert not torch.equal(first.images, again.images)
