"""Measure the bank: ``python recipes/emoji-classifiers/card.py --out runs/emoji-classifiers`` writes ``card.json`` and
prints the table of the docs.

Each model is asked, by its handle as a user would, for the concept of one emoji on white: of the pairs it learnt from, of
the held-out renderings, and of the style that is held out of everything.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import networks
import numpy as np
import torch
from train import BUNDLED, ORDER, config_of

from photopic.core.runs import Run
from photopic.data import emoji_world, renderings
from photopic.models.classifier import Classifier

from _common.card import file_facts, hits_of, share, table, top_shares, trained_facts, write_card

CARD = Path(__file__).with_name("card.json")
LISTS = {
    "held_out_renderings": renderings.held_out_pairs,
    "held_out_style": renderings.held_out_style_pairs,
    "training_renderings": renderings.training_pairs,
}
COLUMNS = {
    "held_out_renderings.top1": "held-out renderings, top 1",
    "held_out_renderings.top5": "top 5",
    "held_out_style.top1": "held-out style, top 1",
    "training_renderings.top1": "training, top 1",
}


def measure(model: Classifier) -> dict[str, Any]:
    """Shares as (value, low, high, n) of every list of pairs, and of the held-out renderings by style."""
    reached: dict[str, Any] = {}
    for title, pairs_of in LISTS.items():
        pairs = pairs_of()
        hits = hits_of(model.logits(drawn(title), batch=256), model.labels, [name for name, _ in pairs])
        reached |= top_shares(title, hits)
        if title == "held_out_renderings":
            for style in emoji_world.TRAINING_STYLES:
                chosen = torch.tensor([each == style for _, each in pairs])
                reached[f"{title}.{style}.top1"] = share(hits[chosen, 0])
        if title == "held_out_style":  # which looks much like fluent-flat: was the concept learnt in that?
            seen = {name for name, style in renderings.training_pairs() if style == "fluent-flat"}
            learnt = torch.tensor([name in seen for name, _ in pairs])
            reached[f"{title}.learnt_in_fluent_flat.top1"] = share(hits[learnt, 0])
            reached[f"{title}.not_learnt_in_fluent_flat.top1"] = share(hits[~learnt, 0])
    return reached


@cache
def drawn(title: str) -> np.ndarray:
    """The pictures of a list, drawn once for all models."""
    return renderings.pictures(LISTS[title]())


def entry(network: str, seed: int, out: Path, weights: Path) -> dict[str, Any]:
    """Everything the card says of one model."""
    folder, config, shape = weights / f"emoji-{network}-{seed}", config_of(network, seed), networks.SHAPES[network]
    facts = trained_facts(Run(out / f"{network}-{seed}", config), config.steps)
    model = Classifier.load(folder)
    return file_facts(folder) | {
        "config": asdict(config),
        "network": shape.options | {"kind": shape.kind},
        "head_dimensions": model.head.in_features,
        "parameters": model.parameter_count,
        "initial_digest": shape.initial,
        "pictures": config.steps * config.batch,
        "training_s": {"wall_s": facts["state"]["elapsed_s"], "processor_s": facts["state"]["processor_s"]},
        "last_line": facts["last_line"],
        "reached": measure(model),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-classifiers"), help="work folder of train.py")
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="where the finished models are")
    parser.add_argument("--only", nargs="*", help="names such as resnet-64-0: print these, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [(network, seed) for network, seed in ORDER if f"{network}-{seed}" in (options.only or [])]
    models = {
        f"emoji-{network}-{seed}": entry(network, seed, options.out, options.weights)
        for network, seed in names or ORDER
    }
    if names:
        print(json.dumps({name: each["reached"] for name, each in models.items()}, indent=1))
        return
    card = {
        "classes": len(renderings.classes()),
        "styles": emoji_world.TRAINING_STYLES,
        "training_pairs": len(renderings.training_pairs()),
        "held_out_pairs": len(renderings.held_out_pairs()),
        "initial_seed": networks.INITIAL_SEED,
        "models": models,
    }
    print(table(models, COLUMNS))
    write_card(CARD, card)


if __name__ == "__main__":
    main()
