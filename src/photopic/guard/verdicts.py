"""What a guard says of pictures, as values for a program: what ``photopic guard check --json`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from photopic.guard.guarded import GuardedModel, Prediction


def verdicts(made: GuardedModel, guard: str, names: Sequence[str], judged: Sequence[Prediction]) -> dict[str, Any]:
    """One row a picture, and the sums.

    Args:
        made: The guard.
        guard: What to call it.
        names: Of the pictures.
        judged: What it said of each.

    Example:
        >>> verdicts(made, "emoji.guard", ["a.png"], made([picture]))["accepted"]  # doctest: +SKIP
        1
    """
    rows = []
    for name, each in zip(names, judged, strict=True):
        verdict = each.verdict
        row = {"picture": name, "label": each.label, "probability": each.probability, "accepted": verdict.accepted}
        rows.append(row | {"reason": verdict.reason, "evidence": dict(verdict.evidence)})
    return {
        "guard": guard,
        "model": made.model.name,
        "checks": list(made.checks),
        "expected_false_positive_rate": made.expected_false_positive_rate,
        "accepted": sum(each.verdict.accepted for each in judged),
        "rejected": sum(not each.verdict.accepted for each in judged),
        "caveats": list(made.caveats),
        "pictures": rows,
    }
