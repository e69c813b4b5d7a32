"""What a customised model must keep: real renderings for the bundled model, its own drawings for any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from photopic.core.errors import DataError
from photopic.core.events import finished, with_result
from photopic.core.runs import Run, RunMismatchError
from photopic.data.captioned import CaptionedImages
from photopic.learning.losses.denoising import Limits
from photopic.learning.subject import preservation
from photopic.learning.subject.preservation import Preservation, preservation_examples
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline


def made(model: TextToImage, noun: str, *, count: int, kind: Preservation = "both", seed: int = 0) -> CaptionedImages:
    return finished(preservation_examples(model, noun, kind=kind, count=count, seed=seed))


def test_a_model_of_the_emoji_world_keeps_renderings_half_of_them_of_the_class() -> None:
    model = TextToImage(tiny_pipeline(), "emoji", knows_emoji=True)
    found = made(model, "bear", count=6)
    assert found.images.shape == (6, 3, model.image_size, model.image_size)
    assert all("bear" in str(caption) for caption in list(found.captions or ())[:3])
    assert made(model, "bear", count=6).digest() == found.digest()


def test_a_class_that_the_bundled_model_does_not_draw_is_refused_by_name() -> None:
    model = TextToImage(tiny_pipeline(), "emoji", knows_emoji=True)
    with pytest.raises(
        DataError, match=r"banjo.* does not draw it; use a noun it draws, such as mango, canoe or bacon"
    ):
        made(model, "banjo", count=4)


def test_another_model_of_that_name_draws_its_own() -> None:
    model = TextToImage(tiny_pipeline(), "emoji-diffusion")
    found = made(model, "orange", count=2, kind="class")
    assert found.images.shape == (2, 3, model.image_size, model.image_size)
    assert found.captions == ["an orange", "an orange"]


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> TextToImage:
    """A model that draws its own pictures: in few steps, two at a time."""
    monkeypatch.setattr(preservation, "DRAWING_STEPS", 2)
    monkeypatch.setattr(Limits, "pictures", lambda limits, side: 2)
    return TextToImage(tiny_pipeline(), "tiny")


def test_interrupted_after_a_batch_it_draws_the_rest_and_gets_the_same_pictures(
    foreign: TextToImage, tmp_path: Path
) -> None:
    whole = made(foreign, "bear", count=5, seed=3)
    run = Run(tmp_path).bound("search")
    broken = preservation_examples(foreign, "bear", kind="both", count=5, seed=3, run=run)
    assert [next(broken).done for _ in range(3)] == [0, 0, 2]
    broken.close()
    for done in ([2, 4, 5], [5]):  # resumed, and asked again when all is drawn
        again = preservation_examples(foreign, "bear", kind="both", count=5, seed=3, run=run)
        events = list(with_result(again))
        assert [(event.done, event.total) for event in events if event.total] == [(each, 5) for each in done]
        assert events[-1].result is not None and events[-1].result.digest() == whole.digest()
    with pytest.raises(RunMismatchError, match="another run"):
        finished(preservation_examples(foreign, "bear", kind="both", count=5, seed=3, run=Run(tmp_path).bound("other")))
