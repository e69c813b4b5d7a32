"""Grad-CAM: where in a picture a classifier sees a class, by the channels of a layer that raise the class's logit.

Each channel of the layer is weighted by the mean gradient of the logit over its positions; the weighted sum of the channels,
without what speaks against the class, is the map. Tokens of a transformer are laid out as the patches they stand for.

Guided, the map is multiplied with guided back-propagation, the gradient by the pixels without what is negative at any ReLU, so
that it is as fine as the picture. The weights alpha also name the channels that stand for a class.

Paper: Grad-CAM (arXiv:1610.02391). Changed: without a layer the last block is taken that has positions on which the logit
depends, which in a ViT that reads its class token is the last but one. Claims: ``grad_cam.*`` of
benchmarks/locate/attribution.py; exact facts in tests/locate/attribution/test_grad_cam.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.config import Config, Flags
from photopic.core.errors import ModelError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.nn.hooks import rewrite
from photopic.core.results import Map
from photopic.data.class_folder import ClassFolder
from photopic.locate.attribution._common import Grid, attributed
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images, batched


@dataclass(frozen=True, kw_only=True)
class GradCAMConfig(Config):
    """How to look."""

    # name of the layer to look at, such as vit.layers.4; by default the last block with positions on which the logits depend
    layer: str | None = None
    # explain how far a logit stands above the mean of all, which is all that softmax sees of it; where all logits are negative,
    # as in the bundled ResNets, the published maps are empty
    centred: bool = False
    relu: bool = True  # keep only what speaks for the class, as published; without, what speaks against it is negative
    guided: bool = (
        False  # multiply with guided back-propagation: maps as fine as the picture; of networks with ReLU modules
    )
    neurons: Annotated[int, Ge(0)] = 0  # channels of the layer that raise each class most, written into the provenance


@method(
    paper="arXiv:1610.02391",
    claims="grad_cam.",
    examples=("Example: photopic locate grad-cam emoji-resnet-64-0 pictures/ --class bear --centred -o out/",),
)
def grad_cam(
    model: Classifier,
    images: ClassFolder | Images,
    *,
    classes: Annotated[Sequence[str] | None, Flags("--class")] = None,
    config: GradCAMConfig = GradCAMConfig(),
) -> Steps[Map]:
    """Where in each picture a classifier sees a class: one map a picture and class.

    Args:
        model: A classifier: a bundled name, a folder of transformers, a hub id, or module:factory.
        images: A folder, or what ``Classifier.logits`` takes.
        classes: A class to look for; several times. By default those that the model names in some picture.
        config: How to look.

    Returns:
        Values (pictures, classes, rows, columns) in the unit of the logits, on the grid of the layer.

    Raises:
        DataError: If there is no picture.
        ModelError: If there is no such class or layer, the layer has no positions on which the logits depend, or a network
            without ReLU modules is to be guided.

    Example:
        >>> grad_cam(model, images, classes=["bear"]).values.shape  # doctest: +SKIP
        (3, 1, 4, 4)
    """

    alphas: list[Float[Tensor, "n units"]] = []  # of each batch and class in turn

    def rule(activations: Grid, gradients: Grid) -> Float[Tensor, "n rows columns"]:
        weights = gradients.mean((2, 3), keepdim=True)  # Eq. 1: alpha, (n, units, 1, 1)
        alphas.append(weights.flatten(1))
        summed = (weights * activations).sum(1)  # Eq. 2: (n, rows, columns)
        return summed.relu() if config.relu else summed

    found = yield from attributed(model, images, classes, config.layer, rule, centred=config.centred)
    if config.neurons:
        # alternating by class within a batch: (classes, pictures, units) -> mean over pictures
        means = [torch.cat(alphas[place :: len(found.labels)]).mean(0) for place in range(len(found.labels))]
        named = {label: _largest(mean, config.neurons) for label, mean in zip(found.labels, means, strict=True)}
        found = replace(found, provenance={**found.provenance, "neurons": named})
    if not config.guided:
        return found
    slopes = yield from guided_gradients(model, batched(images), found.labels)
    coarse = F.interpolate(torch.from_numpy(found.values), slopes.shape[-2:], mode="bilinear", align_corners=False)
    return replace(found, values=(coarse * slopes).numpy())


def guided_gradients(
    model: Classifier, images: Images, classes: Sequence[str]
) -> Steps[Float[Tensor, "n classes height width"]]:
    """Guided back-propagation: how much each pixel raises each class along paths that raise it at every ReLU; none negative.

    Args:
        model: A network with ReLU modules.
        images: As ``grad_cam`` takes them.
        classes: By name.

    Raises:
        ModelError: If the network has no ReLU module, whose gradients could be guided.
    """
    if not (names := [name for name, part in model.network.named_modules() if isinstance(part, nn.ReLU)]):
        raise ModelError(f"{model.name}: --guided: expected ReLU modules in the network, found none; leave it out")

    def guide(name: str, value: Tensor) -> Tensor:
        passed = value.clone()  # a later module may write into it in place
        passed.register_hook(lambda slope: slope.clamp(min=0))  # a ReLU itself stops what is negative going forward
        return passed

    found: list[Tensor] = []
    for number in range(len(images)):
        pixels = model.preprocess(images[number : number + 1]).requires_grad_()
        with torch.enable_grad(), rewrite(model.network, *names, function=guide):
            logits = model.forward(pixels)[0, model.class_indices(classes)]  # (classes,)
            slopes = [torch.autograd.grad(each, pixels, retain_graph=True)[0] for each in logits]
        found.append(torch.cat(slopes).clamp(min=0).sum(1)[None].cpu())  # over colours: (1, classes, height, width)
        yield Event("guiding", number + 1, len(images))
    return torch.cat(found).float()


def _largest(means: Float[Tensor, " units"], count: int) -> list[list[Any]]:
    """(channel, alpha) of the channels that raise a class most."""
    values, units = means.topk(min(count, len(means)))
    return [[unit, round(value, 6)] for unit, value in zip(units.tolist(), values.tolist(), strict=True)]
