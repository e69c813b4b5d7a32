"""NormGrad: where in a picture a network would learn from it, by the norms of what each position adds to a layer's gradient.

Put a 1 x 1 convolution that is the identity behind a layer: its gradient is a sum over positions of products g_u x_u', and the
Frobenius norm of a position's term is |x_u| |g_u|. Nothing cancels between channels, so early layers say something too.

Paper: There and Back Again: Revisiting Backpropagation Saliency Methods (arXiv:2004.02866). Changed: the gradient is that of the
logit, as in Grad-CAM; the inner step of the meta maps is not differentiated through. Claims: ``normgrad.*`` of
benchmarks/locate/attribution.py; exact facts in tests/locate/attribution/test_normgrad.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Map
from photopic.data.class_folder import ClassFolder
from photopic.locate.attribution._common import (
    Grid,
    activations_and_gradients,
    as_map,
    attributed,
    last_layer,
    named_classes,
)
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images, batched

Positions = Float[Tensor, "n rows columns"]
# of a virtual identity behind the layer, what a position adds to the norm of its gradient
VIRTUAL: Mapping[str, Callable[[Grid, Grid], Positions]] = {
    "convolution": lambda x, g: x.norm(dim=1) * g.norm(dim=1),  # |g_u x_u'|_F
    "scaling": lambda x, g: (x * g).norm(dim=1),  # a factor a channel
    "bias": lambda x, g: g.norm(dim=1),  # the gradient alone
}


@dataclass(frozen=True, kw_only=True)
class NormGradConfig(Config):
    """How to look."""

    # layers to look at, such as vit.layers.4; of several the geometric mean is shown; by default the last block with positions
    layers: Annotated[tuple[str, ...] | None, Flags("--layer")] = None
    virtual: Literal["convolution", "scaling", "bias"] = (
        "convolution"  # identity whose gradient is measured; published: the first
    )
    centred: bool = False  # explain how far a logit stands above the mean of all, which is all that softmax sees of it
    # size of a step down the picture's own loss before it is looked at again: maps depend more on the class asked for; 0 takes none
    meta: Annotated[float, Ge(0)] = 0.0


@method(
    paper="arXiv:2004.02866",
    claims="normgrad.",
    command="locate normgrad",
    examples=("Example: photopic locate normgrad emoji-resnet-64-0 pictures/ --class bear -o out/",),
)
def normgrad(
    model: Classifier,
    images: ClassFolder | Images,
    *,
    classes: Annotated[Sequence[str] | None, Flags("--class")] = None,
    config: NormGradConfig = NormGradConfig(),
) -> Steps[Map]:
    """Where each picture would move a classifier, at any layer or several: one map a picture and class.

    Args:
        model: A classifier: a bundled name, a folder of transformers, a hub id, or module:factory.
        images: A folder, or what ``Classifier.logits`` takes.
        classes: A class to look for; several times. By default those that the model names in some picture.
        config: How to look.

    Returns:
        Values (pictures, classes, rows, columns), none negative, on the finest grid of the layers.

    Raises:
        DataError: If there is no picture.
        ModelError: If there is no such class or layer, or a layer has no positions on which the logits depend.

    Example:
        >>> normgrad(model, images, classes=["bear"]).values.shape  # doctest: +SKIP
        (3, 1, 4, 4)
    """
    rule = VIRTUAL[config.virtual]
    if config.meta == 0:
        found = []
        for layer in config.layers or (None,):
            found.append((yield from attributed(model, images, classes, layer, rule, centred=config.centred)))
        layers = [each.provenance["layer"] for each in found]
        values = combined([torch.from_numpy(each.values) for each in found]).numpy()
        return Map(values, found[0].labels, {"layers": layers}, found[0].images)
    return (yield from _after_a_step(model, batched(images), classes, config))


def combined(maps: Sequence[Float[Tensor, "n classes _ _"]]) -> Float[Tensor, "n classes rows columns"]:
    """The geometric mean of maps of several layers, each enlarged to the finest grid; 0 where one of them is 0.

    Example:
        >>> combined([torch.full((1, 1, 1, 1), 4.0), torch.full((1, 1, 2, 2), 9.0)]).flatten().tolist()
        [6.0, 6.0, 6.0, 6.0]
    """
    if len(maps) == 1:
        return maps[0]
    size = max((tuple(each.shape[-2:]) for each in maps), key=np.prod)
    large = [F.interpolate(each, size, mode="bilinear", align_corners=False) for each in maps]
    return torch.stack(large).log().mean(0).exp()  # exp of log 0 is 0 again


def _after_a_step(
    model: Classifier, images: Images, classes: Sequence[str] | None, config: NormGradConfig
) -> Steps[Map]:
    """Maps of a network that went one step down the loss of the picture and class looked at; a copy takes the step."""
    if len(images) == 0:
        raise DataError("images: expected at least one, found none")
    named = named_classes(model, images) if classes is None else tuple(classes)
    indices = model.class_indices(named)
    layers = config.layers or (last_layer(model, model.preprocess(images[:1]), indices[0]),)
    rule, maps, shown = VIRTUAL[config.virtual], [], []
    moving = copied(model)
    for number in range(len(images)):
        pixels, row = model.preprocess(images[number : number + 1]), []
        for index in indices:
            step_down(moving, model, pixels, index, config.meta)
            grids = [
                activations_and_gradients(moving, pixels, [index], each, centred=config.centred) for each in layers
            ]
            row.append(combined([rule(x, gradients[0])[:, None] for x, gradients in grids]))  # (1, 1, rows, columns)
        maps.append(torch.cat(row, 1))
        shown.append(model.pictures(pixels))
        yield Event("looking", number + 1, len(images))
    return as_map(maps, named, shown, layers=list(layers))


def copied(model: Classifier) -> Classifier:
    """The classifier around a network of its own, whose weights may move."""
    network = copy.deepcopy(model.network)
    return Classifier(network, preprocess=model.preprocess, labels=model.labels, name=model.name, head=model.head_name)


def step_down(
    moving: Classifier, model: Classifier, pixels: Float[Tensor, "1 channels height width"], index: int, size: float
) -> None:
    """Put a copy at its model's weights and then one step of gradient descent down -log p(class) of a picture."""
    weights = [each for each in moving.network.parameters() if each.is_floating_point()]
    bases = [each for each in model.network.parameters() if each.is_floating_point()]
    with torch.no_grad():
        for weight, base in zip(weights, bases, strict=True):
            weight.copy_(base)
    with torch.enable_grad():
        moving.network.requires_grad_(True)
        loss = F.cross_entropy(moving.forward(pixels), torch.tensor([index], device=pixels.device))
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    moving.network.requires_grad_(False)
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            weight.sub_(size * gradient)  # theta - epsilon grad l
