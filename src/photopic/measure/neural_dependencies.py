"""Neural dependencies: classes whose logit is, up to a small error, a linear combination of a few other classes' logits.

For every class i the sparse theta (theta_i = -1) with the least theta' Sigma theta + lambda ||theta||_1 is found along a path of
lambda, Sigma being the covariance of the logits, and judged on images that neither the fit nor the choice of lambda has seen.

Paper: Neural Dependencies Emerging from Learning Massive Categories (arXiv:2211.12339). No code of it is public: the formula is as
section 4 of the specification reconstructs it. Chosen here: logits standardised unless asked otherwise, lambda chosen on images of
its own, errors relative to the variance of the logit, so that predicting the mean has error 1. With more classes than the head has
inputs exact dependencies are algebra: only sparse ones, on held-out images, say anything. Claims: ``dependencies.*`` and
``covlasso.*`` of benchmarks/measure/dependencies.py and benchmarks/measure/covlasso.py; identities in
tests/core/numerics/test_lasso_path.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float

from photopic.core.config import Flags
from photopic.core.digests import plain
from photopic.core.errors import DataError, ModelError
from photopic.core.events import Steps, finished
from photopic.core.method import method
from photopic.core.results import Report, provenance
from photopic.data.class_folder import ClassFolder
from photopic.measure._common import true_classes
from photopic.measure._dependency_graph import dependency_graph, draw_graph, save_graph
from photopic.measure._dependency_search import DependencyConfig, Source, search
from photopic.measure._neural_dependencies_view import dependencies_view
from photopic.measure._new_class import NewClass, new_class
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images

__all__ = [
    "DependencyConfig",
    "NewClass",
    "dependency_graph",
    "draw_graph",
    "logit_dependencies",
    "neural_dependencies",
    "new_class",
    "save_graph",
]


@method(
    paper="arXiv:2211.12339",
    claims="dependencies. covlasso.",
    command="measure dependencies",
    examples=(
        "Example: photopic measure dependencies emoji-resnet-64-0 pictures/ -o dependencies.html",
        "Between networks: photopic measure dependencies emoji-resnet-64-0 pictures/ --other emoji-vit-64-0",
    ),
    view=dependencies_view,
)
def neural_dependencies(
    model: Classifier,
    images: ClassFolder | Images,
    *,
    labels: Annotated[Sequence[int] | None, Flags()] = None,
    other: Classifier | None = None,
    config: DependencyConfig = DependencyConfig(),  # noqa: B008 (frozen)
) -> Steps[Report]:
    """Which classes are sums of a few others, inside one network or of another network's classes.

    Give five times as many pictures as there are classes; with sub-folders of classes the report also says what accuracy is
    left when a class's logit is replaced by the sum.

    Args:
        model: A classifier: a bundled name, a folder of transformers, a hub id, or module:factory. Its classes are the
            targets, and the predictors unless another is given.
        images: A folder, or what ``Classifier.logits`` takes.
        labels: The true class of each image, an index of ``model.labels``; None takes those of a folder, and without any
            leaves accuracies out.
        other: Another classifier whose classes are the predictors.
        config: How to look.

    Returns:
        One row a class: ``class``, ``dependent`` (whether the error was reached on the held-out images), ``lambda``,
        ``support`` (class names) and ``theta`` (on the scale of the logits), ``offset`` (to add to the sum),
        ``train_error`` and ``held_out_error`` (relative to the held-out variance of the logit), the baselines
        ``predict_mean_error``, ``best_single_class`` and ``best_single_error``, with labels ``recall``,
        ``recall_replaced``, ``accuracy_replaced`` (the logit replaced by the sum), and the ``path``.

    Raises:
        DataError: If there are too few images, logits are not finite, or every logit is constant.
        ModelError: If a network's logits do not fit its labels.

    Example:
        >>> neural_dependencies(model, images, labels=labels).values["median_support"]  # doctest: +SKIP
        9
    """
    said = []
    if other is not None and len(other.labels) != len(model.labels):
        raise ModelError(
            f"{other.name}: {len(other.labels)} classes, but {model.name} has {len(model.labels)}; "
            "between networks the classes have to be the same, in one order"
        )
    if other is not None and other.labels != model.labels:
        at = next(i for i, pair in enumerate(zip(model.labels, other.labels, strict=True)) if pair[0] != pair[1])
        said.append(f"class {at} is {model.labels[at]!r} in {model.name} and {other.labels[at]!r} in {other.name}")

    def read(at: np.ndarray) -> tuple[Any, Any]:
        pictures: Any = images
        batch = [pictures[int(index)] for index in at] if isinstance(pictures, list | tuple) else pictures[at]
        return model.logits(batch, batch=config.batch), other and other.logits(batch, batch=config.batch)

    about = {"other": other and other.name, "head_width": model.head.in_features if model.shows_layers else None}
    truth = true_classes(model, images, labels)
    source = Source(read, len(images), model.labels, other.labels if other else None, truth, about, tuple(said))
    return (yield from search(source, config))


def logit_dependencies(
    logits: Float[np.ndarray, "samples classes"],
    *,
    names: Sequence[str] | None = None,
    labels: Sequence[int] | None = None,
    other: Float[np.ndarray, "rows predictors"] | None = None,
    config: DependencyConfig = DependencyConfig(),  # noqa: B008 (frozen)
) -> Report:
    """``neural_dependencies`` of logits that are already there.

    Args:
        logits: Of the targets.
        names: Of the classes; None numbers them.
        labels: True classes.
        other: Another network's logits of the same samples, whose classes are the predictors.
        config: How to look.

    Raises:
        DataError: As ``neural_dependencies``.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(400, 6))
        >>> rows[:, 0] = rows[:, 1] - rows[:, 2]
        >>> sorted(logit_dependencies(rows).rows[0]["support"])
        ['1', '2']
    """
    if other is not None and len(other) != len(logits):
        raise DataError(f"two networks: expected logits of the same samples, found {len(logits)} and {len(other)}")
    named = tuple(names) if names is not None else tuple(map(str, range(logits.shape[1])))
    if len(named) != logits.shape[1]:
        raise DataError(f"logits of {logits.shape[1]} classes: expected as many names, found {len(named)}")
    predictors = None if other is None else named if other.shape[1] == len(named) else ()
    if predictors == ():
        predictors = tuple(map(str, range(other.shape[1])))  # type: ignore[union-attr]
    source = Source(
        lambda at: (logits[at], None if other is None else other[at]), len(logits), named, predictors, labels, {}
    )
    report = finished(search(source, config))
    for line in report.values["warnings"]:
        warnings.warn(line, stacklevel=2)
    facts = provenance("measure.neural_dependencies.logit_dependencies", config=plain(config))
    return replace(report, provenance={**facts, **report.provenance})
