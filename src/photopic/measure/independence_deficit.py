"""Which classes' logits a few other logits replace: as published, and with what the published fit leaves out.

The independence deficit of *Rank Diminishing in Deep Neural Networks* (arXiv:2206.06072). Published: the logit of class i is
regressed on the others over samples of class i alone, by 5,000 steps of sub-gradient descent on a squared error with an l1
penalty; the p largest weights are kept and errors are relative to the logit. Beside it stand two fits by coordinate descent,
whose zeros are zeros: on the same samples, and on samples of all classes. All three are judged on held-out samples, by the error
over the standard deviation of the logit, since a relative error explodes where a logit is near zero. That fitting the positives
alone looks better than it is, and that a planted dependency is found, is in tests/measure/test_independence_deficit.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int
from torch import Tensor

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.data.class_folder import ClassFolder
from photopic.measure._class_fits import Replacement, judge, path_fits, published_fits
from photopic.measure._common import true_classes
from photopic.measure._independence_deficit_view import deficit_view
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images

__all__ = ["DeficitConfig", "Replacement", "independence_deficit", "published_fits"]

BATCH = 64  # images a forward pass
TOGETHER = 32  # classes fitted at a time


@dataclass(frozen=True, kw_only=True)
class DeficitConfig(Config):
    """How to fit and judge; every field is written into the report."""

    keep: Annotated[int, Ge(1)] = 10  # other classes that may replace one
    # step size of the published descent; by default 1e-5, less for a class where that would diverge
    rate: Annotated[float | None, Gt(0)] = None
    steps: Annotated[int, Ge(1)] = 5000  # steps of the published descent
    penalty: Annotated[float, Ge(0)] = 20.0  # weight of the l1 norm in the published descent
    lambdas: Annotated[int, Ge(1)] = (
        40  # penalties of the exact fits; the last with at most so many others (keep) is taken
    )
    smallest: Annotated[float, Gt(0), Le(1)] = 1e-3  # last of these penalties over the first
    held_out: Annotated[float, Ge(0.01), Le(0.9)] = (
        0.25  # share of each class's pictures that no fit sees and all are judged on
    )
    seed: Annotated[int, Ge(0)] = 0  # seed of that split


@method(
    paper="arXiv:2206.06072",
    claims="deficit.",
    command="measure deficit",
    examples=(
        "Example: photopic measure deficit emoji-resnet-64-0 pictures/ -o deficit.html",
        "Two classes only: photopic measure deficit emoji-resnet-64-0 pictures/ --class bear --class fox",
    ),
    view=deficit_view,
)
def independence_deficit(
    model: Classifier,
    images: ClassFolder | Images,
    *,
    labels: Annotated[Sequence[int] | None, Flags()] = None,
    classes: Annotated[Sequence[str] | None, Flags("--class")] = None,
    config: DeficitConfig = DeficitConfig(),
) -> Steps[Report]:
    """How well a few other classes' logits replace each class's own.

    The published fit looks at pictures of the class alone; beside it stand exact sparse fits on the same pictures and on all,
    every one judged on pictures it has not seen.

    Args:
        model: A classifier: a bundled name, a folder of transformers, a hub id, or module:factory.
        images: A folder with one sub-folder a class, or what ``Classifier.logits`` takes.
        labels: The true class of each image, an index of ``model.labels``; None takes those of a folder.
        classes: A class to replace; several times. All with three pictures or more by default.
        config: How to fit and judge.

    Returns:
        Three rows a class, ``fit`` being ``published``, ``positives`` or ``all samples``: ``class``, ``samples`` fitted,
        ``support`` (class names), ``weights``, ``offset``; ``fit_error`` on the samples fitted, ``error_positives`` and
        ``error_all`` on held-out ones (root mean square over the standard deviation of the logit on all held-out samples);
        the published ``relative_logit_error_*`` and ``relative_softmax_error_*``; ``recall`` and ``false_positives`` (shares of
        held-out samples that are, and are not, of the class), and both ``_replaced``. ``values``: medians by fit.

    Raises:
        DataError: If labels are missing or do not fit, logits are not finite, no class has three images, or the published
            descent diverges.
        ModelError: If the model has no such class.

    Example:
        >>> independence_deficit(model, images, labels=labels).values["all samples"]["error_all"]  # doctest: +SKIP
        0.31
    """
    truth = _checked(true_classes(model, images, labels), len(images), model)
    wanted = range(len(model.labels)) if classes is None else model.class_indices(classes)
    parts = []
    for start in range(0, len(images), BATCH):
        parts.append(model.logits(images[start : start + BATCH]))  # (batch, classes)
        yield Event("reading", min(start + BATCH, len(images)), len(images))
    logits = torch.cat(parts).double()  # (n, classes)
    held_out = _split(truth, config)
    chosen, warnings = _usable(logits, truth, held_out, wanted)
    if len(logits) - int(held_out.sum()) < len(model.labels):
        warnings.append(
            f"{len(logits) - int(held_out.sum())} samples are fitted with {len(model.labels) - 1} predictors: the weights are "
            "one solution of many; read the held-out errors, or give more images"
        )
    for warning in warnings:
        yield Event("fitting", 0, len(chosen), warning=warning)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(chosen), TOGETHER):
        some = chosen[start : start + TOGETHER]
        rows += _measured(logits, truth, held_out, some, model.labels, config)
        yield Event("fitting", start + len(some), len(chosen))
    facts = {"digest": model.digest(), "images": len(images), "classes": len(model.labels), "warnings": warnings}
    facts["held_out"] = int(held_out.sum())
    return Report("independence deficit", _medians(rows), tuple(rows), facts)


def _measured(
    logits: Float[Tensor, "n classes"],
    truth: Int[Tensor, "n"],
    held_out: Bool[Tensor, "n"],
    classes: Sequence[int],
    names: Sequence[str],
    config: DeficitConfig,
) -> list[dict[str, Any]]:
    fitted, fitted_truth = logits[~held_out], truth[~held_out]
    positives = [fitted[fitted_truth == each] for each in classes]
    options: dict[str, Any] = {"keep": config.keep, "lambdas": config.lambdas, "smallest": config.smallest}
    fits = {
        "published": published_fits(
            positives, classes, steps=config.steps, rate=config.rate, penalty=config.penalty, keep=config.keep
        ),
        "positives": [path_fits(own, [each], **options)[0] for own, each in zip(positives, classes, strict=True)],
        "all samples": path_fits(fitted, classes, **options),
    }
    rows = []
    for number, each in enumerate(classes):
        for fit, replacements in fits.items():
            samples = fitted if fit == "all samples" else positives[number]
            facts = judge(replacements[number], each, samples, logits[held_out], truth[held_out])
            support = [names[other] for other in replacements[number].support]
            rows.append({"class": names[each], "fit": fit, "samples": len(samples), "support": support} | facts)
    return rows


def _checked(labels: Sequence[int] | None, count: int, model: Classifier) -> Int[Tensor, "n"]:
    if count == 0:
        raise DataError("images: expected at least one, found none")
    if labels is None:
        raise DataError(
            "images: expected one sub-folder of pictures a class, found pictures without classes; sort them into folders such "
            f"as {model.labels[0]}, or give labels"
        )
    classes = len(model.labels)
    truth = torch.as_tensor(labels)
    if truth.shape != (count,) or truth.is_floating_point():
        raise DataError(
            f"labels: expected a whole number for each of {count} images, found {tuple(truth.shape)} {truth.dtype}"
        )
    if int(truth.min()) < 0 or int(truth.max()) >= classes:
        raise DataError(f"labels: expected 0 to {classes - 1}, found {int(truth.min())} to {int(truth.max())}")
    return truth.long()


def _split(truth: Int[Tensor, "n"], config: DeficitConfig) -> Bool[Tensor, "n"]:
    """The same share of every class, one sample at least where there are three."""
    held_out = torch.zeros(len(truth), dtype=torch.bool)
    generator = torch.Generator().manual_seed(config.seed)
    for each in truth.unique():
        members = (truth == each).nonzero()[:, 0]
        count = max(round(config.held_out * len(members)), int(len(members) >= 3))
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return held_out


def _usable(
    logits: Float[Tensor, "n classes"], truth: Int[Tensor, "n"], held_out: Bool[Tensor, "n"], wanted: Sequence[int]
) -> tuple[list[int], list[str]]:
    """Classes that can be fitted and judged, and a line on each reason why others cannot."""
    if not bool(logits.isfinite().all()):
        sample, column = (~logits.isfinite()).nonzero()[0].tolist()
        raise DataError(
            f"logits: image {sample} has {logits[sample, column]} for class {column}: expected finite numbers; "
            "check the images and the model"
        )
    fitted = torch.bincount(truth[~held_out], minlength=logits.shape[1])
    judged = torch.bincount(truth[held_out], minlength=logits.shape[1])
    seen = logits[held_out] if bool(held_out.any()) else logits
    constant = seen.amax(0) - seen.amin(0) <= 1e-9 * logits.abs().max()
    few = [each for each in wanted if fitted[each] < 2 or judged[each] < 1]
    flat = [each for each in wanted if bool(constant[each])]
    chosen = [each for each in wanted if each not in {*few, *flat}]
    if not chosen:
        raise DataError(
            f"images: expected a class with three images or more and a logit that varies, found {len(few)} classes with fewer and "
            f"{len(flat)} constant; give more images of a class"
        )
    warnings = [f"{len(few)} classes have fewer than three images and are left out"] if few else []
    warnings += [f"the logits of {len(flat)} classes are constant and are left out"] if flat else []
    return chosen, warnings


def _medians(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    numbers = [key for key, value in rows[0].items() if isinstance(value, float) and key != "offset"]
    return {
        fit: {"classes": len(some), "support": median(len(row["support"]) for row in some)}
        | {key: median(row[key] for row in some) for key in numbers}
        for fit in dict.fromkeys(row["fit"] for row in rows)
        for some in [[row for row in rows if row["fit"] == fit]]
    }
