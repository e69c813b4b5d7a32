"""The family's trainer on a tiny real model: what each loss and batch is made of, and what NegCLIP learns and the others do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from photopic.core.errors import DataError
from photopic.core.numerics.neighbours import neighbours_of
from photopic.data.captioned_pictures import CaptionedPictures, captioned_scenes, read_captioned_pictures
from photopic.learning.losses.contrastive import info_nce
from photopic.models.dual_encoder import DualEncoder
from photopic.train.contrastive._common import Batch, ContrastiveTuning, plain_loss
from photopic.train.contrastive.cloob import CLOOBConfig, cloob_loss
from photopic.train.contrastive.contrastive import ContrastiveConfig, contrastive
from photopic.train.contrastive.geodesic_mixup import GeodesicMixupConfig, mixup_loss
from photopic.train.contrastive.negclip import NegCLIPConfig, hard_captions, nearest, negclip
from tests.tiny_encoders import saved_dual_encoder, tiny_dual_encoder

QUICK = ContrastiveConfig(steps=2, batch=4)


@pytest.fixture(scope="module")
def data() -> CaptionedPictures:
    return captioned_scenes(12)


def made(seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    images, texts = (F.normalize(torch.randn(5, 6, generator=draw).double(), dim=-1) for _ in range(2))
    return Batch(images, texts, torch.eye(5).double(), 7.0, np.random.default_rng(seed))


def test_a_batch_is_the_models_own_features_with_its_own_temperature(data: CaptionedPictures) -> None:
    model = tiny_dual_encoder()
    batch = ContrastiveTuning(model, data, replace(QUICK, batch=12), plain_loss).batch(0)
    assert batch.scale == model.logit_scale and (batch.right.diagonal() == 1).all()
    cosines = model.image_features(data.images) @ model.text_features(data.captions).mT
    found = (batch.images @ batch.texts.mT).detach()  # in the order of the batch
    torch.testing.assert_close(found.diagonal().sort().values, cosines.diagonal().sort().values)
    assert plain_loss(batch) == info_nce(batch.scale * batch.images @ batch.texts.mT, batch.right)


def test_half_of_negclips_batch_are_neighbours_and_captions_with_words_exchanged_have_no_picture(
    data: CaptionedPictures,
) -> None:
    model = tiny_dual_encoder()
    features = model.image_features(data.images)
    near = neighbours_of(features, 2)
    order = (features @ features.mT).fill_diagonal_(-2).argsort(1, descending=True)[:, :2]
    assert torch.equal(near.sort(1).values, order.sort(1).values)
    pick = nearest(model, data, 2)
    anchors = np.array([0, 3, 7])
    allowed = {int(each) for place in anchors for each in near[place]}
    seen: set[int] = set()
    for seed in range(60):
        picked = pick(anchors, np.random.default_rng(seed)).tolist()
        assert len(set(picked)) == len(picked) and set(anchors.tolist()) <= set(picked) <= allowed | {0, 3, 7}
        seen |= set(picked)
    assert seen == allowed | {0, 3, 7}
    learner = ContrastiveTuning(model, data, NegCLIPConfig(batch=8), plain_loss, pick=pick, negatives=hard_captions)
    batch = learner.batch(0)
    n = len(batch.images)
    assert 4 <= n <= 8 < batch.right.shape[1] and not batch.right[:, n:].any() and batch.captions.shape[0] == n


def test_words_that_cannot_change_places_make_no_negative() -> None:
    captions = ["a bear and a cat", "a bear left of a cat", "a bear"]
    assert hard_captions(captions, np.random.default_rng(0)) == ["a cat left of a bear"]


def test_mixup_is_the_sum_of_its_parts_and_without_weights_clips_loss() -> None:
    none = mixup_loss(GeodesicMixupConfig(mixed=0.0))
    assert none(made()) == plain_loss(made())
    one, two = (mixup_loss(GeodesicMixupConfig(mixed=weight))(made()) - none(made()) for weight in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one)
    assert one > 0
    # beta near 0: every pair of a batch is mixed to one of its two ends, so each of V-, L- and VL-Mix is CLIP's loss
    ends = mixup_loss(GeodesicMixupConfig(mixed=0.0, within=1.0, beta=1e-6))(made())
    torch.testing.assert_close(ends, 4 * plain_loss(made()))


def test_cloob_contrasts_retrievals_from_pictures_and_from_texts() -> None:
    batch, config = made(), CLOOBConfig(beta=2.0, scale=3.0)
    x, y = batch.images, batch.texts

    def get(state: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
        return F.normalize(stored.mT @ (2.0 * stored @ state).softmax(0), dim=0)

    expected = torch.zeros((), dtype=torch.float64)
    for stored, anchors, others in ((x, y, x), (y, x, y)):
        for i in range(5):
            scores = torch.stack([3.0 * get(anchors[i], stored) @ get(others[j], stored) for j in range(5)])
            expected = expected - (scores[i] - scores[torch.arange(5) != i].logsumexp(0)) / 5
    torch.testing.assert_close(cloob_loss(config)(batch), expected)


def test_the_edit_is_what_was_learnt_and_the_temperature_stays(tmp_path: Path, data: CaptionedPictures) -> None:
    model = DualEncoder.load(str(saved_dual_encoder(tmp_path)))  # a folder of transformers
    config = replace(QUICK, steps=30, batch=12, lr=3e-3)

    def loss() -> float:
        cosines = model.image_features(data.images) @ model.text_features(data.captions).mT
        return float(info_nce(model.logit_scale * cosines, torch.eye(12)))

    before, scale = loss(), model.logit_scale
    edit = contrastive(model, data, config=config)
    assert loss() == before and "network.logit_scale" not in edit.base.shapes
    # all but the temperature
    assert edit.provenance["trained"] == sum(each.numel() for each in model.network.parameters()) - 1
    model.edits.load(edit)
    assert loss() < 0.9 * before and model.logit_scale == scale


def test_negclip_learns_the_order_of_its_captions_and_the_plain_contrast_does_not() -> None:
    data = captioned_scenes(24)
    held = [
        (place, text)
        for place, caption in enumerate(data.captions)
        for text in hard_captions([caption], np.random.default_rng(1))
    ]
    found = {}
    for method, config in ((contrastive, ContrastiveConfig), (negclip, NegCLIPConfig)):
        model = tiny_dual_encoder()
        model.edits.load(method(model, data, config=config(steps=60, batch=24, lr=5e-3)))
        images, true = model.image_features(data.images), model.text_features(data.captions)
        false = model.text_features([text for _, text in held])
        found[method] = np.mean(
            [float(images[p] @ true[p]) > float(images[p] @ f) for (p, _), f in zip(held, false, strict=True)]
        )
    assert found[negclip] > found[contrastive] + 0.15


def test_captions_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    pictures = np.zeros((3, 8, 8, 3), np.uint8)
    with pytest.raises(DataError, match="two or more that differ, found only 'a bear'"):
        contrastive(tiny_dual_encoder(), CaptionedPictures(pictures, ("a bear",) * 3), config=QUICK)
    with pytest.raises(DataError, match=r"can change places.*found none in 3"):
        negclip(tiny_dual_encoder(), CaptionedPictures(pictures, ("a bear", "a cat", "a mug")))
    with pytest.raises(DataError, match="two or more, each with a caption, found 1 pictures"):
        CaptionedPictures(pictures[:1], ("a bear",))
    with pytest.raises(DataError, match="found 'x' scenes"):
        read_captioned_pictures("emoji-scenes:x", 8)
    for name in ("a", "b"):
        Image.new("RGB", (9, 8), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("a bear left of a cat")
    with pytest.raises(DataError, match=r"b\.png has no caption"):
        read_captioned_pictures(str(tmp_path), 8)
    (tmp_path / "b.txt").write_text("a mug")
    found = read_captioned_pictures(str(tmp_path), 8)
    assert found.captions == ("a bear left of a cat", "a mug") and found.images.shape == (2, 8, 8, 3)


def test_captions_that_are_cut_are_told(data: CaptionedPictures, capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny_dual_encoder()
    long = CaptionedPictures(data.images, (" ".join(["bear"] * model.longest_text), *data.captions[1:]))
    cut = sum(len(model.tokenizer(each, verbose=False).input_ids) > model.longest_text for each in long.captions)
    notes = [str(event.warning) for event in contrastive.events(model, long, config=QUICK) if event.warning]
    assert f"{cut} of 12 captions are cut: the model reads {model.longest_text} tokens" in notes
    assert not capfd.readouterr().err  # transformers has nothing to add
