"""What a customised model must keep: real renderings for the bundled model, its own drawings for any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from photopic.core.errors import DataError
from photopic.core.runs import Run, RunMismatchError
from photopic.learning.subject import preservation
from photopic.learning.subject.preservation import preservation_events, preservation_examples
from photopic.models.text_to_image.handle import TextToImage
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


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> TextToImage:
    """A model that draws its own pictures: in few steps, two at a time."""
    monkeypatch.setattr(preservation, "DRAWING_STEPS", 2)
    model = TextToImage(tiny_pipeline(), "tiny")
    monkeypatch.setattr(preservation, "PIXELS_AT_ONCE", 2 * model.image_size**2)
    return model


def test_drawing_reports_every_batch(foreign: TextToImage) -> None:
    events = list(preservation_events(foreign, "bear", kind="both", count=5, seed=0))
    assert [(event.stage, event.step) for event in events] == [
        ("preparing", 0), ("drawing", 2), ("drawing", 4), ("drawing", 5), ("done", 5),
    ]  # fmt: skip
    assert all(event.steps == 5 for event in events)
    assert [event.examples is not None for event in events] == [False] * 4 + [True]


def test_interrupted_after_a_batch_it_draws_the_rest_and_gets_the_same_pictures(
    foreign: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"kind": "both", "count": 5, "seed": 3}
    whole, captions = preservation_examples(foreign, "bear", **options)  # type: ignore[arg-type]
    broken = preservation_events(foreign, "bear", run=Run(tmp_path), **options)  # type: ignore[arg-type]
    assert [next(broken).step, next(broken).step] == [0, 2]
    broken.close()  # type: ignore[attr-defined]
    for done in ([4, 5], []):  # resumed, and asked again when all is drawn
        events = list(preservation_events(foreign, "bear", run=Run(tmp_path), **options))  # type: ignore[arg-type]
        assert [event.step for event in events if event.stage == "drawing"] == done
        assert events[-1].examples is not None
        pictures, kept = events[-1].examples
        assert torch.equal(pictures, whole) and list(kept) == captions
    with pytest.raises(RunMismatchError, match="another run"):
        list(preservation_events(foreign, "bear", run=Run(tmp_path), **options | {"seed": 4}))  # type: ignore[arg-type]
