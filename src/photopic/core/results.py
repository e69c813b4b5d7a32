"""The results that are not an ``Edit``: a ``Map``, a ``Report`` and a ``Verdict``, each with where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from photopic.core.errors import DataError
from photopic.core.provenance import versions


def provenance(method: str, **facts: Any) -> dict[str, Any]:
    """Where a result comes from: the method, the facts given, and the versions that ran.

    Args:
        method: Dotted name of the function, such as ``locate.concept_neurons``.
        facts: JSON values such as ``config``, ``data``, ``seed``, ``steps``.

    Example:
        >>> provenance("locate.attention", seed=3)["seed"]
        3
    """
    return {"method": method, **facts, "versions": versions()}


@dataclass(frozen=True, eq=False)
class Map:
    """Where in the input: one picture of numbers for each picture and label.

    Attributes:
        values: One map a picture and label, in the unit the method documents; finite.
        labels: What each map shows, such as a class or a word of the prompt.
        provenance: See ``provenance``.
        images: The pictures themselves, RGB, of any one size; None where there is none to show.

    Raises:
        DataError: If numbers of maps, labels and pictures differ, or a value is not finite.

    Example:
        >>> Map(np.zeros((1, 1, 2, 2)), ("bear",)).to_dict()["labels"]
        ['bear']
    """

    values: Float[np.ndarray, "pictures labels height width"]
    labels: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    images: UInt8[np.ndarray, "pictures image_height image_width 3"] | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.values.shape[1] != len(self.labels):
            raise DataError(f"map: expected (pictures, {len(self.labels)} labels, h, w), found {self.values.shape}")
        if self.images is not None and len(self.images) != len(self.values):
            raise DataError(f"map: expected a picture for each of {len(self.values)} maps, found {len(self.images)}")
        lost = ~np.isfinite(self.values).all((0, 2, 3))  # (labels,)
        if lost.any():
            label = self.labels[int(lost.argmax())]
            raise DataError(f"map of {label!r}: expected finite numbers, found nan or inf; check the model's weights")

    def to_dict(self) -> dict[str, Any]:
        """JSON values, maps and pictures as nested lists."""
        return {
            "type": "map",
            "labels": list(self.labels),
            "values": self.values.tolist(),
            "images": None if self.images is None else self.images.tolist(),
            "provenance": dict(self.provenance),
        }


@dataclass(frozen=True)
class Report:
    """How much: named numbers, and tables where there are several of a kind.

    Attributes:
        name: What was measured.
        values: Single numbers or words by name.
        rows: One mapping per row of the table, all with the same keys.
        provenance: See ``provenance``.

    Example:
        >>> Report("similarity", {"mean": 0.5}).to_dict()["values"]
        {'mean': 0.5}
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "type": "report",
            "name": self.name,
            "values": dict(self.values),
            "rows": [dict(row) for row in self.rows],
            "provenance": dict(self.provenance),
        }


@dataclass(frozen=True)
class Verdict:
    """Accept or reject, with the evidence.

    Attributes:
        accepted: The decision.
        reason: One line a person reads.
        evidence: The numbers the decision rests on, by name.
        provenance: See ``provenance``.

    Example:
        >>> Verdict(False, "base differs", {"matching_tensors": 0}).to_dict()["accepted"]
        False
    """

    accepted: bool
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "type": "verdict",
            "accepted": self.accepted,
            "reason": self.reason,
            "evidence": dict(self.evidence),
            "provenance": dict(self.provenance),
        }
