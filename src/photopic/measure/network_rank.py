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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from photopic.core.errors import DataError
from photopic.core.results import Report, provenance
from photopic.measure._classification_dimension import classification_dimension
from photopic.measure._common import Measuring, finished
from photopic.measure._layer_ranks import (
    TOOLS,
    NetworkRankConfig,
    Ranks,
    Tool,
    free_patch,
    jacobian_ranks,
    perturbation_ranks,
)

if TYPE_CHECKING:
    from photopic.models.classifier import Classifier

__all__ = [
    "TOOLS",
    "NetworkRankConfig",
    "Ranks",
    "Tool",
    "classification_dimension",
    "free_patch",
    "jacobian_ranks",
    "network_rank",
    "perturbation_ranks",
    "trace_network_rank",
]

DEFAULTS = NetworkRankConfig()


def network_rank(
    model: Classifier,
    images: Any,
    *,
    labels: Sequence[int] | None = None,
    config: NetworkRankConfig = DEFAULTS,
) -> Report:
    """Dimensions at each layer by the Jacobian and by noise, and those that the classification needs.

    Args:
        model: The classifier; it is left byte for byte as it was.
        images: What ``Classifier.logits`` takes. The Jacobian and the noise look at the first few, see the config.
        labels: The true class of each image, an index of ``model.labels``; None judges the classification dimension by the
            model's own predictions.
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
    return finished(trace_network_rank(model, images, labels=labels, config=config))


def trace_network_rank(
    model: Classifier,
    images: Any,
    *,
    labels: Sequence[int] | None = None,
    config: NetworkRankConfig = DEFAULTS,
) -> Iterator[Measuring]:
    """``network_rank`` step by step; the last event carries the report. Args, raises: as there.

    Example:
        >>> events = list(trace_network_rank(model, images))  # doctest: +SKIP
    """
    if len(images) == 0:
        raise DataError("images: expected at least one, found none")
    layers = model.blocks if config.layers is None else model.layers(*config.layers)
    rows: list[dict[str, Any]] = []
    values: dict[str, Any] = {}
    counts = {"jacobian": config.images, "perturbation": config.perturbed_images}
    ranks: dict[str, Callable[..., Iterator[Ranks]]] = {"jacobian": jacobian_ranks, "perturbation": perturbation_ranks}
    for tool in (tool for tool in ranks if tool in config.tools):
        pixels = model.preprocess(images[: counts[tool]])
        for event in ranks[tool](model.network, pixels, layers, config):
            yield Measuring(tool, event.done, event.total)
        rows += event.rows
        values |= event.values
    if "classification" in config.tools:
        yield Measuring("classification", 0, len(images))
        head = model.head
        bias = torch.zeros(head.out_features) if head.bias is None else head.bias.cpu()
        features = model.features(images)
        values["classification"] = classification_dimension(features, head.weight.cpu(), bias, labels, keep=config.keep)
    facts = {"model": model.name, "digest": model.digest(), "images": len(images), "device": str(model.device)}
    report = Report(
        "network rank", values, tuple(rows), provenance("measure.network_rank", config=asdict(config), **facts)
    )
    yield Measuring("done", 1, 1, report=report)
