"""The bundled dual encoders are the ones of the card and reach what it says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from photopic.data import renderings
from photopic.metrics.intervals import wilson
from photopic.models.dual_encoder import DualEncoder, bundled_dual_encoders
from photopic.models.files import BUNDLED

ROOT = Path(__file__).parents[2]
CARD = json.loads((ROOT / "recipes/emoji-clip/card.json").read_text())["models"]


def test_there_are_two_and_they_are_small() -> None:
    assert bundled_dual_encoders() == ("emoji-clip-cnn", "emoji-clip-vit") == tuple(sorted(CARD))
    assert sum(path.stat().st_size for name in CARD for path in (BUNDLED / name).iterdir()) <= 7_000_000


@pytest.mark.parametrize("name", sorted(CARD))
def test_a_bundled_encoder_is_as_good_as_its_card_says(name: str) -> None:
    card = CARD[name]
    assert hashlib.sha256((BUNDLED / name / "model.safetensors").read_bytes()).hexdigest() == card["sha256"]
    model = DualEncoder.load(name)
    assert model.parameter_count == card["parameters"]
    pairs = renderings.held_out_style_pairs()[::8]
    top = model.zero_shot(renderings.pictures(pairs), renderings.classes(), [card["template"]]).topk(5).indices
    hits = top == torch.tensor([renderings.classes().index(concept) for concept, _ in pairs])[:, None]
    for title, right in (("top1", hits[:, 0]), ("top5", hits.any(1))):
        interval = wilson(int(right.sum()), len(right))
        assert interval.low <= card["reached"][f"held_out_style.{title}"][0] <= interval.high


def test_the_image_tower_of_the_vit_has_eight_by_eight_patches() -> None:
    config = DualEncoder.load("emoji-clip-vit").network.config.vision_config
    assert config.image_size // config.patch_size >= 8
