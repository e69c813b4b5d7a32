"""The emoji world: every concept draws, and the splits keep what is held out really out."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from photopic.data import emoji_world, splits
from photopic.data.emoji_world import HELD_OUT_STYLE, STYLES, TRAINING_STYLES, concept, concepts, select, sprite


def test_there_are_about_1900_uniquely_named_concepts_in_seven_styles() -> None:
    everything = concepts()
    assert len(everything) >= 1900 and len(STYLES) == 7
    assert len({item.name for item in everything}) == len(everything)
    assert [item.index for item in everything] == list(range(len(everything)))
    assert all(item.styles and set(item.styles) <= set(STYLES) for item in everything)
    assert {style for item in everything for style in item.styles} == set(STYLES)


def test_variants_share_the_split_of_their_base() -> None:
    for item in concepts():
        assert item.split == concept(item.base).split, item.name
    assert any(item.is_variant for item in concepts()) and any(item.has_skin_tones for item in concepts())
    assert all(concept(item.base).base == item.base for item in concepts())  # a base is the base of itself


def test_subjects_are_held_out_and_nothing_else_leaks() -> None:
    held_out = {item.name for item in select(split="held_out")}
    others = {item.name for item in concepts()} - held_out
    assert set(splits.SUBJECTS) <= held_out
    families = {concept(name).base for name in splits.SUBJECTS}
    assert not {name for name in others if concept(name).base in families}
    assert {item.split for item in concepts()} == {"known", "train", "held_out"}


def test_the_held_out_style_is_in_no_training_style() -> None:
    assert HELD_OUT_STYLE == "fluent-modern"
    assert HELD_OUT_STYLE not in TRAINING_STYLES and set(TRAINING_STYLES) | {HELD_OUT_STYLE} == set(STYLES)
    assert all(HELD_OUT_STYLE in concept(name).styles for name in splits.SUBJECTS)


def test_at_least_200_known_concepts_are_drawn_in_both_model_styles() -> None:
    known = select(split="known")
    assert {item.name for item in known} >= splits.KNOWN and len(known) >= 200
    assert all({"noto", "twemoji"} <= set(item.styles) for item in known)


def test_every_class_noun_is_a_known_concept() -> None:
    assert set(splits.SUBJECTS.values()) <= splits.KNOWN
    assert len(splits.SUBJECTS) >= 8 and not splits.KNOWN & splits.SUBJECTS.keys()


@pytest.mark.parametrize("style", STYLES)
def test_every_concept_of_a_style_has_pixels(style: str) -> None:
    for item in select(style=style):
        tile = sprite(item.name, style)
        assert tile.shape == (64, 64, 4) and tile[..., 3].any(), item.name


def test_sprites_are_pinned() -> None:
    digest = hashlib.sha256()
    for style in STYLES:
        for name in ("bear", "panda", "avocado"):
            tile = sprite(name, style)
            digest.update(np.where(tile[..., 3:] > 0, tile, 0).tobytes())  # colour under full transparency is free
    assert digest.hexdigest() == "3b31ded4bdea84f03ae411385235eec8309e46366bc7c3b9e9eb74e259cd5c7c"


def test_sprites_cannot_be_changed_by_a_caller() -> None:
    with pytest.raises(ValueError, match="read-only"):
        sprite("bear", "noto")[0, 0] = 0


def test_unknown_names_say_what_is_near() -> None:
    with pytest.raises(KeyError, match="did you mean"):
        concept("pand")
    with pytest.raises(KeyError, match="it is drawn in"):
        emoji_world.sprite("bear", "noto ")
