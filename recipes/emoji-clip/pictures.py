"""The pictures and texts that the dual encoders learn from: scenes of one or two objects, drawn once, shown changed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from networks import MAX_TOKENS, MEAN, SIZE, SPREAD, tokenizer
from torch import Tensor
from torch.nn import functional as F

from photopic.core.runs import write_atomically
from photopic.data import renderings, scenes

OPTIONS = scenes.SceneOptions(concepts=renderings.classes(), objects=(0.65, 0.35, 0.0, 0.0), size=SIZE)
SENTENCES = ("a photo of {}.", "a picture of {}.", "{}")  # instead of the caption, for half of the single objects
CHUNK = 2_000  # scenes a file


@dataclass(frozen=True, eq=False)
class Bank:
    """Scenes as tensors."""

    images: Tensor  # uint8 (n, 64, 64, 3)
    tokens: Tensor  # (n, texts, MAX_TOKENS): the caption, and for a single object other sentences
    texts: Tensor  # (n,): how many of the texts are there

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Pixel values (size, 3, 64, 64) and token ids (size, MAX_TOKENS); the same seed and step give the same batch."""
        epoch, at = divmod(step, len(self.images) // size)
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        picked = order[at * size : (at + 1) * size]
        generator = torch.Generator().manual_seed((seed + 1) * 10_000_019 + step)
        other = torch.rand(size, generator=generator) < 0.5
        which = 1 + (torch.rand(size, generator=generator) * (self.texts[picked] - 1)).long()
        which = torch.where(other & (self.texts[picked] > 1), which, 0)
        return augment(self.images[picked], generator), self.tokens[picked, which]

    def names(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """The same of single objects, all with one of ``SENTENCES``, so that nothing but the object is told."""
        single = (self.texts > 1).nonzero()[:, 0]
        generator = torch.Generator().manual_seed((seed + 1) * 20_000_003 + step)
        picked = single[torch.randperm(len(single), generator=generator)[:size]]
        which = 1 + step % len(SENTENCES)
        return augment(self.images[picked], generator), self.tokens[picked, which]


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Zoom and shift a little, so that no relation changes, mix the channels a little, add noise; normalised."""
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    zoom, aspect = uniform(0.85, 1.1), uniform(-0.08, 0.08).exp()
    zero = torch.zeros(count)
    rows = [
        torch.stack([zoom * aspect, zero, uniform(-0.1, 0.1)], 1),
        torch.stack([zero, zoom / aspect, uniform(-0.1, 0.1)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [count, 3, SIZE, SIZE], align_corners=False)
    pixels = images.permute(0, 3, 1, 2).float() / 255
    moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    mix = torch.eye(3) + 0.08 * torch.randn(count, 3, 3, generator=generator)
    moved = torch.einsum("nij,njhw->nihw", mix, moved) * uniform(0.85, 1.15, 1, 1, 1)
    moved = moved + uniform(0, 0.03, 1, 1, 1) * torch.randn(moved.shape, generator=generator)
    return (moved.clamp(0, 1) - MEAN) / SPREAD


def bank(folder: Path, count: int) -> Bank:
    """The first ``count`` scenes without a held-out pair of concept and style; drawn where the folder lacks them."""
    folder.mkdir(parents=True, exist_ok=True)
    words, parts = tokenizer(), []
    for start in range(0, count, CHUNK):
        path = folder / f"scenes-{start}.npz"
        if not path.is_file():
            _draw(path, start)
            print(path.name, flush=True)
        with np.load(path) as found:
            parts.append((found["images"], [text.split("\n") for text in found["texts"].tolist()]))
    texts = [each for _, chunk in parts for each in chunk][:count]
    ids = [
        words(
            each + each[:1] * (1 + len(SENTENCES) - len(each)),
            padding="max_length",
            truncation=True,
            max_length=MAX_TOKENS,
        ).input_ids
        for each in texts
    ]
    images = torch.from_numpy(np.concatenate([images for images, _ in parts])[:count])
    return Bank(images, torch.tensor(ids), torch.tensor([len(each) for each in texts]))


def _draw(path: Path, start: int) -> None:
    held_out = set(renderings.held_out_pairs())
    images, texts, attempt = [], [], 0
    while len(images) < CHUNK:
        scene = scenes.sample_scene(OPTIONS, (64, start, attempt))
        attempt += 1
        if any((item.concept, item.style) in held_out for item in scene.placements):
            continue
        images.append(scene.image)
        named = [scene.caption]
        if len(scene.placements) == 1:
            noun = scenes.with_article(scene.placements[0].concept)
            named += [sentence.format(noun) for sentence in SENTENCES]
        texts.append("\n".join(named))
    held = io.BytesIO()
    np.savez(held, images=np.stack(images), texts=np.array(texts))
    write_atomically(path, held.getvalue())
