"""A bank of scenes encoded once, so that the long training of a denoiser sees only latents and token ids."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from photopic.data.scenes import Scene, SceneOptions, sample_scene

from _common.pictures import pixels

PART = 1_000  # scenes a file


@torch.no_grad()
def encode_scenes(
    folder: Path,
    options: SceneOptions,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    *,
    scenes: int,
    seed: int,
    shard: int = 0,
    shards: int = 1,
) -> None:
    """Write this shard's files of the bank that are missing: scaled latents (float16) and token ids.

    A scene whose caption has more tokens than the text encoder reads is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(shard, scenes // PART, shards):
        path = folder / f"{part:03d}.safetensors"
        if path.exists():
            continue
        drawn = [sample_scene(options, (seed, index)) for index in range(part * PART, (part + 1) * PART)]
        ids = tokenizer([scene.caption for scene in drawn], padding="max_length").input_ids
        fits = [index for index, row in enumerate(ids) if len(row) == tokenizer.model_max_length]
        kept = [drawn[index] for index in fits]
        latents = torch.cat([_encoded(vae, kept[at : at + 50]) for at in range(0, len(kept), 50)])
        temporary = path.with_suffix(".tmp")
        save_file({"latents": latents, "ids": torch.tensor([ids[k] for k in fits], dtype=torch.int16)}, temporary)
        temporary.rename(path)
        print(path.name, flush=True)


def _encoded(vae: AutoencoderKL, scenes: list[Scene]) -> Tensor:
    images = pixels(scenes).to(vae.device, memory_format=torch.channels_last)
    return (vae.encode(images).latent_dist.mean * vae.config.scaling_factor).half().cpu().contiguous()


class Bank:
    """The encoded scenes of every file of a folder.

    Args:
        folder: What ``encode_scenes`` filled.
        empty: Token ids of the empty caption, (tokens,).
    """

    def __init__(self, folder: Path, empty: Tensor) -> None:
        parts = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
        if not parts:
            raise SystemExit(f"{folder}: no encoded scenes; run the stage that encodes them first")
        self.latents = torch.cat([part["latents"] for part in parts])  # (scenes, channels, height, width)
        self.ids = torch.cat([part["ids"] for part in parts])  # (scenes, tokens)
        self.empty = empty

    def draw(self, step: int, batch: int, *, seed: int, unconditional: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The whole batch of a step: latents, noise, timesteps (stratified), token ids; a function of seed and step only."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        pick = torch.randint(len(self.latents), (batch,), generator=generator)
        noise = torch.randn((batch, *self.latents.shape[1:]), generator=generator)
        strata = (torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)) / batch
        timesteps = (strata * 1000).long().clamp(max=999)
        ids = self.ids[pick].long()
        ids[torch.rand(batch, generator=generator) < unconditional] = self.empty
        return self.latents[pick].float(), noise, timesteps, ids
