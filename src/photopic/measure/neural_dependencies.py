"""Neural dependencies: classes whose logit is, up to a small error, a linear combination of a few other classes' logits.

For every class i the sparse theta (theta_i = -1) with the least theta' Sigma theta + lambda ||theta||_1 is found along a path of
lambda, Sigma being the covariance of the logits, and judged on samples that neither the fit nor the choice of lambda has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from photopic.core.results import Report

if TYPE_CHECKING:
    from photopic.models.classifier import Classifier

Centring = Literal["standardised", "centred", "raw"]


@dataclass(frozen=True)
class DependencyConfig:
    """How to look; every field is written into the report."""

    error: float = 0.05  # relative error of a class's logit at which it counts as dependent
    lambdas: int = 20  # length of the path
    smallest: float = 1e-3  # last lambda of the path over the first
    centring: Centring = "standardised"  # of the logits; raw is the second moment, the formula to the letter
    gauge: bool = False  # subtract each sample's mean over the classes
    shares: tuple[float, float] = (0.2, 0.2)  # of the samples: to choose lambda by, and to judge on; the rest is fitted
    seed: int = 0  # of the split
    tolerance: float = 1e-6  # duality gap at which a solution is done, relative to the variance of its logit
    batch: int = 64  # images a forward pass


@dataclass(frozen=True)
class DependencyProgress:
    """One event of ``trace_dependencies``; the last one carries the report.

    Attributes:
        stage: ``reading``, ``solving``, ``judging`` or ``done``.
        done: Images or classes finished of this stage.
        total: Images or classes of this stage.
        warning: One line the user should see, or empty.
        report: With the last event only.
    """

    stage: str
    done: int = 0
    total: int = 0
    warning: str = ""
    report: Report | None = None


def dependencies(
    model: Classifier,
    images: Any,
    *,
    labels: Sequence[int] | None = None,
    other: Classifier | None = None,
    config: DependencyConfig = DependencyConfig(),
) -> Report:
    """Which classes are sums of a few others, inside one network or of another network's classes.

    Args:
        model: Its classes are the targets, and the predictors unless ``other`` is given.
        images: What ``Classifier.logits`` takes; at least five times as many as classes is advised.
        labels: The true class of each image, an index of ``model.labels``; None leaves accuracies out.
        other: The network whose classes are the predictors.
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
        >>> dependencies(model, images, labels=labels).values["median_support"]  # doctest: +SKIP
        9
    """
    *_, last = trace_dependencies(model, images, labels=labels, other=other, config=config)
    assert last.report is not None
    return last.report


def trace_dependencies(
    model: Classifier,
    images: Any,
    *,
    labels: Sequence[int] | None = None,
    other: Classifier | None = None,
    config: DependencyConfig = DependencyConfig(),
) -> Iterator[DependencyProgress]:
    """``dependencies`` step by step; the last event carries the report.

    Args, raises: as ``dependencies``.

    Yields:
        One event every few batches and classes.

    Example:
        >>> events = list(trace_dependencies(model, images))  # doctest: +SKIP
    """
    raise NotImplementedError
