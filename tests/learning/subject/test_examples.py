"""A subject is checked against its model, and everything that decides a search decides its identity."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from photopic.core.errors import DataError
from photopic.learning.subject.examples import Subject, subject
from photopic.learning.subject.new_token import new_rows
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import IMAGE_SIZE, tiny_pipeline


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return TextToImage(tiny_pipeline(), "tiny")


def chosen(model: TextToImage, images: Tensor, kept: Tensor | None = None) -> Subject:
    preservation = None if kept is None else (kept, ["a cat"] * len(kept))
    rows = new_rows(model, "<mine>", "bear", start="random")
    return subject(model, images, None, noun="bear", rows=rows, preservation=preservation)


def test_everything_a_search_depends_on_is_in_the_identity(model: TextToImage) -> None:
    one = chosen(model, torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE), torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE))
    others = [
        replace(one, images=one.images + 0.1),
        replace(one, captions=("a <mine> bear", "another <mine> bear")),
        replace(one, preservation=None),
        replace(one, rows=new_rows(model, "<other>", "bear", start="random")),
    ]
    found = [each.identity({"steps": 3}, "base") for each in (one, *others)]
    found += [one.identity({"steps": 4}, "base"), one.identity({"steps": 3}, "other base")]
    assert len(set(found)) == len(found) and one.identity({"steps": 3}, "base") == found[0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 3, IMAGE_SIZE, IMAGE_SIZE), "n >= 1"),
        (torch.zeros(1, 3, 8, 8), "resize"),
        (torch.full((1, 3, IMAGE_SIZE, IMAGE_SIZE), 255.0), "from -1 to 1"),
    ],
)
def test_pictures_that_do_not_fit_are_refused_as_references_and_as_what_is_kept(
    model: TextToImage, images: Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=f"images: .*{message}"):
        chosen(model, images)
    with pytest.raises(DataError, match=f"preservation: .*{message}"):
        chosen(model, torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE), images)
