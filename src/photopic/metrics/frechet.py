"""Fréchet distance of two sets of features: how far apart they are as Gaussians, the formula of FID (arXiv 1706.08500).

FID itself takes Inception features of 50,000 pictures. With other features and fewer pictures the number is of its own scale and
biased upwards: compare it only between sets of one size, in the same features.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Num

from photopic.core.errors import DataError


def frechet_distance(one: Num[np.ndarray, "n d"], other: Num[np.ndarray, "m e"]) -> float:
    """|mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), in float64.

    Args:
        one: Features of one set, a row a picture; two rows or more.
        other: Of the other.

    Raises:
        DataError: If a set has fewer than two rows, a value is not finite, or the widths differ.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(500, 4))
        >>> round(frechet_distance(rows, rows + 1), 6)
        4.0
    """
    sets = [np.asarray(each, np.float64) for each in (one, other)]
    if min(map(len, sets)) < 2 or sets[0].shape[1] != sets[1].shape[1]:
        raise DataError(f"features: expected two rows or more of one width, found {sets[0].shape} and {sets[1].shape}")
    if not all(np.isfinite(each).all() for each in sets):
        raise DataError("features: expected finite numbers, found NaN or infinity")
    gap = sets[0].mean(0) - sets[1].mean(0)
    first, second = (np.atleast_2d(np.cov(each, rowvar=False)) for each in sets)
    root = _root(first)
    overlap = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()  # tr (C_1 C_2)^(1/2)
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * overlap)


def _root(covariance: Num[np.ndarray, "d d"]) -> Num[np.ndarray, "d d"]:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
