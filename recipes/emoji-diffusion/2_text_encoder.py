"""Stage 2: the tokenizer and a contextual CLIPTextModel, trained before the diffusion model and then frozen.

    python recipes/emoji-diffusion/2_text_encoder.py            # resumes from runs/emoji-diffusion/text_encoder

Two losses: the symmetric contrastive loss against a small image tower that is thrown away, and a linear read-out of the
drawing (16x16 premultiplied RGBA) from the last token of each noun phrase. The second puts what a concept looks like
where cross-attention reads it, which saves the diffusion model most of the memorising.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from common import KNOWN_SCENES, MODEL, RUNS
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from photopic.core.runs import Run
from photopic.data import emoji_world
from photopic.data.scenes import COLOURS, NUMBER_WORDS, RELATIONS, STYLE_WORDS, TEXTURES, Scene

from _common.pictures import batches, pixels
from _common.training import Training

MAX_LENGTH = 24  # tokens, with the begin and end tokens


@dataclass(frozen=True)
class Config:
    steps: int = 800
    batch: int = 64
    bank: int = 7_000  # scenes drawn once and reused
    lr: float = 1.5e-3  # peak; linear warm-up of 100 steps, then cosine to zero
    readout: float = 1.0  # weight of the drawing read-out
    hidden: int = 192
    layers: int = 3
    heads: int = 6
    seed: int = 0
    save_every: int = 200


def vocabulary_words() -> list[str]:
    """Every word of the captions and of the names that are not held out, sorted."""
    groups = ("animals-nature", "food-drink", "travel-places", "objects", "activities")
    kept = (
        item
        for item in emoji_world.concepts()
        if item.split == "known" or (item.split == "train" and item.group in groups)
    )
    phrases = [item.name for item in kept if not item.is_variant]
    phrases += [*COLOURS, *TEXTURES, *RELATIONS, *NUMBER_WORDS.values(), *STYLE_WORDS.values()]
    phrases.append("a an the and on in of with to background gradient photo picture style ,")
    words = {word for phrase in phrases for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", phrase.lower())}
    return sorted(words)


def save_tokenizer() -> CLIPTokenizer:
    """A CLIP byte-level BPE merged until every word of ``vocabulary_words`` is one token."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(vocabulary_words(), trainer)
    model = json.loads(trained.to_str())["model"]
    symbols = list(model["vocab"])
    symbols += [letter + "</w>" for letter in alphabet if letter + "</w>" not in model["vocab"]]
    ids = {symbol: index for index, symbol in enumerate([*symbols, "<|startoftext|>", "<|endoftext|>"])}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = CLIPTokenizer(vocab=ids, merges=merges, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(MODEL / "tokenizer")
    return tokenizer


class ImageTower(nn.Module):
    """A small convolutional encoder of 32x32 scenes, used only for the contrastive loss."""

    def __init__(self, dim: int):
        super().__init__()
        widths = (3, 32, 64, 128, 192)
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2 if k else 1, padding=1), nn.GroupNorm(8, b), nn.SiLU())
                for k, (a, b) in enumerate(pairwise(widths))
            )
        )
        self.head = nn.Linear(widths[-1] * 16, dim)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).flatten(1))  # (batch, 3, 32, 32) -> (batch, dim)


def noun_positions(tokenizer: CLIPTokenizer, caption: str, scene: Scene) -> list[int]:
    """Position of the last token of each object's noun phrase, found in order from the left."""
    ids = tokenizer(caption, padding="max_length", max_length=MAX_LENGTH, truncation=True).input_ids
    order = _caption_order(scene)
    positions, start = [], 1
    for index in order:
        noun = tokenizer(scene.placements[index].concept, add_special_tokens=False).input_ids
        while ids[start : start + len(noun)] != noun:
            start += 1
            if start >= MAX_LENGTH:
                raise ValueError(f"{caption!r} does not name {scene.placements[index].concept!r}")
        start += len(noun)
        positions.append(start - 1)
    return positions


def _caption_order(scene: Scene) -> list[int]:
    if len(scene.placements) == 2 and scene.relations:
        return [scene.relations[0][0], scene.relations[0][2]]
    return list(range(len(scene.placements)))


