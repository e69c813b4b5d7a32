"""Stage 2: encode a bank of known scenes once, for one size; the text encoder is the first edition's.

    python recipes/emoji-diffusion-128/2_latents.py --size 64 --scenes 40000      # one thing a scene: 8x8 latents
    python recipes/emoji-diffusion-128/2_latents.py --size 128 --scenes 100000    # one to four things: 16x16 latents

The bank is bound to the landed autoencoder: another one is refused.
"""

from __future__ import annotations

import argparse
import hashlib

import torch
from common import FIRST_EDITION, LANDED, OBJECTS, RUNS, known_scenes
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from photopic.core.runs import Run

from _common.latents import encode_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, choices=(64, 128), default=64)
    parser.add_argument("--scenes", type=int, default=40_000)
    parser.add_argument("--shard", type=int, default=0, help="which of --shards processes this is")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = RUNS / f"latents-{arguments.size}"
    weights = (LANDED / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    Run(folder, {"autoencoder": hashlib.sha256(weights).hexdigest(), "objects": OBJECTS[arguments.size], "seed": 31})
    vae = AutoencoderKL.from_pretrained(LANDED / "vae")
    encode_scenes(
        folder,
        known_scenes(arguments.size, OBJECTS[arguments.size]),
        vae.to(arguments.device, memory_format=torch.channels_last),
        CLIPTokenizer.from_pretrained(FIRST_EDITION / "tokenizer"),
        scenes=arguments.scenes,
        seed=31,
        shard=arguments.shard,
        shards=arguments.shards,
    )


if __name__ == "__main__":
    main()
