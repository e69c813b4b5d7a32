"""Stage 1: encode a bank of known scenes of one or two things at 64 px once, with the second edition's autoencoder.

python recipes/emoji-flow/1_latents.py --scenes 100000
"""

from __future__ import annotations

import argparse
import hashlib

import torch
from common import BANK, SECOND_EDITION, autoencoder, tokenizer

from photopic.core.runs import Run
from photopic.data import emoji_world
from photopic.data.scenes import SceneOptions

from _common.latents import encode_scenes

SCENES = SceneOptions(
    concepts=tuple(item.name for item in emoji_world.select(split="known")),
    styles=("noto", "twemoji"),
    objects=(0.5, 0.5, 0.0, 0.0),
    backgrounds=(0.7, 0.15, 0.15),
    tinted=0.04,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100_000)
    parser.add_argument("--shard", type=int, default=0, help="which of --shards processes this is")
    parser.add_argument("--shards", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights = (SECOND_EDITION / "checkpoint" / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    Run(BANK, {"autoencoder": hashlib.sha256(weights).hexdigest(), "seed": 32})
    options = {"scenes": arguments.scenes, "seed": 32, "shard": arguments.shard, "shards": arguments.shards}
    encode_scenes(BANK, SCENES, autoencoder().to(memory_format=torch.channels_last), tokenizer(), **options)


if __name__ == "__main__":
    main()
