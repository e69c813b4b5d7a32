"""Stage 3: encode a fixed bank of scenes and captions once, so that the long training sees only latents.

    python recipes/emoji-diffusion/3_latents.py 0 2 & python recipes/emoji-diffusion/3_latents.py 1 2        # shard k of n

Each shard file holds latents (scaled, float16), the states of the captions (float16) and their token ids.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from common import KNOWN_SCENES, MODEL, RUNS, pixels
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from photopic.data.scenes import sample_scene


@dataclass(frozen=True)
class Config:
    scenes: int = 40_000
    part: int = 1_000  # scenes a file
    seed: int = 31


@torch.no_grad()
def main(shard: int, shards: int, config: Config = Config()) -> None:
    vae = AutoencoderKL.from_pretrained(MODEL / "vae", torch_dtype=torch.float32).to(memory_format=torch.channels_last)
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    text = CLIPTextModel.from_pretrained(MODEL / "text_encoder", torch_dtype=torch.float32)
    folder = RUNS / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(config.scenes // config.part):
        path = folder / f"{part:03d}.safetensors"
        if part % shards != shard or path.exists():
            continue
        latents, states, tokens = [], [], []
        for start in range(part * config.part, (part + 1) * config.part, 100):
            scenes = [sample_scene(KNOWN_SCENES, (config.seed, index)) for index in range(start, start + 100)]
            latents.append(vae.encode(pixels(scenes)).latent_dist.mean * vae.config.scaling_factor)
            captions = [scene.caption for scene in scenes]
            ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
            states.append(text(ids).last_hidden_state)
            tokens.append(ids)
        temporary = path.with_suffix(".tmp")
        entries = {"latents": torch.cat(latents).half().contiguous(), "text": torch.cat(states).half()}
        save_file(entries | {"ids": torch.cat(tokens).to(torch.int16)}, temporary)
        temporary.rename(path)
        print(path.name, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 2 else 0, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
