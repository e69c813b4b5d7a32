"""The bundled classifiers are the ones of the card and reach what it says."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from photopic.data import emoji_world, renderings
from photopic.metrics.intervals import wilson
from photopic.models.classifier import Classifier, bundled_classifiers
from photopic.models.files import BUNDLED

ROOT = Path(__file__).parents[2]
CARD = json.loads((ROOT / "recipes/emoji-classifiers/card.json").read_text())
NAMES = tuple(sorted(CARD["models"]))


def test_the_bank_is_two_kinds_two_widths_two_seeds():
    kinds = [f"emoji-{kind}-{width}-{seed}" for kind in ("resnet", "vit") for width in (64, 256) for seed in (0, 1)]
    assert NAMES == bundled_classifiers() == tuple(sorted(kinds))
    assert sum(path.stat().st_size for name in NAMES for path in (BUNDLED / name).iterdir()) <= 10_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_classifier_is_as_good_as_its_card_says(name):
    card = CARD["models"][name]
    weights = (BUNDLED / name / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == card["sha256"]
    model = Classifier.load(name)
    assert model.head.in_features == card["head_dimensions"] and model.parameter_count == card["parameters"]
    pairs = renderings.held_out_pairs()[::4]  # 182 of 725
    top = model.logits(renderings.pictures(pairs)).topk(5).indices
    hits = top == torch.tensor([model.labels.index(concept) for concept, _ in pairs])[:, None]
    for title, right in (("top1", hits[:, 0]), ("top5", hits.any(1))):
        interval = wilson(int(right.sum()), len(right))
        assert interval.low <= card["reached"][f"held_out_renderings.{title}"][0] <= interval.high


def test_no_label_is_held_out_and_the_held_out_style_was_not_learnt():
    for name in NAMES:
        labels = json.loads((BUNDLED / name / "config.json").read_text())["id2label"]
        assert tuple(labels[str(i)] for i in range(len(labels))) == renderings.classes()
    assert all(emoji_world.concept(label).split != "held_out" for label in renderings.classes())
    assert emoji_world.HELD_OUT_STYLE not in CARD["styles"]


def test_seeds_of_one_network_share_their_start_and_end_apart():
    for network in ("resnet-64", "resnet-256", "vit-64", "vit-256"):
        first, second = (CARD["models"][f"emoji-{network}-{seed}"] for seed in (0, 1))
        assert first["initial_digest"] == second["initial_digest"] and first["sha256"] != second["sha256"]
        assert first["config"] | {"seed": 1} == second["config"]


def test_the_page_shows_the_numbers_of_the_card():
    page = (ROOT / "docs/emoji-classifiers.md").read_text()
    for name in NAMES:
        reached = CARD["models"][name]["reached"]
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        for title in ("held_out_renderings.top1", "held_out_renderings.top5", "held_out_style.top1"):
            value, low, high, _ = reached[title]
            assert f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})" in row
