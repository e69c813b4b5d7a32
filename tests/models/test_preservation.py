"""What a customised model must keep: real renderings for the bundled model, its own drawings for any other."""

from __future__ import annotations

import pytest

from photopic.core.errors import DataError
from photopic.models.preservation import preservation_examples
from photopic.models.text_to_image import TextToImage
from tests.tiny import tiny_pipeline


def test_a_model_of_the_emoji_world_keeps_renderings_half_of_them_of_the_class() -> None:
    model = TextToImage(tiny_pipeline(), "emoji", knows_emoji=True)
    pictures, captions = preservation_examples(model, "bear", kind="both", count=6, seed=0)
    assert pictures.shape == (6, 3, model.image_size, model.image_size)
    assert all("bear" in caption for caption in captions[:3])
    again, _ = preservation_examples(model, "bear", kind="both", count=6, seed=0)
    assert (pictures == again).all()


def test_a_class_that_the_bundled_model_does_not_draw_is_refused_by_name() -> None:
    model = TextToImage(tiny_pipeline(), "emoji", knows_emoji=True)
    with pytest.raises(DataError, match="banjo"):
        preservation_examples(model, "banjo", kind="both", count=4, seed=0)


def test_another_model_of_that_name_draws_its_own() -> None:
    model = TextToImage(tiny_pipeline(), "emoji-diffusion")
    pictures, captions = preservation_examples(model, "bear", kind="class", count=2, seed=0)
    assert pictures.shape == (2, 3, model.image_size, model.image_size) and captions == ["a bear", "a bear"]
