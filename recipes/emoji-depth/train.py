"""The bundled depth predictor: ``python recipes/emoji-depth/train.py`` trains it (resumes), writes it and its card.json.

Scenes of one to four things that overlap, with their drawing order; held-out concepts and the held-out style are never seen. The
network is the U-Net of ``photopic.models.skeleton_unet``; what is learnt is the order over four at every pixel.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from skimage.color import rgb2lab
from torch import Tensor

from photopic.core.runs import Run, write_atomically
from photopic.data import emoji_world
from photopic.data.extraction import depth, parts
from photopic.data.pixels import from_pixels
from photopic.data.scenes import COLOURS, TEXTURES, Background, Placement, Scene, compose
from photopic.metrics.intervals import bootstrap, wilson
from photopic.models.depth_network import FILE, predicted_depth
from photopic.models.skeleton_unet import SkeletonUNet

sys.path.append(str(Path(__file__).parents[1]))  # recipes/, which holds _common
from photopic.core.numerics.muon import muon_and_adamw

from _common.training import BFLOAT16, Training, trained, warm_then_linear

RUN = Path(__file__).parents[2] / "runs" / "emoji-depth"
CARD = Path(__file__).with_name("card.json")
STYLES = tuple(style for style in emoji_world.TRAINING_STYLES if style not in emoji_world.LINE_ART)
ENDS = ("down.0.0", "heads")
TOUCH = 20  # pixels of one thing that the other would have shown, from which on their order can be seen


@dataclass(frozen=True)
class Config:
    """What determines the weights."""

    steps: int = 2_400
    batch: int = 24
    lr: float = 4e-3
    widths: tuple[int, ...] = (16, 32, 64, 64)
    dilations: tuple[int, ...] = (1, 2, 4)
    seed: int = 517


def pool(split: str, styles: Sequence[str]) -> list[tuple[str, str]]:
    """Every concept of a split in every of these styles that it has."""
    held_out = split == "held_out"
    items = [item for item in emoji_world.concepts() if (item.split == "held_out") is held_out]
    return [(item.name, style) for item in items for style in item.styles if style in styles]


LEARNT = pool("train", STYLES)
MEASURED = {
    "held_out_concepts": pool("held_out", STYLES),
    "held_out_style": pool("train", (emoji_world.HELD_OUT_STYLE,)),
}


def scene(choices: Sequence[tuple[str, str]], seed: tuple[int, ...]) -> Scene:
    """One to four things anywhere, most of them over others."""
    rng = np.random.default_rng(seed)
    placements = []
    for _ in range(int(rng.integers(1, 5))):
        name, style = choices[rng.integers(len(choices))]
        side = rng.uniform(0.3, 0.8)
        centre = rng.uniform(0.2, 0.8, 2)
        placements.append(Placement(name, style, (float(centre[0]), float(centre[1])), float(side)))
    kind = ("flat", "flat", "gradient", *TEXTURES)[rng.integers(3 + len(TEXTURES))]
    colour, second = (str(each) for each in rng.choice(list(COLOURS), 2, replace=False))
    return compose(placements, Background(colour, kind, second if kind == "gradient" else None))


def batch_of(config: Config, step: int) -> tuple[Tensor, Tensor]:
    """Pictures (batch, 3, 64, 64) in -1 to 1 and their depth (batch, 1, 64, 64) in 0 to 1."""
    drawn = [scene(LEARNT, (config.seed, step, item)) for item in range(config.batch)]
    images = from_pixels(np.stack([each.image for each in drawn]))
    return images, torch.from_numpy(np.stack([depth(list(each.masks)) for each in drawn])).float() / 255


def train(config: Config, run: Run, save_every: int = 200, bfloat16: bool = False) -> Iterator[dict[str, float]]:
    """Train from the last checkpoint of ``run`` to the end; yields the log line of each step."""
    torch.manual_seed(config.seed)
    network = SkeletonUNet(3, config.widths, config.dilations)
    training = Training(run, network, muon_and_adamw(network, config.lr, ENDS, bfloat16=bfloat16))
    for step in training.steps(config.steps, every=save_every):
        images, wanted = batch_of(config, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            outputs = network(images)
        losses = [
            F.binary_cross_entropy_with_logits(each.float(), F.adaptive_avg_pool2d(wanted, each.shape[-1]))
            for each in outputs
        ]
        loss = losses[0] + 0.5 * losses[1] + 0.25 * losses[2]
        training.update(loss, warm_then_linear(step, config.steps, 50))
        yield {"step": step + 1, "loss": loss.item()}


def export(run: Run, config: Config, path: Path) -> None:
    """The weights of the last checkpoint, in half precision."""
    state = trained(run, "model.")[0]
    halved = {name: (each.half() if each.is_floating_point() else each).contiguous() for name, each in state.items()}
    stated = {"inputs": 3, "widths": config.widths, "dilations": config.dilations}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(halved, {"photopic": json.dumps(stated, sort_keys=True)}))


def reached(scenes: int = 256) -> dict[str, Any]:
    """Of pairs that overlap how often the nearer one is told; IoU of what is told from the background, beside a plain rule's."""
    found: dict[str, Any] = {}
    for name, choices in MEASURED.items():
        right, overlap, plain = [], [], []
        for index in range(scenes):
            drawn = scene(choices, (99, index))
            there = predicted_depth(drawn.image)[0]
            truth = drawn.masks.any(0)
            for kept, values in ((there > 255 / 8, overlap), (np.any(parts(rgb2lab(drawn.image)), 0), plain)):
                values.append(float((kept & truth).sum() / max(1, (kept | truth).sum())))
            for later in range(1, len(drawn.placements)):
                alone = compose(drawn.placements[later : later + 1], drawn.background).masks[0]
                for earlier in range(later):
                    own = compose(drawn.placements[earlier : earlier + 1], drawn.background).masks[0]
                    seen = drawn.masks[later].any() and drawn.masks[earlier].any()
                    if seen and (alone & own & drawn.masks[later]).sum() >= TOUCH:
                        near, far = (there[drawn.masks[place]].mean() for place in (later, earlier))
                        right.append(bool(near > far))
        found[f"{name}.order"] = [*(round(each, 4) for each in wilson(sum(right), len(right))), len(right)]
        for way, values in (("foreground", overlap), ("parts_unlike_the_border", plain)):
            found[f"{name}.{way}_iou"] = [*(round(each, 4) for each in bootstrap(values)), len(values)]
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=Config.steps)
    parser.add_argument("--bfloat16", action="store_true", help=BFLOAT16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = replace(Config(), steps=arguments.steps)
    run = Run(RUN, asdict(config))
    for line in train(config, run, bfloat16=arguments.bfloat16):
        if line["step"] % 50 == 0:
            run.log(**line)
            print(json.dumps(line), flush=True)
    export(run, config, FILE)
    content = FILE.read_bytes()
    card = {
        "config": asdict(config),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "processor_s": trained(run, "model.")[1]["processor_s"],
        "reached": reached(),
    }
    write_atomically(CARD, (json.dumps(card, indent=1, sort_keys=True) + "\n").encode())
    print(json.dumps(card["reached"]))


if __name__ == "__main__":
    main()
