"""Activations and gradients at a layer of a classifier, laid out over the picture, and the maps that a rule makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.core.events import Event, Steps
from photopic.core.nn.hooks import rewrite
from photopic.core.results import Map
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images, batched

BATCH = 32  # pictures at a time; each takes one backward pass a class
Grid = Float[Tensor, "n units rows columns"]
Rule = Callable[[Grid, Grid], Float[Tensor, "n rows columns"]]  # activations, gradients of one class -> maps


def attributed(
    model: Classifier,
    images: Images,
    classes: Sequence[str] | None,
    layer: str | None,
    rule: Rule,
    *,
    centred: bool = False,
) -> Steps[Map]:
    """The map that a rule makes of the activations and gradients at a layer, for each picture and class.

    Args:
        model: The classifier.
        images: What ``Classifier.logits`` takes.
        classes: Asked for, by name; None: those that the model names in some picture.
        layer: Dotted name of a submodule; None: the last block that has positions on which the logits depend.
        rule: From activations and the gradient of one class's logits by them to one map a picture.
        centred: Whether each logit is taken above the mean of all; softmax sees no more of it than that.

    Raises:
        DataError: If there is no picture.
        ModelError: If there is no such class or layer, or the layer has no positions on which the logits depend.
    """
    images = batched(images)
    if len(images) == 0:
        raise DataError("images: expected at least one, found none")
    named = named_classes(model, images) if classes is None else tuple(classes)
    indices = model.class_indices(named)
    chosen = layer if layer is not None else last_layer(model, model.preprocess(images[:1]), indices[0])
    maps, shown = [], []
    for start in range(0, len(images), BATCH):
        pixels = model.preprocess(images[start : start + BATCH])
        found = activations_and_gradients(model, pixels, indices, chosen, centred=centred)
        maps.append(torch.stack([rule(found[0], gradient) for gradient in found[1]], 1))  # (n, classes, rows, columns)
        shown.append(model.pictures(pixels))  # as the network saw them, cut and resized
        yield Event("looking", min(start + BATCH, len(images)), len(images))
    if not any(bool(each.any()) for each in maps):
        said = "every map is empty: nothing at this layer raises the logits asked for"
        advice = "--no-relu shows what lowers them" + (
            "" if centred else ", --centred what raises them above the others"
        )
        warnings.warn(f"layer {chosen}: {said}; {advice}", stacklevel=2)
    return as_map(maps, named, shown, layer=chosen)


def activations_and_gradients(
    model: Classifier,
    pixels: Float[Tensor, "n channels height width"],
    classes: Sequence[int],
    layer: str,
    *,
    centred: bool = False,
) -> tuple[Grid, list[Grid]]:
    """What a layer puts out, and for each class the gradient of its logit by that, laid out over the picture.

    Args:
        model: The classifier; none of its weights gets a gradient.
        pixels: As ``Classifier.preprocess`` makes them.
        classes: Indices of logits.
        layer: Dotted name of a submodule that runs once and puts out feature maps or tokens.
        centred: Whether each logit is taken above the mean of all.

    Raises:
        ModelError: If there is no such layer, it has no positions, or the logits do not depend on them.
    """
    kept: list[Tensor] = []

    def keep(name: str, value: Any) -> Any:
        first = value[0] if isinstance(value, tuple) else value
        if not isinstance(first, Tensor) or not first.is_floating_point():
            raise ModelError(f"layer {name}: puts out a {type(first).__name__}, expected numbers; choose another layer")
        kept.append(first.detach().requires_grad_())
        passed = kept[-1].clone()  # what comes next may write into it in place
        return (passed, *value[1:]) if isinstance(value, tuple) else passed

    with torch.enable_grad(), rewrite(model.network, _exact(layer), function=keep):
        logits = model.forward(pixels)  # (n, classes)
        logits = logits - logits.mean(1, keepdim=True) if centred else logits
    if len(kept) != 1:
        raise ModelError(f"layer {layer}: runs {len(kept)} times in one pass, expected once; choose another layer")
    size = (pixels.shape[-2], pixels.shape[-1])
    if not logits.requires_grad:
        raise ModelError(f"layer {layer}: the logits do not depend on it; choose one before")
    totals = [logits[:, each].sum() for each in classes]  # pictures do not see each other: one pass for all of them
    gradients = [_grid(torch.autograd.grad(each, kept, retain_graph=True)[0], size, layer) for each in totals]
    if not any(bool(each.any()) for each in gradients):
        raise ModelError(f"layer {layer}: the logits do not depend on its positions; choose a layer before it")
    return _grid(kept[0].detach(), size, layer), gradients


def last_layer(model: Classifier, pixels: Float[Tensor, "1 channels height width"], index: int) -> str:
    """The last of the model's blocks that has positions on which a logit depends; of a ViT that reads its class token, the
    last but one.

    Raises:
        ModelError: If none has.
    """
    for name in reversed(model.blocks):
        try:
            activations_and_gradients(model, pixels, [index], name)
        except ModelError:
            continue
        return name
    raise ModelError(f"{model.name}: none of its blocks has positions, as feature maps or tokens have; name a layer")


def named_classes(model: Classifier, images: Images) -> tuple[str, ...]:
    """The class that the model names in each picture, every one once, in the order of its labels."""
    return tuple(model.labels[index] for index in model.logits(images).argmax(1).unique().tolist())


def as_map(
    values: Sequence[Float[Tensor, "_ classes rows columns"]],
    labels: Sequence[str],
    images: Sequence[UInt8[np.ndarray, "_ height width 3"]],
    **provenance: Any,
) -> Map:
    """A result of batches of maps and of the pictures they belong to, as the network reads them.

    Raises:
        DataError: If pictures differ in size.
    """
    sizes = sorted({each.shape[1:3] for each in images})
    if len(sizes) > 1:
        raise DataError(f"images: expected one size, found {sizes[0]} and {sizes[1]}; resize them before")
    return Map(torch.cat(list(values)).float().cpu().numpy(), tuple(labels), provenance, np.concatenate(images))


def _exact(layer: str) -> str:
    """A name as a pattern that matches it alone."""
    return layer.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def _grid(values: Tensor, size: tuple[int, int], layer: str) -> Grid:
    """Feature maps as they are, (n, units, rows, columns); tokens (n, tokens, width) without those that are no patch."""
    if values.ndim == 3:
        height, width = size
        # the smallest patch whose grid fits into the tokens; more tokens than that are no patches
        patch = next(side for side in range(1, max(size) + 1) if (height // side) * (width // side) <= values.shape[1])
        shape = (height // patch, width // patch)
        # (n, tokens, width) -> (n, patches, width) -> (n, width, rows, columns)
        patches = values[:, values.shape[1] - prod(shape) :]  # class and register tokens come first
        values = patches.mT.unflatten(2, shape) if prod(shape) else values
    if values.ndim != 4 or prod(values.shape[2:]) < 2:
        raise ModelError(
            f"layer {layer}: puts out {tuple(values.shape)}, which has no positions; choose a layer before it"
        )
    return values
