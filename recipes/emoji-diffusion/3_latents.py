"""Stage 3: encode a fixed bank of scenes and captions once, so that the long training sees only latents.

    python recipes/emoji-diffusion/3_latents.py 0 2 & python recipes/emoji-diffusion/3_latents.py 1 2        # shard k of n

Each shard file holds latents (scaled, float16) and the captions' token ids.
"""

from __future__ import annotations

import sys

import torch
from common import KNOWN_SCENES, MODEL, RUNS
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from _common.latents import encode_scenes

if __name__ == "__main__":
    torch.set_num_threads(1)
    shard, shards = (int(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 2 else (0, 1)
    vae = AutoencoderKL.from_pretrained(MODEL / "vae", torch_dtype=torch.float32).to(memory_format=torch.channels_last)
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    encode_scenes(RUNS / "latents", KNOWN_SCENES, vae, tokenizer, scenes=40_000, seed=31, shard=shard, shards=shards)
