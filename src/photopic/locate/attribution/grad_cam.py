"""Grad-CAM: where in a picture a classifier sees a class, by the channels of a layer that raise the class's logit.

Each channel of the layer is weighted by the mean gradient of the logit over its positions; the weighted sum of the channels,
without what speaks against the class, is the map. Tokens of a transformer are laid out as the patches they stand for.

Paper: Grad-CAM (arXiv:1610.02391). Changed: without a layer the last block is taken that has positions on which the logit
depends, which in a ViT that reads its class token is the last but one. Claims: ``grad_cam.*`` of
benchmarks/locate/attribution.py; exact facts in tests/locate/attribution/test_grad_cam.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config, Flags
from photopic.core.events import Steps
from photopic.core.method import method
from photopic.core.results import Map
from photopic.data.class_folder import ClassFolder
from photopic.locate.attribution._common import Grid, attributed
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images


@dataclass(frozen=True, kw_only=True)
class GradCAMConfig(Config):
    """How to look."""

    # name of the layer to look at, such as vit.layers.4; by default the last block with positions on which the logits depend
    layer: str | None = None
    # explain how far a logit stands above the mean of all, which is all that softmax sees of it; where all logits are negative,
    # as in the bundled ResNets, the published maps are empty
    centred: bool = False
    relu: bool = True  # keep only what speaks for the class, as published; without, what speaks against it is negative


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
        ModelError: If there is no such class or layer, or the layer has no positions on which the logits depend.

    Example:
        >>> grad_cam(model, images, classes=["bear"]).values.shape  # doctest: +SKIP
        (3, 1, 4, 4)
    """

    def rule(activations: Grid, gradients: Grid) -> Float[Tensor, "n rows columns"]:
        weights = gradients.mean((2, 3), keepdim=True)  # Eq. 1: alpha, (n, units, 1, 1)
        summed = (weights * activations).sum(1)  # Eq. 2: (n, rows, columns)
        return summed.relu() if config.relu else summed

    return (yield from attributed(model, images, classes, config.layer, rule, centred=config.centred))
