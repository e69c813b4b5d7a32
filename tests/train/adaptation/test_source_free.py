"""A small segmentation model, trained, saved, and adapted without its source; with the prior it holds, without it collapses."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from photopic import load
from photopic.core.errors import DataError, ModelError
from photopic.data.segmented import SegmentedOptions, SegmentedPictures, read_segmented, segmented_scenes
from photopic.metrics.segmentation import class_iou
from photopic.models.preprocessing import Preprocessing
from photopic.models.segmenter import Segmenter
from photopic.train.adaptation.segmentation import SegmentationConfig, segmentation
from photopic.train.adaptation.source_free import SourceFreeConfig, source_free

PRIOR = (0.8, 0.2)


def squares(count: int, *, seed: int, gray: float = 255, size: int = 24) -> SegmentedPictures:
    """Bright squares of a fifth of the picture on dark noise; with another gray another domain."""
    rng = np.random.default_rng(seed)
    images, masks = rng.normal(60, 25, (count, size, size, 3)), np.zeros((count, size, size), np.uint8)
    for mask in masks:
        top, left = rng.integers(0, size - 11, 2)
        mask[top : top + 11, left : left + 11] = 1
    images[masks == 1] += gray - 60
    return SegmentedPictures(images.clip(0, 255).astype(np.uint8), masks, ("background", "square"))


@cache
def pixelwise() -> Segmenter:
    """A module of one's own that reads each pixel alone, trained on the source by a fit of two numbers."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([-6.0, 6.0])[:, None, None, None].expand(2, 3, 1, 1) / 3)
        network[0].bias.copy_(torch.tensor([3.6, -3.6]))
    return Segmenter(network, preprocess=Preprocessing(), labels=("background", "square"), name="pixelwise")


def iou(model: Segmenter, data: SegmentedPictures) -> float:
    return float(class_iou(model.segment(data.images), data.masks, 2).mean())


def test_the_prior_brings_a_darker_domain_back_and_entropy_alone_calls_everything_background() -> None:
    model, dark = pixelwise(), squares(40, seed=2, gray=135)
    assert iou(model, squares(20, seed=1)) > 0.95
    before, found, ratio = iou(model, dark), {}, {}
    for loss in ("mutual-information", "weighted-entropy", "entropy"):
        config = SourceFreeConfig(prior=PRIOR, loss=loss, steps=150, lr=0.05, batch=20)  # type: ignore[arg-type]
        edit = source_free(model, dark.images, config=config)
        assert iou(model, dark) == before
        with model.edits.applied(edit):
            found[loss], ratio[loss] = iou(model, squares(20, seed=3, gray=135)), edit.provenance["class_ratio"][0]
    assert before < 0.6 and min(found["mutual-information"], found["weighted-entropy"]) > before + 0.15
    assert ratio["entropy"] > 0.95 and found["entropy"] < before + 0.05
    assert abs(ratio["mutual-information"] - 0.8) < 0.08


def test_a_collapse_is_told() -> None:
    config = SourceFreeConfig(loss="entropy", steps=150, lr=0.05, batch=20)
    events = list(source_free.events(pixelwise(), squares(40, seed=2, gray=135).images, config=config))
    assert any("of all pixels became background" in event.warning for event in events)


def test_affine_learns_scales_and_shifts_of_normalisation_alone(tmp_path: Path) -> None:
    data = squares(8, seed=0, size=32)
    model = segmentation(data, config=SegmentationConfig(steps=2, batch=4, width=8))
    edit = source_free(model, data.images, config=SourceFreeConfig(prior=PRIOR, steps=1, affine=True))
    assert edit.base.shapes and all("norm" in name for name in edit.base.shapes)
    with pytest.raises(ModelError, match="no normalisation"):
        source_free(pixelwise(), data.images, config=SourceFreeConfig(prior=PRIOR, affine=True))
    with model.edits.applied(edit):
        model.save(tmp_path / "adapted")
        adapted = model.segment(data.images)
    again = load(str(tmp_path / "adapted"), device="cpu")
    assert isinstance(again, Segmenter) and again.labels == data.names
    assert np.array_equal(again.segment(data.images), adapted)


def test_a_small_segformer_learns_squares() -> None:
    data = squares(60, seed=0, size=32)
    model = segmentation(data, config=SegmentationConfig(steps=120, batch=12, width=8))
    assert iou(model, squares(20, seed=1, size=32)) > 0.6
    np.testing.assert_allclose(model.provenance["class_ratio"], data.class_ratio, atol=1e-6)


def test_intersection_over_union_of_a_table() -> None:
    masks, said = np.array([[[0, 0, 1], [1, 2, 2]]], np.uint8), np.array([[[0, 1, 1], [1, 0, 2]]], np.uint8)
    np.testing.assert_allclose(class_iou(said, masks, 4), [1 / 3, 2 / 3, 1 / 2, np.nan])


def test_scenes_and_folders_hold_the_class_of_every_pixel(tmp_path: Path) -> None:
    scenes = segmented_scenes(4, ("openmoji",), size=32)
    assert scenes.masks.shape == (4, 32, 32) and set(np.unique(scenes.masks)) == {0, 1}
    assert read_segmented("emoji-scenes:4", SegmentedOptions(size=32, style="openmoji")).digest() == scenes.digest()
    data = squares(2, seed=0, size=32)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for place, (image, mask) in enumerate(zip(data.images, data.masks, strict=True)):
        Image.fromarray(image).save(tmp_path / "images" / f"{place}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{place}.png")
    (tmp_path / "classes.txt").write_text("background\nsquare\n")
    assert read_segmented(str(tmp_path), SegmentedOptions(size=32)).digest() == data.digest()
    (tmp_path / "classes.txt").write_text("square\n")
    with pytest.raises(DataError, match="name it too"):
        read_segmented(str(tmp_path), SegmentedOptions(size=32))
    (tmp_path / "masks" / "1.png").unlink()
    with pytest.raises(DataError, match=r"add 1\.png"):
        read_segmented(str(tmp_path), SegmentedOptions(size=32))


def test_pictures_too_small_for_four_resolutions_are_refused() -> None:
    with pytest.raises(DataError, match="expected pictures of 32 pixels or more a side, found 24 x 24"):
        segmentation(squares(2, seed=0))


def test_a_prior_that_fits_no_model_is_refused() -> None:
    images = squares(2, seed=0).images
    for prior in ((), (0.5, 0.2), (0.2, 0.3, 0.5)):
        with pytest.raises(DataError, match="expected 2 shares that sum to 1, of background, square"):
            source_free(pixelwise(), images, config=SourceFreeConfig(prior=prior))
    with pytest.raises(DataError, match="expected one picture or more"):
        source_free(pixelwise(), images[:0], config=SourceFreeConfig(prior=PRIOR))
