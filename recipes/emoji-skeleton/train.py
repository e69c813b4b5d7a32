"""The bundled skeleton network: ``python recipes/emoji-skeleton/train.py`` trains it (resumes), writes it and its card.json.

What it learns from is in ``photopic.data.skeleton_pairs``, how in ``photopic.train.skeleton``; held-out concepts and the held-out
style are never seen. Measured on 256 silhouettes of each, 5 % of whose borders are turned over.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from photopic.core.events import last
from photopic.core.runs import Run
from photopic.data.emoji_world import HELD_OUT_STYLE
from photopic.data.skeleton_pairs import emoji_pairs
from photopic.data.skeletons import prune, thin
from photopic.metrics.intervals import bootstrap
from photopic.metrics.skeleton import skeleton_f1
from photopic.models.files import BUNDLED
from photopic.models.skeleton_network import WEIGHTS, SkeletonNetwork
from photopic.train.skeleton import SkeletonConfig, noised, skeleton_network

NAME, PAIRS = "emoji-skeleton", 2400
CONFIG = SkeletonConfig(steps=1600, batch=8, seed=21)
MEASURED = {"held_out_concepts": {"split": "held_out"}, "held_out_style": {"styles": (HELD_OUT_STYLE,)}}


def reached(model: SkeletonNetwork) -> dict[str, Any]:
    """F1 as (mean, low, high, n), strict and within one pixel, beside that of thinning and pruning."""
    found: dict[str, Any] = {}
    for name, where in MEASURED.items():
        data: Any = emoji_pairs(256, **where)
        shapes = noised(data.shapes, 0.05, np.random.default_rng(21))
        ways = {
            "network": [thin(each > model.threshold) for each in model.probability(shapes)],
            "thin_prune": [prune(thin(each), each) for each in shapes],
        }
        for way, skeletons in ways.items():
            for radius in (0, 1):
                scores = skeleton_f1(np.stack(skeletons), data.skeletons, radius)
                found[f"{name}.{way}.f1{'_within_1' if radius else ''}"] = [
                    *(round(each, 4) for each in bootstrap(scores)),
                    len(scores),
                ]
    return found


def main() -> None:
    """Train, write in half precision, measure what was written."""
    torch.set_num_threads(1)
    began = time.process_time()
    model = last(
        skeleton_network.events(emoji_pairs(PAIRS), config=CONFIG, run=Run(Path(__file__).parents[2] / "runs" / NAME))
    )
    seconds = time.process_time() - began
    kept = {
        name: value for name, value in model.provenance.items() if name not in ("elapsed_s", "peak_bytes", "versions")
    }
    SkeletonNetwork(model.network.half(), model.threshold, NAME, kept).save(BUNDLED / NAME)
    written = SkeletonNetwork.load(NAME, "cpu")
    content = (BUNDLED / NAME / WEIGHTS).read_bytes()
    card = {
        "config": asdict(CONFIG),
        "pairs": PAIRS,
        "parameters": written.parameter_count,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "threshold": written.threshold,
        "processor_s": round(seconds, 1),
        "reached": reached(written),
    }
    text = json.dumps(card, indent=1, sort_keys=True) + "\n"
    Path(__file__).with_name("card.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
