"""The recipe of emoji-skeleton: nothing it measures on was learnt from, and its card is of the bundled weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from photopic.data.skeleton_pairs import emoji_pairs
from photopic.models.files import BUNDLED
from photopic.models.skeleton_network import WEIGHTS, SkeletonNetwork
from tests.recipes.conftest import RECIPES


@pytest.fixture
def recipe(open_recipe: Callable[[str], None]) -> Any:
    open_recipe("emoji-skeleton")
    import train

    return train


def test_what_is_measured_was_not_learnt_from(recipe: Any) -> None:
    learnt = {shape.tobytes() for shape in emoji_pairs(40).shapes}
    for where in recipe.MEASURED.values():
        assert not learnt & {shape.tobytes() for shape in emoji_pairs(20, **where).shapes}


def test_the_card_is_of_the_bundled_weights(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    card = json.loads((RECIPES / "emoji-skeleton" / "card.json").read_text())
    content = (BUNDLED / "emoji-skeleton" / WEIGHTS).read_bytes()
    assert card["sha256"] == hashlib.sha256(content).hexdigest() and card["bytes"] == len(content)
    monkeypatch.setattr(recipe, "emoji_pairs", lambda count, **where: emoji_pairs(24, **where))
    found = recipe.reached(SkeletonNetwork.load("emoji-skeleton", "cpu"))
    assert found.keys() == card["reached"].keys()
    for name, (value, *_, count) in found.items():
        assert count == 24 and abs(value - card["reached"][name][0]) < 0.15, name
