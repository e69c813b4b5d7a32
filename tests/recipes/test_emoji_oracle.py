"""The recipe of the oracle: it goes on where it was stopped, and never sees what is held out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from photopic.data import emoji_world
from tests.recipes.conftest import assert_goes_on


@pytest.fixture
def recipe(open_recipe):
    open_recipe("emoji-oracle")
    import train

    return train


def test_an_interrupted_run_ends_with_the_same_weights(recipe, tmp_path):
    config = replace(recipe.TrainConfig(), steps=4, batch=4, warmup=1)
    assert_goes_on(recipe.train, config, tmp_path, steps=3)  # the last checkpoint is of the second


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