def drawing(concept: str, style: str) -> np.ndarray:
    """The read-out target: the drawing at 16x16, premultiplied RGBA in 0 to 1, flattened to 1,024."""
    tile = Image.fromarray(np.array(emoji_world.sprite(concept, style)), "RGBA").convert("RGBa")
    return np.asarray(tile.resize((16, 16), Image.Resampling.BOX), np.float32).ravel() / 255


@dataclass
class Bank:
    """Scenes turned into tensors once."""

    images: Tensor  # (n, 3, 32, 32)
    ids: Tensor  # (n, MAX_LENGTH)
    owner: Tensor  # (objects,) index of the scene
    position: Tensor  # (objects,) token position
    target: Tensor  # (objects, 1024)


def make_bank(tokenizer: CLIPTokenizer, config: Config) -> Bank:
    images, ids, owner, position, target = [], [], [], [], []
    scenes: Sequence[Scene] = next(batches(KNOWN_SCENES, batch=config.bank, seed=20))
    for index, scene in enumerate(scenes):
        ids.append(tokenizer(scene.caption, padding="max_length", max_length=MAX_LENGTH, truncation=True).input_ids)
        for place, item in zip(noun_positions(tokenizer, scene.caption, scene), _caption_order(scene), strict=True):
            owner.append(index)
            position.append(place)
            target.append(drawing(scene.placements[item].concept, scene.placements[item].style))
    for start in range(0, len(scenes), 500):
        images.append(F.avg_pool2d(pixels(list(scenes[start : start + 500])), 2))
    return Bank(
        torch.cat(images),
        torch.tensor(ids),
        torch.tensor(owner),
        torch.tensor(position),
        torch.tensor(np.stack(target)),
    )


def main(config: Config = Config()) -> None:
    torch.manual_seed(config.seed)
    tokenizer = save_tokenizer()
    clip_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=config.hidden * 3,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=MAX_LENGTH,
        projection_dim=config.hidden,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = nn.ModuleDict(
        {
            "text": CLIPTextModel(clip_config),
            "image": ImageTower(config.hidden),
            "project": nn.Linear(config.hidden, config.hidden, bias=False),
            "readout": nn.Linear(config.hidden, 1024),
        }
    )
    scale = nn.Parameter(torch.tensor(np.log(10.0), dtype=torch.float32))
    model.register_parameter("scale", scale)
    bank = make_bank(tokenizer, config)
    spread = bank.target.std(0).clamp(min=0.05)
    objects_of: list[list[int]] = [[] for _ in range(config.bank)]
    for row, index in enumerate(bank.owner.tolist()):
        objects_of[index].append(row)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=0.01)
    training = Training(Run(RUNS / "text_encoder", config), model, [optimizer])
    for step in training.steps(config.steps, every=config.save_every):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        pick = torch.randperm(config.bank, generator=generator)[: config.batch]
        rows = [row for index in pick.tolist() for row in objects_of[index]]
        local = {index: place for place, index in enumerate(pick.tolist())}
        output = model["text"](bank.ids[pick])
        text = F.normalize(model["project"](output.pooler_output), dim=-1)
        image = F.normalize(model["image"](bank.images[pick]), dim=-1)
        logits = scale.exp().clamp(max=100) * text @ image.T
        labels = torch.arange(len(pick))
        contrastive = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
        places = torch.tensor([local[index] for index in bank.owner[rows].tolist()])
        states = output.last_hidden_state[places, bank.position[rows]]
        error = (model["readout"](states) - bank.target[rows]) / spread
        loss = contrastive + config.readout * error.square().mean()
        falling = min((step + 1) / 100, 0.5 + 0.5 * np.cos(np.pi * step / config.steps))
        training.update(loss, falling)
        accuracy = (logits.argmax(-1) == labels).float().mean().item()
        training.log(25, contrastive=contrastive.item(), readout=error.square().mean().item(), accuracy=accuracy)
    model["text"].half().save_pretrained(MODEL / "text_encoder")
    (RUNS / "text_encoder" / "words.json").write_text(json.dumps(vocabulary_words()))
    print(f"saved {MODEL / 'text_encoder'}")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    main()
