"""Scenes of one to four things with their two texts: the words of their bag of concepts, and those of a plain caption."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from networks import END, LONGEST, PAD, START
from torch import Tensor
from torch.nn import functional as F

from photopic.core.runs import write_atomically
from photopic.data import emoji_world, renderings, scenes
from photopic.knowledge.compact_caption import SIDE, in_reading_order, related, vocabulary, word, write_scene

MEAN, SPREAD = 0.6, 0.3  # of the pixel values, as emoji-clip reads them
SHIFT = 3  # pixels at most by which a scene is moved, and its boxes with it
CHUNK = 2_000  # scenes a file
TEXTS = ("graph", "caption")
NAMES = frozenset(map(word, renderings.classes()))


@cache
def options(style: str, known: bool) -> scenes.SceneOptions:
    """Scenes of one style without its held-out renderings; ``known``: of the things that ``emoji-diffusion`` draws."""
    held_out = set(renderings.held_out_pairs())
    concepts = tuple(
        name
        for name in renderings.classes()
        if (name, style) not in held_out and (not known or emoji_world.concept(name).split == "known")
    )
    return scenes.SceneOptions(
        concepts=concepts, styles=(style,), objects=(0.25, 0.25, 0.25, 0.25), tinted=0.2, repeated=0.1
    )


def plain_words(scene: scenes.Scene) -> list[str]:
    """The caption of a scene with its styles named, things in reading order, as words without commas."""
    order, ground = in_reading_order(scene.boxes), scene.background
    items, pairs = [scene.placements[index] for index in order], related(scene, order)
    colours = [ground.colour, "to", ground.second] if ground.second else [ground.colour]
    kind = [] if ground.kind == "flat" else [ground.kind]
    where = ["on", "a", *(colours + kind if ground.second else kind + colours), "background"]
    if len(items) > 1 and len({item.concept for item in items}) == 1:
        return [scenes.NUMBER_WORDS[len(items)], word(items[0].concept), *where]
    phrases = [["a", item.style, *([item.tint] if item.tint else []), word(item.concept)] for item in items]
    if len(phrases) == 2 and pairs:
        return [*phrases[0], word(pairs[0][1]), *phrases[1], *where]
    listed = [each for phrase in phrases[:-1] for each in phrase]
    return [*listed, *(["and"] if listed else []), *phrases[-1], *where]


@dataclass(frozen=True, eq=False)
class Bank:
    """Scenes as tensors."""

    images: Tensor  # uint8 (n, 64, 64, 3)
    tokens: Tensor  # int64 (n, LONGEST): start, words, end, padding
    axes: Tensor  # (n, LONGEST): 1 where a token counts pixels to the right, 2 where down, else 0

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Pixel values (size, 3, 64, 64) and tokens (size, LONGEST); the same step gives the same batch."""
        epoch, at = divmod(step, len(self.images) // size)
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(epoch))
        picked, generator = order[at * size : (at + 1) * size], torch.Generator().manual_seed(10_000_019 + step)
        shift = torch.randint(-SHIFT, SHIFT + 1, (2, size), generator=generator)  # to the right, down
        zero = vocabulary().index("0")
        moved = self.tokens[picked] - zero + torch.stack([0 * shift[0], *shift]).mT.gather(1, self.axes[picked].long())
        tokens = torch.where(self.axes[picked] > 0, moved.clamp(0, SIDE) + zero, self.tokens[picked])
        return augment(self.images[picked], shift, generator), tokens


def augment(images: Tensor, shift: Tensor, generator: torch.Generator) -> Tensor:
    """Move by whole pixels, mix the channels a little, add noise; normalised."""
    count = len(images)
    pixels = F.pad(images.permute(0, 3, 1, 2).float() / 255, (SHIFT,) * 4, mode="replicate")
    seen = torch.arange(SIDE) + SHIFT
    columns, rows = (seen[None] - each[:, None] for each in shift)  # (n, 64) each
    moved = pixels.permute(0, 2, 3, 1)[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]]
    mix = torch.eye(3) + 0.05 * torch.randn(count, 3, 3, generator=generator)
    light = 0.9 + 0.2 * torch.rand(count, 1, 1, 1, generator=generator)
    moved = torch.einsum("nij,nhwj->nihw", mix, moved) * light
    noise = 0.03 * torch.rand(count, 1, 1, 1, generator=generator)
    moved = moved + noise * torch.randn(moved.shape, generator=generator)
    return (moved.clamp(0, 1) - MEAN) / SPREAD


def bank(folder: Path, count: int, text: str) -> Bank:
    """The first ``count`` scenes with one of ``TEXTS``; drawn where the folder lacks them."""
    folder.mkdir(parents=True, exist_ok=True)
    images, lines = [], []
    for start in range(0, count, CHUNK):
        path = folder / f"scenes-{start}.npz"
        if not path.is_file():
            _draw(path, start)
            print(path.name, flush=True)
        with np.load(path) as found:
            images.append(found["images"])
            lines += found[text].tolist()
    place = {each: i for i, each in enumerate(vocabulary())}
    tokens, axes = torch.full((count, LONGEST), PAD), torch.zeros(count, LONGEST, dtype=torch.int8)
    for row, line in enumerate(lines[:count]):
        words = line.split()
        tokens[row, : len(words) + 2] = torch.tensor([START, *(place[each] for each in words), END])
        numbers = [index for index, each in enumerate(words, start=1) if each.isdigit()]
        axes[row, numbers] = torch.tensor([1, 2], dtype=torch.int8).repeat(
            len(numbers) // 2
        )  # left, top, right, bottom
    return Bank(torch.from_numpy(np.concatenate(images)[:count]), tokens, axes)


def _draw(path: Path, start: int) -> None:
    images, texts = [], {text: [] for text in TEXTS}
    for index in range(CHUNK):
        rng = np.random.default_rng((22, start, index))
        style, known = str(rng.choice(emoji_world.TRAINING_STYLES)), bool(rng.random() < 0.5)
        scene = scenes.sample_scene(options(style, known), int(rng.integers(2**31)))
        images.append(scene.image)
        texts["graph"].append(" ".join(write_scene(scene)))
        texts["caption"].append(" ".join(plain_words(scene)))
    held = io.BytesIO()
    np.savez(held, images=np.stack(images), **{text: np.array(lines) for text, lines in texts.items()})
    write_atomically(path, held.getvalue())
