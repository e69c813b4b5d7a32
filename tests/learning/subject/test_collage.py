"""A subject in company: its pictures small beside other things, with captions that say so."""

from __future__ import annotations

import pytest
import torch

from photopic.core.errors import DataError
from photopic.data.captioned import CaptionedImages
from photopic.learning.subject import collage
from photopic.learning.subject.collage import collages, partners
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> TextToImage:
    monkeypatch.setattr(collage, "DRAWING_STEPS", 1)
    return TextToImage(tiny_pipeline(), "tiny", knows_emoji=True)


def test_the_subject_is_in_the_half_that_the_caption_says(model: TextToImage) -> None:
    size = model.image_size
    flat = torch.stack([torch.full((3, size, size), value) for value in (-1.0, 1.0)])  # of one colour, as no drawing is
    captions = ["a <mine> bear on a red background", "photo of the <mine> bear"]
    found = collages(model, CaptionedImages(flat, captions), subject="<mine> bear", each=3, seed=0)
    made, named = found.images, list(map(str, found.captions or ()))
    assert made.shape == (6, 3, size, size) and made.abs().max() <= 1
    sides = set()
    for number, (picture, caption) in enumerate(zip(made, named, strict=True)):
        before, side, after = (
            caption.partition(" left of ") if " left of " in caption else caption.partition(" right of ")
        )
        sides.add(side)
        mine = picture[..., : size // 2] if side == " left of " else picture[..., size // 2 :]
        torch.testing.assert_close(mine, flat[number // 3, :, :, : size // 2])
        assert before == ("a <mine> bear" if number < 3 else "photo of the <mine> bear")
        assert after.endswith(" on a red background") == (number < 3) and "bear" not in after.split()
    assert sides == {" left of ", " right of "}


def test_collages_are_the_same_for_a_seed_and_others_for_another(model: TextToImage) -> None:
    image = torch.rand(1, 3, model.image_size, model.image_size) * 2 - 1
    taught = CaptionedImages(image, ["a <mine> bear"])
    first, second, other = (collages(model, taught, subject="<mine> bear", each=4, seed=seed) for seed in (0, 0, 1))
    assert first.digest() == second.digest()
    assert first.captions != other.captions


def test_a_caption_without_the_subject_is_refused_by_name(model: TextToImage) -> None:
    image = torch.zeros(1, 3, model.image_size, model.image_size)
    with pytest.raises(DataError, match=r"'a cat'.*<mine> bear"):
        collages(model, CaptionedImages(image, ["a cat"]), subject="<mine> bear", each=1, seed=0)


def test_partners_are_known_things_that_share_no_word_with_the_subject() -> None:
    found = partners(TextToImage(tiny_pipeline(), "tiny", knows_emoji=True), "<mine> bear")
    assert "cat" in found and not {"bear", "teddy bear"} & set(found)
    assert partners(TextToImage(tiny_pipeline(), "tiny"), "<mine> dog")[0] == "cat"
