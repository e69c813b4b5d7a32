"""The recipe of the captioner: nothing held out is shown, texts move with their pictures, an interrupted run ends the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from photopic.data import renderings
from photopic.knowledge.compact_caption import vocabulary
from photopic.models.captioner import Captioner
from tests.recipes.conftest import assert_goes_on

WORDS = vocabulary()


@pytest.fixture
def recipe(open_recipe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    open_recipe("emoji-captioner")
    import pictures
    import train

    monkeypatch.setattr(pictures, "CHUNK", 16)
    return train


def said(tokens: torch.Tensor) -> str:
    return " ".join(WORDS[token] for token in tokens.tolist() if token > 2)


def test_no_option_draws_a_held_out_pair(recipe) -> None:
    import pictures

    held_out = set(renderings.held_out_pairs())
    for style in pictures.emoji_world.TRAINING_STYLES:
        known, all_of_them = pictures.options(style, True), pictures.options(style, False)
        assert not any((name, style) in held_out for name in all_of_them.concepts)
        assert set(known.concepts) < set(all_of_them.concepts) <= set(renderings.classes())


def test_a_shifted_scene_has_shifted_edges_and_the_same_other_words(recipe, tmp_path: Path) -> None:
    import pictures

    data = pictures.bank(tmp_path, 16, "graph")
    pixels, tokens = data.batch(0, 16)
    assert pixels.shape == (16, 3, 64, 64) and tokens.shape == (16, 48)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    for row, moved in zip(data.tokens[order], tokens, strict=True):
        before, after = said(row).split(), said(moved).split()
        edges = [(int(old), int(new)) for old, new in zip(before, after, strict=True) if old.isdigit()]
        assert [each for each in before if not each.isdigit()] == [each for each in after if not each.isdigit()]
        inside = [[new - old for old, new in edges[axis::2] if 3 < old < 61] for axis in (0, 1)]  # to the right, down
        assert all(len(set(steps)) <= 1 and all(abs(step) <= 3 for step in steps) for steps in inside)


def test_the_same_step_gives_the_same_batch_of_either_text(recipe, tmp_path: Path) -> None:
    import pictures

    one, again, plain = (pictures.bank(tmp_path, 16, text) for text in ("graph", "graph", "caption"))
    assert all(map(torch.equal, one.batch(3, 4), again.batch(3, 4)))
    assert torch.equal(one.batch(3, 4)[0], plain.batch(3, 4)[0])  # the same pictures
    assert not one.batch(3, 4)[0].equal(one.batch(4, 4)[0])
    assert all(" on a " in said(row) and said(row).endswith("background") for row in plain.tokens)


def test_an_interrupted_run_ends_with_the_same_weights_and_is_written_as_a_model(recipe, tmp_path: Path) -> None:
    import pictures

    data = pictures.bank(tmp_path / "scenes", 16, "graph")
    config = replace(recipe.TrainConfig("graph"), steps=4, batch=4, warmup=1)
    whole = assert_goes_on(recipe.train, config, tmp_path, data, steps=3)
    recipe.export(whole, tmp_path / "model")
    model = Captioner.load(tmp_path / "model", device="cpu")
    (text,) = model.write(np.zeros((1, 50, 50, 3), np.uint8))
    assert set(text.split()) <= set(WORDS) and model.parameter_count < 1_500_000
