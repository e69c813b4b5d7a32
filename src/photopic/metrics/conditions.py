"""How far a picture is from conditions that it should obey, one number a condition: 0 is obeyed, larger is worse.

After the checks of Composer (arXiv:2302.09778) that need no trained judge. What a picture shows is read as ``data/extraction.py``
reads any picture; of a picture nobody knows the drawing order, so depth is compared with where anything is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from scipy.ndimage import binary_dilation
from scipy.stats import spearmanr

from photopic.core.errors import DataError
from photopic.data.conditions import Conditions
from photopic.data.extraction import LUMA, intensity

NEAR = np.ones((3, 3), bool)  # a line is met within one pixel
LINE = 127  # bytes above this are lines, or kept


def condition_errors(
    found: Conditions,
    wanted: Conditions,
    image: UInt8[np.ndarray, "size size 3"],
    weights: tuple[float, float, float] = LUMA,
) -> dict[str, float]:
    """The error of each condition that is wanted and can be read off a picture.

    Args:
        found: The picture's own conditions, as ``from_picture`` gives them.
        wanted: What it should obey; a caption is left out, words need a judge.
        image: The picture.
        weights: Of the channels in the wanted intensity.

    Returns:
        ``palette`` the L1 distance, ``sketch`` 1 less the F1 of lines within a pixel, ``instances`` 1 less the mean IoU,
        ``intensity`` and ``masked`` the mean absolute difference of values in 0 to 1, ``depth`` 1 less the rank correlation of
        depth with where anything is, ``embedding`` 1 less the cosine.

    Raises:
        DataError: If sizes or encoders differ.

    Example:
        >>> image = np.full((8, 8, 3), 200, np.uint8)
        >>> wanted = Conditions(8, {"intensity": intensity(image)})
        >>> condition_errors(wanted, wanted, image)
        {'intensity': 0.0}
    """
    if found.size != wanted.size or (wanted.encoder and found.encoder and wanted.encoder != found.encoder):
        raise DataError("conditions: expected two sets of one size and one encoder, found others; make them alike")
    own, value = found.values, wanted.values
    errors: dict[str, float] = {}
    if "embedding" in value and "embedding" in own:
        errors["embedding"] = 1 - cosine(value["embedding"], own["embedding"])
    if "palette" in value:
        errors["palette"] = float(np.abs(value["palette"] - own["palette"]).sum())
    if "sketch" in value:
        errors["sketch"] = 1 - line_f1(own["sketch"][0] > LINE, value["sketch"][0] > LINE)
    if "instances" in value:
        errors["instances"] = 1 - mean_iou(own["instances"][0], value["instances"][0])
    if "depth" in value:
        errors["depth"] = 1 - _rank_correlation(value["depth"][0], own["instances"][0] > 0)
    if "intensity" in value:
        errors["intensity"] = _apart(intensity(image, weights)[0], value["intensity"][0])
    if "masked" in value:
        kept = value["masked"][3] > LINE
        errors["masked"] = _apart(image[kept], value["masked"][:3].transpose(1, 2, 0)[kept])
    return errors


def line_f1(found: Bool[np.ndarray, "h w"], wanted: Bool[np.ndarray, "h w"]) -> float:
    """F1 of lines that count as met within one pixel; 1 where there are none in both, 0 where there are some in one.

    Example:
        >>> line = np.eye(8, dtype=bool)
        >>> line_f1(line, line), line_f1(line, line[:, ::-1]) < 0.5
        (1.0, True)
    """
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = (found & binary_dilation(wanted, NEAR)).sum() / found.sum()
    recall = (wanted & binary_dilation(found, NEAR)).sum() / wanted.sum()
    return float(2 * precision * recall / max(1e-9, precision + recall))


def mean_iou(found: Num[np.ndarray, "h w"], wanted: Num[np.ndarray, "h w"]) -> float:
    """Of each wanted object the largest intersection over union with one that is found, in the mean.

    Args:
        found: A number a pixel, 0 for the background.
        wanted: The same.

    Example:
        >>> mean_iou(np.array([[1, 0, 0, 2]]), np.array([[1, 1, 0, 2]]))
        0.75
    """
    shares = [
        max((_overlap(found == own, wanted == number) for own in _numbers(found)), default=0.0)
        for number in _numbers(wanted)
    ]
    return float(np.mean(shares)) if shares else 1.0


def cosine(first: Float[np.ndarray, " dim"], second: Float[np.ndarray, " dim"]) -> float:
    """Of two vectors."""
    one, other = (np.asarray(each, np.float64) for each in (first, second))
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / max(1e-12, lengths)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def _numbers(found: np.ndarray) -> np.ndarray:
    values: np.ndarray = np.unique(found)
    return values[values != 0]


def _apart(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found.astype(float) - wanted).mean() / 255)


def _rank_correlation(depth: np.ndarray, there: np.ndarray) -> float:
    if not there.any() or there.all() or depth.min() == depth.max():
        return 0.0  # nothing to rank
    return float(spearmanr(depth.ravel(), there.ravel()).statistic)
