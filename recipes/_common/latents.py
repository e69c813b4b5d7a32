"""A bank of scenes encoded once, so that the long training of a denoiser sees only latents and token ids."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from photopic.data.scenes import Scene, SceneOptions, plural, sample_scene
from photopic.models.text_to_image.words import spans_of

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
    """Write this shard's files of the bank that are missing: scaled latents (float16), token ids, and where things are.

    ``owners`` is for each token the thing it names, or -1; ``coverage`` for each of four things its share of each cell of the
    latents, 0 to 255; things that share their words (``two bears``) count as the first. A scene whose caption has more tokens
    than the text encoder reads is left out.
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
        owners, coverage = zip(*(_places(scene, tokenizer, latents.shape[-1]) for scene in kept), strict=True)
        written = {
            "latents": latents,
            "ids": torch.tensor([ids[k] for k in fits], dtype=torch.int16),
            "owners": torch.stack(owners),
            "coverage": torch.stack(coverage),
        }
        temporary = path.with_suffix(".tmp")
        save_file(written, temporary)
        temporary.rename(path)
        print(path.name, flush=True)


def _encoded(vae: AutoencoderKL, scenes: list[Scene]) -> Tensor:
    images = pixels(scenes).to(vae.device, memory_format=torch.channels_last)
    return (vae.encode(images).latent_dist.mean * vae.config.scaling_factor).half().cpu().contiguous()


def _places(scene: Scene, tokenizer: CLIPTokenizer, side: int) -> tuple[Tensor, Tensor]:
    """Which thing each token names, int8 (tokens,), and where each lies, uint8 (4, side, side)."""
    things = [" ".join(filter(None, (item.tint, item.concept))) for item in scene.placements]
    masks = torch.from_numpy(scene.masks)
    concepts = [item.concept for item in scene.placements]
    if len(concepts) > len(set(concepts)):  # counted: all have one name, and a tint is not told
        things, masks = [plural(scene.placements[0].concept)], masks.any(0, keepdim=True)
    taken: dict[int, tuple[int, int]] = {}
    for thing in sorted(range(len(things)), key=lambda k: -len(things[k])):  # a cat face before a cat
        free = [
            (begin, end)
            for begin, end in spans_of(scene.caption, things[thing])
            if all(end <= first or last <= begin for first, last in taken.values())
        ]
        taken[thing] = free[0]  # the background comes last: an orange on an orange background
    owners = torch.full((tokenizer.model_max_length,), -1, dtype=torch.int8)
    for position, (begin, end) in enumerate(tokenizer(scene.caption, return_offsets_mapping=True)["offset_mapping"]):
        for thing, (first, last) in taken.items():
            if begin < end and begin < last and first < end:
                owners[position] = thing
    coverage = torch.zeros(4, side, side, dtype=torch.uint8)
    coverage[: len(masks)] = (F.adaptive_avg_pool2d(masks.float(), side) * 255).round().byte()
    return owners, coverage


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
        self.owners = torch.cat([part["owners"] for part in parts])  # (scenes, tokens)
        self.coverage = torch.cat([part["coverage"] for part in parts])  # (scenes, things, height, width)
        self.empty = empty

    def draw(self, step: int, batch: int, *, seed: int, unconditional: float) -> tuple[Tensor, ...]:
        """The whole batch of a step, a function of seed and step only.

        Returns:
            Latents, noise, timesteps (stratified), token ids, owners of the tokens, and coverage by the things.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        pick = torch.randint(len(self.latents), (batch,), generator=generator)
        noise = torch.randn((batch, *self.latents.shape[1:]), generator=generator)
        strata = (torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)) / batch
        timesteps = (strata * 1000).long().clamp(max=999)
        ids = self.ids[pick].long()
        silent = torch.rand(batch, generator=generator) < unconditional
        ids[silent] = self.empty
        owners = self.owners[pick].long().masked_fill(silent[:, None], -1)
        return self.latents[pick].float(), noise, timesteps, ids, owners, self.coverage[pick].float() / 255
