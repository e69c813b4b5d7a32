"""Measure both encoders: ``python recipes/emoji-clip/card.py --out runs/emoji-clip`` writes ``card.json`` and prints a table.

Zero-shot classification among all 1,264 names, one emoji on white, of pairs learnt from, of the held-out renderings and of
the held-out style; and retrieval in both directions among scenes that were never shown.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import SEEDS
from pictures import OPTIONS
from train import BUNDLED, TrainConfig

from photopic.core.runs import Run
from photopic.data import renderings, scenes
from photopic.models.dual_encoder import DualEncoder

from _common.card import file_facts, hits_of, share, table, top_shares, trained_facts, write_card

CARD = Path(__file__).with_name("card.json")
LISTS = {
    "held_out_renderings": renderings.held_out_pairs,
    "held_out_style": renderings.held_out_style_pairs,
    "training_renderings": lambda: renderings.training_pairs()[::5],
}
TEMPLATE = "a photo of a {}."
PAIRS = 500  # scenes with different captions that a retrieval chooses from
COLUMNS = {
    "held_out_renderings.top1": "held-out renderings, top 1 of 1,264",
    "held_out_style.top1": "held-out style",
    "text_of_image.recall_at_1": "caption of a scene, R@1 of 500",
    "image_of_text.recall_at_1": "scene",
}


def measure(model: DualEncoder) -> dict[str, Any]:
    """Shares as (value, low, high, n)."""
    reached: dict[str, Any] = {}
    names = renderings.classes()
    rows = model.class_features(names, [TEMPLATE])
    for title, pairs_of in LISTS.items():
        scores = model.image_features(drawn(title), batch=256) @ rows.mT
        reached |= top_shares(title, hits_of(scores, names, [name for name, _ in pairs_of()]))
    images, captions = new_scenes()
    cosines = model.image_features(images, batch=256) @ model.text_features(captions).mT  # (images, texts)
    own = torch.arange(len(captions))[:, None]
    for title, found in (("text_of_image", cosines), ("image_of_text", cosines.mT)):
        for count in (1, 5):
            reached[f"{title}.recall_at_{count}"] = share((found.topk(count).indices == own).any(1))
    return reached


@cache
def drawn(title: str) -> np.ndarray:
    """The pictures of a list, drawn once for both models."""
    return renderings.pictures(LISTS[title]())


@cache
def new_scenes() -> tuple[np.ndarray, list[str]]:
    """Scenes of seeds that no training uses, each with a caption of its own."""
    found: dict[str, np.ndarray] = {}
    for seed in range(2 * PAIRS):
        scene = scenes.sample_scene(OPTIONS, (65, seed))
        found.setdefault(scene.caption, scene.image)
        if len(found) == PAIRS:
            break
    return np.stack(list(found.values())), list(found)


def entry(kind: str, out: Path, weights: Path) -> dict[str, Any]:
    """Everything the card says of one model."""
    folder, config = weights / f"emoji-clip-{kind}", TrainConfig(kind)
    facts = trained_facts(Run(out / kind, config), config.all_steps)
    model = DualEncoder.load(folder)
    return file_facts(folder) | {
        "config": asdict(config),
        "seed": SEEDS[kind],
        "parameters": model.parameter_count,
        "image_tower_parameters": sum(each.numel() for each in model.image_tower.parameters()),
        "steps": config.all_steps,
        "processor_s": facts["state"]["processor_s"],
        "last_line": facts["last_line"],
        "template": TEMPLATE,
        "reached": measure(model),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-clip"), help="work folder of train.py")
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="where the models are")
    options = parser.parse_args()
    models = {f"emoji-clip-{kind}": entry(kind, options.out, options.weights) for kind in SEEDS}
    write_card(CARD, {"models": models})
    print(table(models, COLUMNS))


if __name__ == "__main__":
    main()
