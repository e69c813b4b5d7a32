"""Claims as data, and rows made of what was measured for them.

A benchmark declares what it claims; what it measures are rows that know nothing of targets, and the harness puts both together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from benchmarks.harness.ledger import LedgerError, Row
from photopic.metrics.intervals import student, wilson


@dataclass(frozen=True)
class Claim:
    """One claim, or with ``*`` in its id several of one kind.

    Attributes:
        id: Stable dotted id, such as ``layout.iou_gain`` or ``race.similarity.*``.
        target: What is asked for, which says the direction too: ``>= 0.8`` or ``low > 0``; empty where nothing is.
        statement: What is measured, in a few words; it opens the note of the row.
        unit: Unit of the value.
    """

    id: str
    target: str = ""
    statement: str = ""
    unit: str = ""


def row(
    claim: str,
    value: float | Sequence[float | None] | None,
    *,
    n: int | None = None,
    baseline: float | None = None,
    control: float | None = None,
    target: str | None = None,
    note: str = "",
) -> Row:
    """What was measured for a claim, to six digits.

    Args:
        claim: Its id.
        value: A number, or ``(value, low, high)``; an end that the value passes by rounding is the value.
        n: Number of samples or pairs.
        baseline: The same quantity for the method compared with.
        control: The same quantity for the negative control.
        target: What is asked for where the bound itself was measured; of all other claims the declaration says it.
        note: What was found besides.

    Example:
        >>> row("edit.drift", (0.1234567, 0.1, 0.2)).value
        0.123457
    """
    middle, low, high = (_digits(each) for each in (value if isinstance(value, Sequence) else (value, None, None)))
    if middle is not None and low is not None and high is not None:
        low, high = min(low, middle), max(high, middle)
    beside = _digits(baseline), _digits(control)
    return Row(claim, middle, low, high, "", target, *beside, n, note)


def over_seeds(values: Sequence[float] | np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean and Student's interval over runs of different seeds; of one run no interval.

    Example:
        >>> over_seeds([0.5])
        (0.5, None, None)
    """
    return student(values) if len(values) > 1 else (float(values[0]), None, None)


def paired(claim: str, arm: np.ndarray, base: np.ndarray, control: np.ndarray | None = None, note: str = "") -> Row:
    """The differences of an arm to the baseline over the same seeds, each (seeds,); the control by its mean difference."""
    beside = None if control is None else float((control - base).mean())
    return row(claim, over_seeds(arm - base), n=len(arm), baseline=float(base.mean()), control=beside, note=note)


def share(claim: str, right: Sequence[bool] | np.ndarray, *, ceiling: np.ndarray | None = None, note: str = "") -> Row:
    """The share of true entries with its Wilson interval; the baseline is the share of the ceiling's."""
    baseline = None if ceiling is None else float(np.mean(ceiling))
    return row(claim, wilson(int(np.sum(right)), len(right)), n=len(right), baseline=baseline, note=note)


def declared(rows: Iterable[Row], claims: Sequence[Claim]) -> Iterable[Row]:
    """Rows with the target, the unit and the statement of their claims, as they come.

    Raises:
        LedgerError: If a row answers no declared claim.
    """
    for each in rows:
        claim = declaration(each.claim, claims)
        note = "; ".join(filter(None, [claim.statement, each.note]))
        target = each.target if each.target is not None else claim.target or None
        yield replace(each, target=target, unit=claim.unit, note=note)


def declaration(claim: str, claims: Sequence[Claim]) -> Claim:
    """The declaration of an id: its own, or the one of several with the longest id.

    Raises:
        LedgerError: If there is none.
    """
    fitting = [each for each in claims if fnmatchcase(claim, each.id)]
    if not fitting:
        raise LedgerError(f"{claim}: expected a declared claim such as {claims[0].id}, found none; declare it")
    return max(fitting, key=lambda each: (each.id == claim, len(each.id)))


def _digits(number: float | None) -> float | None:
    if number is None or isinstance(number, int):
        return number
    return float(f"{float(number):.6g}")
