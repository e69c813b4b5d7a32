"""A subject is checked against its model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from photopic.core.errors import DataError
from photopic.data.captioned import CaptionedImages
from photopic.learning.subject.examples import Subject, subject
from photopic.learning.subject.new_token import new_rows
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import IMAGE_SIZE


def chosen(model: TextToImage, images: Tensor, kept: Tensor | None = None) -> Subject:
    preserved = None if kept is None else CaptionedImages(kept, ["a cat"] * len(kept))
    rows = new_rows(model, "<mine>", "bear", start="random")
    return subject(model, CaptionedImages(images), noun="bear", rows=rows, preserved=preserved)


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
    with pytest.raises(DataError, match=f"preserved: .*{message}"):
        chosen(model, torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE), images)
