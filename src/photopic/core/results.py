"""The results that are not an ``Edit``: a ``Map``, a ``Report`` and a ``Verdict``, each with where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

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
    """Where in the input: one picture of numbers per label.

    Attributes:
        values: One map per label, in the unit the method documents.
        labels: What each map shows, such as a word of the prompt.
        provenance: See ``provenance``.

    Example:
        >>> Map(np.zeros((1, 2, 2)), ("bear",)).to_dict()["labels"]
        ['bear']
    """

    values: Float[np.ndarray, "maps height width"]
    labels: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.values):
            raise ValueError(f"a Map of {len(self.values)} maps has {len(self.labels)} labels: {self.labels}")

    def to_dict(self) -> dict[str, Any]:
        """JSON values, the maps as nested lists."""
        return {
            "type": "map",
            "labels": list(self.labels),
            "values": self.values.tolist(),
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
