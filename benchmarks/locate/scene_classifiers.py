"""The bundled classifiers taught to name what is in a scene of two: they learnt one emoji a picture and name neither of two.

All weights go on from the bundled ones, with a new head of ``CLASSES`` classes and a cross-entropy a class, on scenes of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from photopic.data import emoji_world
from photopic.data.scenes import Scene, SceneOptions, sample_scene
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

SEED = 8_100_000
CLASSES, SIDE = 40, 64  # classes of the new head; pixels that are read, so that an emoji has the size it was learnt in
BATCH, RATE = 32, 2e-3


class AnySize(nn.Module):
    """A ViT that reads larger pictures than it learnt from: its positions are interpolated."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.network(pixels, interpolate_pos_encoding=True).logits
        return found


def names_of(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes of the new head: drawn from the known ones that are there in every training style."""
    known = [name for name in labels if set(emoji_world.TRAINING_STYLES) <= set(emoji_world.concept(name).styles)]
    return tuple(sorted(np.random.default_rng(SEED).choice(known, CLASSES, replace=False).tolist()))


def scenes(
    names: Sequence[str], first: int, count: int, *, size: int, objects: Sequence[float] = (0, 1, 0, 0)
) -> list[Scene]:
    """Scenes numbered from ``first``, each by its own seed; of two objects unless told otherwise."""
    options = SceneOptions(concepts=tuple(names), objects=tuple(objects), size=size)  # type: ignore[arg-type]
    return [sample_scene(options, (SEED, first + number)) for number in range(count)]


def untaught(name: str) -> Classifier:
    """A bundled classifier with a new head, drawn by ``SEED``, that reads scenes and names nothing yet."""
    own = Classifier.load(name, "cpu")
    names = names_of(own.labels)
    network = AnySize(own.network) if "vit" in name else own.network
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        head = nn.Linear(own.head.in_features, len(names))
    parent, _, last = own.head_name.rpartition(".")
    setattr(own.network.get_submodule(parent), last, head)
    prepare = Preprocessing(resize=(SIDE, SIDE), mean=(0.75,) * 3, std=(0.25,) * 3)  # as they learnt
    return Classifier(network, preprocess=prepare, labels=names, name=name)


def taught(name: str, *, pictures: int, steps: int) -> Classifier:
    """A bundled classifier that goes on learning on scenes of one to three objects.

    Args:
        name: Of a bundled classifier.
        pictures: Scenes to learn from, the last of all seeds.
        steps: Of ``BATCH`` scenes.
    """
    model = untaught(name)
    names, network = model.labels, model.network
    found = scenes(names, 1_000_000, pictures, size=SIDE, objects=(0.3, 0.5, 0.2, 0))
    pixels = model.preprocess(np.stack([scene.image for scene in found]))
    there = torch.tensor([[each in scene.counts for each in names] for scene in found]).float()  # (pictures, classes)
    network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(SEED)
    weight = torch.tensor(5.0)  # of a class that is there: two of forty are
    for step in range(steps):
        picked = torch.randint(pictures, (BATCH,), generator=generator)
        output = network(pixels[picked])
        loss = functional.binary_cross_entropy_with_logits(
            getattr(output, "logits", output), there[picked], pos_weight=weight
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"{name}: step {step + 1}, loss {loss.item():.3f}", flush=True)
    return Classifier(network, preprocess=model.preprocess, labels=names, name=name)


def seen(model: Classifier, shown: Sequence[Scene]) -> np.ndarray:
    """For each object of each scene whether its class is among the two with the highest logits."""
    top = model.logits([scene.image for scene in shown]).topk(2, 1).indices.tolist()
    named = [{model.labels[each] for each in pair} for pair in top]
    pairs = zip(named, shown, strict=True)
    return np.array([[item.concept in names for item in scene.placements] for names, scene in pairs]).astype(float)
