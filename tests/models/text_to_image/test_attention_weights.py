"""Key and value projections by name, and sets of positions in them."""

from __future__ import annotations

import pytest
import torch

from photopic.core.errors import ModelError
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions, with_zeros
from photopic.models.text_to_image.handle import TextToImage


def test_attention_weights_are_the_ones_asked_for(model: TextToImage) -> None:
    cross, everything = attention_weights(model), attention_weights(model, "all")
    assert all(".attn2.to_" in name for name in cross)
    assert len(everything) == 2 * len(cross) == 4 * len(attention_weights(model, "self", ("v",)))
    with pytest.raises(ModelError, match="cross attention with to_q_"):
        attention_weights(model, "cross", ("q_",))


def test_random_positions_keep_the_sizes_per_layer(model: TextToImage) -> None:
    weights = attention_weights(model)
    located = {name: torch.arange(5 + number) for number, name in enumerate(list(weights)[:3])}
    chosen = random_positions(located, weights, seed=1)
    assert {name: len(index) for name, index in chosen.items()} == {name: len(i) for name, i in located.items()}
    assert all((index.diff() > 0).all() for index in chosen.values())
    assert not all(torch.equal(chosen[name], located[name]) for name in located)


def test_zeroed_copies_leave_the_weights_alone(model: TextToImage) -> None:
    weights = attention_weights(model)
    name = next(iter(weights))
    shut = with_zeros(weights, {name: torch.tensor([0, 3])})
    assert list(shut) == [name] and (shut[name].view(-1)[[0, 3]] == 0).all()
    assert (weights[name].view(-1)[[0, 3]] != 0).all()
