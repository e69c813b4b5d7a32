"""What scaling consistency finds: the numbers of a fit, those of a batch, and the doubt they rest on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Fitted:
    """What fitting found: enough to score with, as JSON values.

    Attributes:
        layers: Normalisation layers, the last one first.
        omega: The factor.
        first: k, how many layers the first member scales.
        sizes: How many layers each member scales.
        threshold: Flagged above it.
        errors: Top-1 error on clean data with 1, 2, ... layers scaled, as far as it was followed.
        crossed: Whether the error crossed its bound.
        clean: Clean images the threshold rests on; 0 if it was given.
        log_doubt: Log of what is left to 1 at the threshold, which tells scores apart that are all 1 as numbers; None in files
            of before, where it is that of ``threshold``.
    """

    layers: tuple[str, ...]
    omega: float
    first: int
    sizes: tuple[int, ...]
    threshold: float
    errors: tuple[float, ...]
    crossed: bool
    clean: int
    log_doubt: float | None = None

    @property
    def as_run(self) -> tuple[int, ...]:
        """The sizes as members run: the one that amplifies most doubts most, so that most verdicts need no other.

        One that amplifies all layers comes last: it shares only what precedes the first, and costs half as much again.
        """
        return tuple(sorted(self.sizes, key=lambda size: (size == len(self.layers), -size)))

    @property
    def bound(self) -> float:
        """Log of the doubt below which a sample is flagged."""
        return float(np.log1p(-self.threshold)) if self.log_doubt is None else self.log_doubt


@dataclass(frozen=True, eq=False)
class Assessed:
    """A batch.

    Attributes:
        label: The plain predictions.
        score: PSC; of a sample that was left alone, what it is if all other members give 0.
        log_doubt: Log of 1 - PSC from the logits of the other classes; of a sample that was left alone, over the members that ran.
        members: How many ran.
    """

    label: Int[np.ndarray, "n"]
    score: Float[np.ndarray, "n"]
    log_doubt: Float[np.ndarray, "n"]
    members: Int[np.ndarray, "n"]


def reason_of(name: str, accepted: bool, score: float, members: int, found: Fitted) -> str:
    """One line a person reads."""
    how = f"after {members} of {len(found.sizes)} members" if members < len(found.sizes) else "over all members"
    if accepted:
        return f"{name!r} does not outlive the amplification {how}"
    return f"{name!r} outlives the amplification: {score:.2f} {how}, above {found.threshold:.2f}"


def log_rest(logits: Float[Tensor, "n classes"], label: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """log(1 - p) of each label, summed from the other classes: where p is 1 as a number, samples still differ."""
    others = logits.scatter(1, label[:, None], -torch.inf)  # (n, classes)
    return others.logsumexp(1) - logits.logsumexp(1)
