"""How many dimensions survive at each layer of a classifier, and how many its classification really needs.

Three tools of *Rank Diminishing in Deep Neural Networks* (arXiv:2206.06072): the rank of each layer's Jacobian with respect to a
patch of the input, the dimension of each layer's response to small noise, and the number of principal components of the
features that keep the accuracy. Changed: a "rank" here always names the threshold, relative to the largest singular value, and
the number format behind it, because they decide the number more than the network does; the published threshold
sqrt(min(outputs, free) * 1.19e-7) is one of several. The published classification dimension projects features that are not
centred; the centred one stands beside it. Facts that hold exactly are in tests/measure/test_network_rank.py; the time for a
ViT-B/16 is `rank.vit_b16_seconds`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch

from photopic.core.config import Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.data.class_folder import ClassFolder
from photopic.measure._classification_dimension import classification_dimension
from photopic.measure._common import true_classes
from photopic.measure._layer_ranks import (
    LayerRanks,
    NetworkRankConfig,
    free_patch,
    jacobian_ranks,
    perturbation_ranks,
)
from photopic.measure._network_rank_view import rank_view
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images

__all__ = [
    "LayerRanks",
    "NetworkRankConfig",
    "classification_dimension",
    "free_patch",
    "jacobian_ranks",
    "network_rank",
    "perturbation_ranks",
]


@method(
    paper="arXiv:2206.06072",
    claims="rank.",
    presets={"paper": NetworkRankConfig(jacobian_images=10, perturbed_images=100, samples=5000)},
    command="measure rank",
    examples=(
        "Example: photopic measure rank emoji-resnet-64-0 pictures/ -o rank.html",
        "Exact ranks: photopic measure rank emoji-resnet-64-0 pictures/ --precision float64 --tool jacobian",
    ),
    view=rank_view,
)
def network_rank(
    model: Classifier,
    images: ClassFolder | Images,
    *,
    labels: Annotated[Sequence[int] | None, Flags()] = None,
    config: NetworkRankConfig = NetworkRankConfig(),  # noqa: B008 (frozen)
) -> Steps[Report]:
    """How many dimensions survive at each layer, and how many the classification needs.

    A rank is a count of singular values above a threshold, so the report gives it at several; without sub-folders of classes
    the classification is judged by the model's own predictions.

    Args:
        model: A classifier: a bundled name, a folder of transformers, a hub id, or module:factory. It is left byte for byte as
            it was.
        images: A folder, or what ``Classifier.logits`` takes. The Jacobian and the noise look at the first few, see the config.
        labels: The true class of each image, an index of ``model.labels``; None takes those of a folder, and without any
            judges the classification dimension by the model's own predictions.
        config: How to measure.

    Returns:
        One row a layer, tool and threshold: ``layer``, ``tool``, ``outputs`` and ``inputs`` (copies for the perturbation),
        ``threshold``, ``rule`` (``published`` or ``given``), ``rank`` and ``std`` over the ``images`` (None below ``floor``,
        the smallest threshold that the arithmetic resolves). ``values``: ``classification`` as
        ``classification_dimension`` returns it, ``spectra`` with each layer's mean relative singular values of the
        Jacobian, ``mode``, ``free`` variables.

    Raises:
        DataError: If there is no image, the patch is larger than the input, or labels do not fit.
        ModelError: If a layer does not exist, cannot be differentiated, or puts out NaN.

    Example:
        >>> network_rank(model, images).values["classification"]["centred"]  # doctest: +SKIP
        49
    """
    if len(images) == 0:
        raise DataError("images: expected at least one, found none")
    truth = true_classes(model, images, labels)
    layers = model.blocks if config.layers is None else model.layers(*config.layers)
    rows: list[dict[str, Any]] = []
    values: dict[str, Any] = {}
    ranks: dict[str, tuple[Callable[..., Steps[LayerRanks]], int]] = {
        "jacobian": (jacobian_ranks, config.jacobian_images),
        "perturbation": (perturbation_ranks, config.perturbed_images),
    }
    for tool in (tool for tool in ranks if tool in config.tools):
        measure, count = ranks[tool]
        found = yield from measure(model.network, model.preprocess(images[:count]), layers, config)
        rows += found.rows
        values |= found.values
    if "classification" in config.tools:
        yield Event("classification", 0, len(images))
        head = model.head
        bias = torch.zeros(head.out_features) if head.bias is None else head.bias.cpu()
        features = model.features(images)  # (n, width)
        values["classification"] = classification_dimension(features, head.weight.cpu(), bias, truth, keep=config.keep)
    facts = {"digest": model.digest(), "images": len(images), "classes": len(model.labels)}
    return Report("network rank", values, tuple(rows), facts)
