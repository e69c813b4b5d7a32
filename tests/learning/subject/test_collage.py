"""A subject in company: its pictures small beside other things, with captions that say so."""

from __future__ import annotations

import pytest
import torch

from photopic.core.errors import DataError
from photopic.data.captioned import CaptionedImages
from photopic.learning.subject import collage
from photopic.learning.subject.collage import collages, partners, together
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
        layout = (found.layouts or ())[number]
        assert layout is not None and [each.words for each in layout.regions] == [
            "<mine> bear",
            after.split(" ", 1)[1].split(" on ")[0],
        ]
        box = layout.regions[0].box
        assert box and box[0] == (0.0 if side == " left of " else 0.5) and 0.49 <= box[3] - box[1] <= 0.6
    assert sides == {" left of ", " right of "}


def test_layouts_say_which_rows_a_picture_fills(model: TextToImage) -> None:
    """Rows outside are the border repeated: all the same, but those inside are of a picture that changes from row to row."""
    size = model.image_size
    rows = torch.linspace(-1, 1, size)[None, None, :, None].expand(1, 3, size, size)
    found = collages(model, CaptionedImages(rows, ["a <mine> bear"]), subject="<mine> bear", each=4, seed=1)
    for picture, layout in zip(found.images, found.layouts or (), strict=True):
        assert layout is not None and layout.regions[0].box is not None
        left, top, _, bottom = layout.regions[0].box
        column = picture[0, :, round(left * size)]
        assert (column[: round(top * size) + 1] == column[0]).all() and (
            column[round(bottom * size) - 1 :] == column[-1]
        ).all()
        assert (column[round(top * size) : round(bottom * size)].diff() > 0).all()


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


def flat(*values: float) -> torch.Tensor:
    return torch.stack([torch.full((3, 64, 64), value) for value in values])


def test_subjects_stand_beside_one_another_on_one_ground_where_there_is_one() -> None:
    taught = [
        CaptionedImages(flat(-1.0, -0.5), ["a <a> bear on red", "a <a> bear on blue"]),
        CaptionedImages(flat(1.0, 0.5), ["a <b> owl on blue", "an <b> owl on red"]),
        CaptionedImages(flat(0.0), ["photo of the <c> cup"]),
    ]
    subjects = ["<a> bear", "<b> owl", "<c> cup"]
    found = together(taught, subjects, each=4, seed=0)
    value = {"<a> bear on red": -1.0, "<a> bear on blue": -0.5, "<b> owl on blue": 1.0, "<b> owl on red": 0.5}
    grounds, pairs = set(), set()
    assert len(found) == 20
    for image, caption, layout in zip(found.images, found.captions or (), found.layouts or (), strict=True):
        assert caption is not None and layout is not None and caption.count("<") == 2
        first, second = (each.words for each in layout.regions)
        left, right = (first, second) if " left of " in caption else (second, first)
        assert caption.index(first) < caption.index(second) and layout.regions[0].bounds[0] == 0.5 * (left != first)
        pairs.add((first, second))
        if "<c> cup" not in (first, second):
            ground = caption.rsplit(" ", 1)[1]
            grounds.add(ground)
            ends = [value[f"{words} on {ground}"] for words in (left, right)]
            assert image[0, 32, [0, -1]].tolist() == pytest.approx(ends)
    assert grounds == {"red", "blue"} and len(pairs) == 6
    assert (
        together(taught, subjects, each=4, seed=0).digest()
        == found.digest()
        != together(taught, subjects, each=4, seed=1).digest()
    )
    with pytest.raises(DataError, match=r"'a cat'.*<b> owl"):
        together([taught[0], CaptionedImages(flat(0.0), ["a cat"])], subjects[:2], each=1, seed=0)
