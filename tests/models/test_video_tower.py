"""The transformer over time: no order of frames, the text's own place dropped, and the published sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError, ModelError
from photopic.models.video_tower import (
    TemporalTransformer,
    frame_features,
    frame_features_in_parts,
    image_parameters,
    text_features_of_any_length,
)
from tests.tiny_encoders import DIM, SIDE, tiny_dual_encoder


@pytest.fixture(scope="module")
def temporal() -> TemporalTransformer:
    torch.manual_seed(0)
    return TemporalTransformer(16, hidden=32).eval()


def test_permuted_frames_come_out_permuted_with_and_without_text(temporal: TemporalTransformer) -> None:
    frames, text = torch.randn(2, 8, 16), torch.randn(2, 16)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    for beside in (None, text):
        torch.testing.assert_close(temporal(frames[:, order], beside), temporal(frames, beside)[:, order])


def test_the_text_changes_every_frame_and_has_no_place_of_its_own(temporal: TemporalTransformer) -> None:
    frames, text = torch.randn(3, 5, 16), torch.randn(3, 16)
    with_text = temporal(frames, text)
    assert with_text.shape == frames.shape
    assert bool(((with_text - temporal(frames)).abs().amax(-1) > 1e-4).all())
    assert bool(((with_text - temporal(frames, 100 * text)).abs().amax(-1) < 1e-4).all())  # only its direction counts


def test_sizes_are_the_published_ones() -> None:
    layer = dict(TemporalTransformer(512).named_parameters())
    assert sum(each.numel() for each in layer.values()) == 4 * 512**2 + 2 * 512 * 2048 + 2048 + 4 * 512
    assert not any(name.endswith(f"to_{part}.bias") for name in layer for part in "qkv")
    assert [name for name in layer if "norm" in name] == ["layers.0.norm.weight", "layers.0.norm.bias"]
    assert (TemporalTransformer(18, hidden=4).heads, TemporalTransformer(16, hidden=4).heads) == (6, 8)
    with pytest.raises(ModelError, match="expected sizes of 1 or more"):
        TemporalTransformer(16, heads=0)


def test_dropout_is_there_in_training_only(temporal: TemporalTransformer) -> None:
    frames = torch.randn(1, 8, 16)
    assert torch.equal(temporal(frames), temporal(frames))
    temporal.train()
    assert not torch.equal(temporal(frames), temporal(frames))
    temporal.eval()


def test_features_of_frames_are_those_of_pictures_and_do_not_depend_on_the_batch() -> None:
    model = tiny_dual_encoder()
    videos = np.random.default_rng(0).integers(0, 256, (5, 3, SIDE, SIDE, 3), dtype=np.uint8)
    found = frame_features(model, videos)
    assert found.shape == (5, 3, DIM)
    torch.testing.assert_close(found, frame_features(model, list(videos), batch=6))
    alone = model.image_features(videos[2])
    torch.testing.assert_close(torch.nn.functional.normalize(found[2], dim=-1), alone)
    assert [len(part) for part in frame_features_in_parts(model, videos, batch=6)] == [2, 2, 1]
    with pytest.raises(DataError, match="video 1: expected 3 frames as the first, found 2"):
        frame_features(model, [videos[0], videos[1][:2]])
    with pytest.raises(DataError, match="expected one or more"):
        frame_features(model, [])


def test_texts_keep_their_length() -> None:
    model = tiny_dual_encoder()
    found = text_features_of_any_length(model, ["bear", "red_mug"])
    torch.testing.assert_close(found, model.encode_texts(["a photo of bear", "a photo of red mug"]))
    assert not torch.allclose(found.norm(dim=-1), torch.ones(2))
    with pytest.raises(DataError, match=r"expected one \{\}"):
        text_features_of_any_length(model, ["bear"], "a photo")
    with pytest.raises(DataError, match="give a name"):
        text_features_of_any_length(model, ["bear", " "])


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_the_image_side_is_what_gradients_of_pictures_reach(kind: str) -> None:
    network = tiny_dual_encoder(kind).network.requires_grad_(True)  # type: ignore[arg-type]
    found = network.get_image_features(pixel_values=torch.rand(2, 3, SIDE, SIDE))
    (found if isinstance(found, torch.Tensor) else found.pooler_output).sum().backward()
    reached = {name for name, value in network.named_parameters() if value.grad is not None}
    assert reached and reached <= set(image_parameters(network))
    assert not any(name.startswith("text") for name in image_parameters(network))
