"""The bundled captioner is the one of the card, and is as good as the benchmark found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from benchmarks.knowledge.bacon_scenes import scenes_of
from photopic.knowledge.compact_reading import read_compact
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.metrics.intervals import bootstrap
from photopic.metrics.scene_graph import compare
from photopic.models.captioner import Captioner
from photopic.models.files import BUNDLED

ROOT = Path(__file__).parents[2]
CARD = json.loads((ROOT / "recipes/emoji-captioner/card.json").read_text())["models"]
ROWS = json.loads((ROOT / "benchmarks/results/bacon-captions.json").read_text())["rows"]


def test_the_bundled_captioner_is_as_good_as_it_was_measured() -> None:
    file = BUNDLED / "emoji-captioner" / "model.safetensors"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == CARD["emoji-captioner"]["sha256"]
    assert file.stat().st_size <= 3_000_000
    model = Captioner.load("emoji-captioner", device="cpu")
    scenes = scenes_of("style", 60)
    texts = model.write(np.stack([scene.image for scene in scenes]))
    compared = [compare(read_compact(text).bag, bag_of_scene(scene)) for text, scene in zip(texts, scenes, strict=True)]
    measured = {row["claim"]: row["value"] for row in ROWS}
    for field in ("objects", "relations"):
        interval = bootstrap([getattr(each, field).f1 for each in compared], confidence=0.99)
        assert interval.low <= measured[f"bacon.captioner_{field}_f1_style"] <= interval.high
