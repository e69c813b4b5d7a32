"""The search of ``neural_dependencies``: read the logits, solve, choose lambda, judge, and make the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from scipy.sparse import csr_array

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.numerics.covariance import Centring
from photopic.core.numerics.lasso_path import LassoPath, lambda_grid, solving
from photopic.core.results import Report
from photopic.measure._dependency_fit import (
    Judge,
    Read,
    Seen,
    best_single,
    gauged,
    on_logits,
    parts,
    rank,
    read_part,
    shared_errors,
)
from photopic.measure._replacement import Replacement


@dataclass(frozen=True, kw_only=True)
class DependencyConfig(Config):
    """How to look; every field is written into the report."""

    error: Annotated[float, Gt(0), Lt(1)] = (
        0.05  # a class depends on others if they leave at most this share of its variance
    )
    lambdas: Annotated[int, Ge(1)] = 20  # penalties tried, from no predictor to many
    smallest: Annotated[float, Gt(0), Le(1)] = 1e-3  # last penalty over the first
    # what is done to each class's logits before: mean 0 and variance 1, mean 0, or nothing, which is the formula to the letter
    centring: Centring = "standardised"
    gauge: bool = False  # subtract each picture's mean logit first, which the softmax does not see
    shares: Annotated[tuple[float, float], Flags(), Gt(0), Lt(1)] = (0.2, 0.2)  # to choose lambda by, and to judge on
    tolerance: Annotated[float, Flags(), Gt(0)] = (
        1e-6  # duality gap of a solution, relative to the variance of its logit
    )
    batch: Annotated[int, Flags(), Ge(1)] = 64  # images a forward pass
    seed: Annotated[int, Ge(0)] = 0  # seed of the split into fitted, choosing and judging pictures


@dataclass(frozen=True, eq=False)
class Source:
    """Where logits come from."""

    read: Read
    samples: int
    names: tuple[str, ...]
    predictors: tuple[str, ...] | None  # names of another network's classes
    labels: Sequence[int] | None
    about: dict[str, Any]
    said: tuple[str, ...] = ()


def search(source: Source, config: DependencyConfig) -> Steps[Report]:
    """Read the logits of each part, solve, judge, and read the last part again to see what replacing a logit does."""
    labels = _labels(source)
    positions = parts(source.samples, config.shares, config.seed)
    size = len(source.names)
    predictors = None if source.predictors is None else len(source.predictors)
    said = [*source.said, *_too_few(len(positions[0]), predictors or size)]
    yield Event("reading", 0, source.samples)
    for line in said:
        yield Event("reading", 0, source.samples, warning=line)
    seen, done = [], 0
    for part in positions:
        seen.append(Seen.empty(size, predictors, config.gauge))
        for count in read_part(source.read, part, seen[-1], config.batch):
            yield Event("reading", done + count, source.samples)
        done += len(part)
    fitted = seen[0]
    constant = [source.names[at] for at in np.flatnonzero(fitted.covariance.constant[:size])]
    if len(constant) == size:
        raise DataError(f"all {size} logits are constant: expected logits that differ between images; check the images")
    if constant:
        said.append(f"constant logits, left out: {', '.join(constant[:5])}{' ...' if len(constant) > 5 else ''}")
        yield Event("solving", 0, size, warning=said[-1])
    second, cross, powers = fitted.blocks(fitted.covariance.moment(config.centring))
    lambdas = _lambdas(cross, within=predictors is None, config=config)
    between = () if predictors is None else (cross, powers)
    found = yield from solving(second, lambdas, *between, tolerance=config.tolerance)
    del second, cross, between
    results = _judged(found, seen, config)
    if line := _by_the_gauge(source, config, results, seen[2]):
        said.append(line)
        yield Event("judging", 0, len(positions[2]), warning=line)
    replacement = Replacement(results.theta, results.offset)
    judge = positions[2]
    for start in range(0, len(judge), config.batch):
        at = judge[start : start + config.batch]
        targets, others = source.read(at)
        rows = gauged(targets, size, config.gauge)
        other = rows if predictors is None else gauged(others, predictors, config.gauge)
        replacement.update(rows, other, None if labels is None else labels[at])
        yield Event("judging", min(start + config.batch, len(judge)), len(judge))
    return _report(source, config, found, results, replacement, positions, constant, rank(fitted), said)


@dataclass(frozen=True, eq=False)
class _Judged:
    """What was chosen for each class, and its errors."""

    step: np.ndarray  # of the path, chosen
    theta: csr_array  # chosen, on the scale of the logits
    offset: np.ndarray
    train: np.ndarray  # (classes, lambdas), as the next
    held_out: np.ndarray
    single: csr_array
    single_error: np.ndarray


def _judged(found: LassoPath, seen: list[Seen], config: DependencyConfig) -> _Judged:
    """The sparsest step whose error is small enough on the images to choose by, else the one with the least error there."""
    thetas = [on_logits(found, step, seen[0], config.centring) for step in range(len(found.lambdas))]
    train, choose, held_out = (
        np.stack([judge.errors(theta) for theta in thetas], 1)
        for judge in (Judge(part, seen[0], config.centring) for part in seen)
    )
    known = np.where(np.isnan(choose), np.inf, choose)
    enough = known <= config.error  # (classes, lambdas); lambdas fall, so the first is the sparsest
    step = np.where(enough.any(1), enough.argmax(1), known.argmin(1))
    pieces = [thetas[at][[row]] for row, at in enumerate(step)]  # one row (1, predictors) a class, each of its own step
    ends = np.concatenate([[0], np.cumsum([piece.nnz for piece in pieces])])
    theta = csr_array(
        (np.concatenate([p.data for p in pieces]), np.concatenate([p.indices for p in pieces]), ends), thetas[0].shape
    )
    targets, predictors = seen[0].split(seen[0].covariance.mean)
    offset = np.zeros(len(targets)) if config.centring == "raw" else targets - theta @ predictors
    single = best_single(seen[0], config.centring)
    return _Judged(
        step, theta, offset, train, held_out, single, Judge(seen[2], seen[0], config.centring).errors(single)
    )


def _by_the_gauge(source: Source, config: DependencyConfig, judged: _Judged, last: Seen) -> str:
    """What to say of dependencies by a number that all logits of a picture share; nothing if there are none."""
    if source.predictors is not None or config.gauge:
        return ""
    errors = judged.held_out[np.arange(len(judged.step)), judged.step]  # (classes,) of the chosen steps
    with np.errstate(invalid="ignore"):
        dependent = errors <= config.error
        explained = dependent & (shared_errors(last, errors) > config.error)
    if not explained.any():
        return ""
    return (
        f"{int(explained.sum())} of {int(dependent.sum())} dependent classes depend by what all logits of a picture share, which "
        "the softmax does not see; look again with the gauge fixed: --gauge"
    )


def _report(
    source: Source,
    config: DependencyConfig,
    found: LassoPath,
    judged: _Judged,
    replacement: Replacement,
    positions: Sequence[np.ndarray],
    constant: Sequence[str],
    spectrum: int,
    said: Sequence[str],
) -> Report:
    rows = tuple(_row(source, config, found, judged, replacement, index) for index in range(len(source.names)))
    dependent = [row for row in rows if row["dependent"]]
    labelled = source.labels is not None
    values = {
        "classes": len(rows),
        "predictors": found.predictors,
        "between": source.predictors is not None,
        "samples": {name: len(at) for name, at in zip(("fit", "choose", "held_out"), positions, strict=True)},
        "rank": spectrum,
        "head_width": source.about.get("head_width"),
        "error": config.error,
        "dependent": len(dependent),
        "median_support": float(np.median([len(row["support"]) for row in dependent])) if dependent else None,
        "median_error": _median([row["held_out_error"] for row in rows]),
        "median_best_single_error": _median([row["best_single_error"] for row in rows]),
        "accuracy": replacement.correct / replacement.samples if labelled else None,
        "lambdas": found.lambdas.tolist(),
        "centring": config.centring,
        "gauge": config.gauge,
        "constant": list(constant),
        "largest_gap": float(found.gaps.max()),
        "largest_violation": float(found.violations.max()),
        "converged": found.converged,
        "warnings": list(said),
    }
    return Report("neural dependencies", values, rows, {"images": source.samples, "classes": len(rows), **source.about})


def _row(
    source: Source, config: DependencyConfig, found: LassoPath, judged: _Judged, replacement: Replacement, index: int
) -> dict[str, Any]:
    names, step = source.predictors or source.names, int(judged.step[index])
    theta, single = judged.theta[[index]], judged.single[[index]]
    error = _number(judged.held_out[index, step])
    order = np.argsort(-np.abs(theta.data))  # the strongest first
    return {
        "class": source.names[index],
        "index": index,
        "dependent": error is not None and error <= config.error,
        "lambda": float(found.lambdas[step]),
        "support": [names[at] for at in theta.indices[order]],
        "support_indices": theta.indices[order].tolist(),
        "theta": theta.data[order].tolist(),
        "offset": float(judged.offset[index]),
        "train_error": _number(judged.train[index, step]),
        "held_out_error": error,
        "predict_mean_error": None if error is None else 1.0,  # the unit of the errors
        "best_single_class": names[single.indices[0]],
        "best_single_error": _number(judged.single_error[index]),
        **replacement.row(index, source.labels is not None),
        "path_support": found.supports[index].tolist(),
        "path_train_error": [_number(each) for each in judged.train[index]],
        "path_held_out_error": [_number(each) for each in judged.held_out[index]],
    }


def _labels(source: Source) -> np.ndarray | None:
    """True classes, checked."""
    if source.labels is None:
        return None
    labels, size = np.asarray(source.labels), len(source.names)
    if len(labels) != source.samples:
        raise DataError(f"labels: expected one for each of {source.samples} images, found {len(labels)}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= size:
        raise DataError(f"labels: expected class indices 0 to {size - 1}, found {labels.min()} to {labels.max()}")
    return labels.astype(np.int64)


def _too_few(fitted: int, predictors: int) -> list[str]:
    """What the user should know about the number of images."""
    if fitted <= predictors:
        return [
            f"{fitted} images to fit for {predictors} classes: the covariance has rank at most {fitted - 1}, so coefficients "
            "are undetermined and small training errors say nothing; read held-out errors only, or give more images"
        ]
    if fitted < 5 * predictors:
        return [f"{fitted} images to fit for {predictors} classes: expected at least {5 * predictors} for a stable fit"]
    return []


def _lambdas(cross: np.ndarray, *, within: bool, config: DependencyConfig) -> np.ndarray:
    """One path for all: from the lambda at which the last class gives up its last predictor."""
    diagonal = np.diagonal(cross).copy() if within else None
    largest = 0.0
    for start in range(0, len(cross), 256):
        part = np.abs(cross[start : start + 256])
        if diagonal is not None:
            rows = np.arange(len(part))
            part[rows, start + rows] = 0.0
        largest = max(largest, float(part.max()))
    return lambda_grid(2 * largest or 1.0, count=config.lambdas, smallest=config.smallest)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
