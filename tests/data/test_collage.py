"""Rough alignment by key points, masks of collages, their files, and sprite people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from photopic.core.errors import DataError
from photopic.data.collage import Collage, aligned, laid_on, masks_of, read_collage
from photopic.data.sprite_people import garment_points, read_sprite_collage, sprite_collage, sprite_person

CORNERS = {"a": (0.25, 0.25), "b": (0.75, 0.25), "c": (0.25, 0.75), "d": (0.75, 0.75)}
LINE = {"a": (0.0, 0.0), "b": (0.5, 0.5), "c": (1.0, 1.0)}


def striped() -> np.ndarray:
    """A red left half and a green right half, opaque."""
    piece = np.full((32, 32, 4), 255, np.uint8)
    piece[:, :16, 1:3] = 0
    piece[:, 16:, (0, 2)] = 0
    return piece


def test_points_that_lie_where_they_were_change_nothing() -> None:
    piece = striped()
    piece[8:24, 8:24, 3] = 100
    found = aligned(piece, CORNERS, CORNERS, 32)
    assert np.abs(found * 255 - piece).max() < 1e-3


def test_key_points_fall_on_their_places_and_what_lies_between_is_bent() -> None:
    target = {"a": (0.1, 0.2), "b": (0.9, 0.1), "c": (0.2, 0.9), "d": (0.7, 0.6)}
    piece = np.zeros((64, 64, 4), np.uint8)
    for x, y in CORNERS.values():
        piece[int(y * 64) - 3 : int(y * 64) + 3, int(x * 64) - 3 : int(x * 64) + 3] = 255
    found = aligned(piece, CORNERS, target, 64)[..., 3]
    for x, y in target.values():
        assert found[int(y * 64), int(x * 64)] > 0.5
    assert found[16, 16] < 0.5  # where a was


def test_an_affine_move_is_exact() -> None:
    moved = {name: (0.5 * x + 0.25, 0.5 * y + 0.125) for name, (x, y) in CORNERS.items()}
    found = aligned(striped(), CORNERS, moved, 64)
    inside = found[..., 3] > 0.99
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 39, 16, 47)
    assert found[20, 20, :3].tolist() == [1, 0, 0] and found[20, 44, :3].tolist() == [0, 1, 0]


def test_masks_are_disjoint_whatever_lies_in_front_and_is_hidden() -> None:
    rng = np.random.default_rng(0)
    for side in (32, 128):
        coarse = rng.random((3, 8, 8)) > 0.4
        covered, hidden, front = (np.kron(each, np.ones((side // 8, side // 8), bool)) for each in coarse)
        inner, before, residual = masks_of(covered, hidden, front)
        assert not (inner & before).any() and not (inner & residual).any() and not (before & residual).any()
        assert inner.any() and before.any() and residual.any() and (inner <= covered).all()
        outer = ~(inner | before)
        assert (inner.astype(int) + before + outer == 1).all()
    assert not masks_of(covered, None, front)[2].any()


def test_what_lies_in_front_stays_the_pictures() -> None:
    front = np.zeros((32, 32), bool)
    front[:, :16] = True
    picture = torch.full((3, 32, 32), -0.5)
    found = laid_on(picture, striped(), CORNERS, CORNERS, front=front)
    assert bool((found.pasted[:, :, :16] == -0.5).all()) and bool((found.pasted[1, 4:28, 18:28] == 1).all())


@pytest.mark.parametrize(
    ("piece", "picture", "says"),
    [
        ({}, CORNERS, "keypoints: the piece has none"),
        (LINE, {name: CORNERS[name] for name in "abc"}, "of the piece: expected points"),
        (
            {name: CORNERS[name] for name in "ab"},
            {name: CORNERS[name] for name in "ab"},
            "expected three or more, found 2",
        ),
        (CORNERS, {**CORNERS, "e": (0.0, 0.0)}, "'e' is named in the picture only"),
        (CORNERS, {name: (x / 100, y / 100) for name, (x, y) in CORNERS.items()}, "no pixel lies inside the piece"),
    ],
)
def test_what_cannot_be_aligned_is_said(piece: Any, picture: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        laid_on(torch.zeros(3, 32, 32), striped(), piece, picture)


def test_collages_are_checked() -> None:
    whole, none = torch.ones(8, 8, dtype=torch.bool), torch.zeros(8, 8, dtype=torch.bool)
    with pytest.raises(DataError, match="masks without overlap"):
        Collage(torch.zeros(3, 8, 8), whole, none, whole)
    with pytest.raises(DataError, match="of one size"):
        Collage(torch.zeros(3, 16, 16), whole, none, none)


def test_a_file_is_read_and_says_what_is_wrong(tmp_path: Path) -> None:
    person, points = sprite_person((0, 0), 64), garment_points("t-shirt", "noto")
    Image.fromarray(person.picture).save(tmp_path / "person.png")
    Image.fromarray(person.front).save(tmp_path / "arms.png")
    cut_out = striped()
    cut_out[:2, :, 3] = 0
    Image.fromarray(cut_out).save(tmp_path / "shirt.png")
    stated: dict[str, Any] = {
        "picture": "person.png", "piece": "shirt.png", "front": "arms.png",
        "keypoints": {"picture": person.keypoints, "piece": points},
    }  # fmt: skip
    file = tmp_path / "collage.json"

    def written(**other: Any) -> Path:
        file.write_text(json.dumps({**stated, **other}))
        return file

    found = read_collage(written(), 32)
    assert found.pasted.shape == (3, 32, 32) and bool(found.front.any())
    for other, says in (
        ({"keypoints": {"picture": person.keypoints}}, "collage.json: keypoints: the piece has none"),
        (
            {"keypoints": {"picture": person.keypoints, "piece": {**points, "neck": [2, 0]}}},
            "'neck': expected .x, y. as shares",
        ),
        ({"garment": "x"}, "found 'garment'"),
        ({"piece": "person.png"}, "person.png: is opaque everywhere"),
        ({"front": "shirt.png"}, "expected a mask of 64 x 64"),
        ({"keypoints": None}, "keypoints: expected an object"),
    ):
        with pytest.raises(DataError, match=says):
            read_collage(written(**other), 32)


def test_figures_are_the_same_whatever_they_wear() -> None:
    own, other = sprite_person((3, 4)), sprite_person((3, 4), garment=("safety vest", "fluent-modern"))
    assert np.array_equal(own.bare, other.bare) and not np.array_equal(own.picture, other.picture)
    changed = (own.picture != own.bare).any(-1)
    assert not (changed & own.front).any() and (changed & own.body).sum() > 100
    collage = sprite_collage((3, 4), garment=("safety vest", "fluent-modern"))
    dressed = torch.from_numpy(other.picture).permute(2, 0, 1) / 127.5 - 1
    assert (collage.pasted - dressed)[:, collage.inner].abs().mean() < 0.05  # the truth inside
    with pytest.raises(DataError, match="garment: expected one of t-shirt"):
        sprite_collage((0, 0), garment=("pizza", "noto"))
    with pytest.raises(DataError, match="found 'x' for the figure's number"):
        read_sprite_collage("sprite-person:x", 32)
