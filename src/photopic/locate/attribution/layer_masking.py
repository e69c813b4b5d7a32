"""Layer masking and LIME: which parts of a picture a classifier needs, by leaving parts out without a fill colour to be seen.

The picture is cut into cells. The network sees many random subsets of them by layer masking, and a weighted linear model is fitted
from which cells were there to the probability of the class; its coefficients are the map.

Papers: Towards Improved Input Masking for Convolutional Neural Networks (arXiv:2211.14646), LIME (arXiv:1602.04938). Changed: cells
of a grid in the place of superpixels. Claims: ``layer_masking.*`` of benchmarks/locate/attribution.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.nn.hooks import rewrite, tap
from photopic.core.nn.layer_masking import dropped_tokens, masked_layers
from photopic.core.results import Map
from photopic.data.class_folder import ClassFolder
from photopic.locate.attribution._common import as_map, named_classes
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images, batched

BATCH = 64  # masks at a time
Masks = Float[Tensor, "masks 1 height width"]
Pixels = Float[Tensor, "1 channels height width"]


@dataclass(frozen=True, kw_only=True)
class LayerMaskingConfig(Config):
    """How to leave parts out."""

    cells: Annotated[int, Ge(2)] = 8  # cells along a side of the picture; no more than the network has patches
    samples: Annotated[int, Ge(2)] = 200  # random subsets of cells that the network sees
    # how cells are left out: layer by layer (layers), or painted over with the mean colour (grey) or the least value (black)
    fill: Literal["layers", "grey", "black"] = "layers"
    width: Annotated[float, Gt(0)] = 0.25  # of the kernel by which subsets near the whole picture count more
    ridge: Annotated[float, Ge(0)] = 1.0  # pull of the coefficients to 0
    seed: Annotated[int, Ge(0)] = 0  # seed of the subsets


@method(
    paper="arXiv:2211.14646",
    claims="layer_masking.",
    command="locate layer-masking",
    examples=("Example: photopic locate layer-masking emoji-resnet-64-0 pictures/ --class bear -o out/",),
)
def layer_masking(
    model: Classifier,
    images: ClassFolder | Images,
    *,
    classes: Annotated[Sequence[str] | None, Flags("--class")] = None,
    config: LayerMaskingConfig = LayerMaskingConfig(),
) -> Steps[Map]:
    """Which parts of each picture a classifier needs for a class, left out without a fill colour: one map a picture and class.

    Args:
        model: A classifier: a bundled name, a folder of transformers, a hub id, or module:factory.
        images: A folder, or what ``Classifier.logits`` takes.
        classes: A class to look for; several times. By default those that the model names in some picture.
        config: How to leave parts out.

    Returns:
        Values (pictures, classes, cells, cells): how much the probability rises with each cell.

    Raises:
        DataError: If there is no picture.
        ModelError: If there is no such class, or the network has neither convolutions nor tokens of patches.

    Example:
        >>> layer_masking(model, images, classes=["bear"]).values.shape  # doctest: +SKIP
        (3, 1, 8, 8)
    """
    images = batched(images)
    if len(images) == 0:
        raise DataError("images: expected at least one, found none")
    named = named_classes(model, images) if classes is None else tuple(classes)
    indices = model.class_indices(named)
    generator = torch.Generator().manual_seed(config.seed)
    there = torch.randint(0, 2, (config.samples, config.cells**2), generator=generator).float()  # (samples, cells)
    there[0] = 1.0  # the whole picture is among them
    maps, shown = [], []
    for number in range(len(images)):
        pixels = model.preprocess(images[number : number + 1])
        masks = enlarged(there, config.cells, (pixels.shape[-2], pixels.shape[-1])).to(pixels)
        logits = torch.cat([seen_through(model, pixels, each, config.fill) for each in masks.split(BATCH)])
        found = fitted(there, logits.softmax(1)[:, indices].cpu(), config)  # (cells, classes)
        maps.append(found.T.reshape(1, len(indices), config.cells, config.cells))
        shown.append(model.pictures(pixels))
        yield Event("looking", number + 1, len(images))
    return as_map(maps, named, shown, fill=config.fill)


@torch.no_grad()
def seen_through(
    model: Classifier, pixels: Pixels, masks: Masks, fill: Literal["layers", "grey", "black"] = "layers"
) -> Float[Tensor, "masks classes"]:
    """Logits of one picture, seen under each mask.

    Args:
        model: A classifier of convolutions, or a transformer of patches.
        pixels: One picture, as ``Classifier.preprocess`` makes it.
        masks: 1 where it is seen.
        fill: What is seen elsewhere: nothing, its mean colour, or its least value.
    """
    many = pixels.expand(len(masks), -1, -1, -1)
    if fill != "layers":
        colour = pixels.mean((2, 3), keepdim=True) if fill == "grey" else pixels.amin()
        return model.forward(masks * many + (1 - masks) * colour).float()
    tokens = _embeddings(model, pixels)
    if not tokens:
        with masked_layers(model.network, masks):
            return model.forward(many).float()
    rows = []
    for mask in masks:  # one at a time: they leave different numbers of tokens

        def drop(name: str, value: Tensor, mask: Tensor = mask) -> Tensor:
            return value[:, dropped_tokens(mask[None], value.shape[1])[0]]  # (1, tokens, width) -> those that are seen

        with rewrite(model.network, tokens, function=drop):
            rows.append(model.forward(pixels).float())
    return torch.cat(rows)


def _embeddings(model: Classifier, pixels: Pixels) -> str:
    """The block of a transformer that puts out its tokens with their positions; empty for a network of feature maps."""
    with tap(model.network, model.blocks[0]) as seen:
        model.forward(pixels)
    value = seen[model.blocks[0]][0]
    return model.blocks[0] if isinstance(value, Tensor) and value.ndim == 3 else ""


def enlarged(there: Float[Tensor, "n cells"], side: int, size: tuple[int, int]) -> Masks:
    """Subsets of cells as masks of a picture's size."""
    return F.interpolate(there.view(-1, 1, side, side), size, mode="nearest")


def fitted(
    there: Float[Tensor, "samples cells"], targets: Float[Tensor, "samples classes"], config: LayerMaskingConfig
) -> Float[Tensor, "cells classes"]:
    """Weighted ridge regression with an intercept that is not pulled: LIME's local model.

    A subset counts by exp(-d^2 / width^2), d its cosine distance to the whole picture.
    """
    cosine = there.mean(1).sqrt()  # <z, 1> / |z| |1| of zeros and ones
    weight = torch.exp(-((1 - cosine) ** 2) / config.width**2)[:, None].double()  # (samples, 1)
    z, y = there.double(), targets.double()
    z, y = z - (weight * z).sum(0) / weight.sum(), y - (weight * y).sum(0) / weight.sum()
    gram = z.T @ (weight * z) + config.ridge * torch.eye(z.shape[1], dtype=torch.float64)  # (cells, cells)
    return torch.linalg.solve(gram, z.T @ (weight * y)).float()
