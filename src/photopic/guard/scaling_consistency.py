"""Tell inputs that carry a backdoor's trigger: their prediction outlives an amplification of the network's last normalisations.

Paper: *IBD-PSC: Input-level Backdoor Detection via Parameter-oriented Scaling Consistency* (arXiv:2405.09786). The scale and shift
of the last i normalisation layers are multiplied by omega; the score is the plain prediction's mean probability over several i.
Changed: layers count in the order of execution; members beyond the last layer are dropped instead of repeated; if the error never
crosses its bound all layers are scaled, with a warning; LayerNorm models climb a ladder of omegas until it does; the threshold is
calibrated on clean data unless one is given; whatever lies before the first scaled layer is computed once; a verdict is given as
soon as the remaining members cannot change it. ``compat="published-code"`` has the released code's indices and its ``>=``.
Claims ``firewall.*`` of benchmarks/guard/firewall.py; exact checks are in tests/guard.

Blind, by construction: to triggers whose prediction has little confidence, to attacks without one target class (all-to-all), and to
attacks that were trained against it. Clean images of the target class are its natural false positives.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.core.results import Verdict, provenance
from photopic.guard._clean import check_answers
from photopic.guard.amplified_norms import Amplified, checked_labels, first_failing, norms, ordered, taken
from photopic.metrics.conformal import conformal_threshold
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images

CAVEATS = (
    "blind to triggers whose prediction has little confidence and to attacks without one target class; "
    "clean images of a backdoor's target class are rejected more often than others"
)


@dataclass(frozen=True)
class ScalingConsistencyConfig:
    """How to look."""

    omegas: tuple[float, ...] | None = (
        None  # tried in turn until the error crosses; None: 1.5, with LayerNorm 1.5 2 3 5 8
    )
    members: int = 5  # n: amplified networks a score is the mean of
    error_bound: float = (
        0.6  # xi: the first number of layers whose error on clean data exceeds it is the first member's
    )
    threshold: float | None = None  # T: flagged above it; None: calibrated on clean data. The paper's is 0.9
    false_positive_rate: float = (
        0.05  # alpha of the calibration: at most this share of clean inputs is expected to be flagged
    )
    compat: Literal["paper", "published-code"] = (
        "paper"  # the released code scales one layer more and counts as registered
    )

    def __post_init__(self) -> None:
        if self.omegas is not None and (not self.omegas or min(self.omegas) < 1):
            raise DataError(f"omegas: expected factors of 1 or more, found {self.omegas}")
        if self.members < 1:
            raise DataError(f"members: expected 1 or more, found {self.members}")
        for name in ("error_bound", "false_positive_rate"):
            if not 0 < (value := getattr(self, name)) < 1:
                raise DataError(f"{name}: expected between 0 and 1, found {value}")


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


class ScalingConsistency:
    """A firewall around a classifier, which is the same after every call.

    Args:
        model: The classifier.
        config: How to look.

    Raises:
        ModelError: If the network has no normalisation with a scale.

    Example:
        >>> wall = ScalingConsistency(model).fit(clean_images, clean_labels)  # doctest: +SKIP
        >>> [verdict.accepted for verdict in wall.predict(images)]  # doctest: +SKIP
    """

    def __init__(self, model: Classifier, config: ScalingConsistencyConfig = ScalingConsistencyConfig()):
        self.model, self.config = model, config
        self.fitted: Fitted | None = None
        self._amplified: Amplified | None = None
        if not norms(model.network):
            raise ModelError(f"{model.name}: expected normalisations with a scale and a shift, found none to amplify")

    # -- fitting

    def fit(
        self, images: Images, labels: Sequence[int] | Int[np.ndarray, "n"], *, batch: int = 64
    ) -> ScalingConsistency:
        """Choose the layers on one half of some clean images, and calibrate the threshold on the other.

        Args:
            images: A hundred or more that nobody tampered with, as ``Classifier.preprocess`` takes them.
            labels: Their true classes.
            batch: Images at a time.

        Raises:
            DataError: If images and labels do not fit, or there are too few to calibrate for the rate of false positives.

        Warns:
            UserWarning: If the error never crosses its bound, so that the score is weak.
        """
        truth = checked_labels(images, labels, len(self.model.labels))
        mixed = np.random.default_rng(0).permutation(len(truth))
        given = self.config.threshold
        choosing = mixed if given is not None else mixed[: len(mixed) // 2]
        order, layers = ordered(self.model, images[:1], as_registered=self.config.compat == "published-code")
        pixels = list(self._batches(taken(images, choosing), batch))
        with torch.no_grad():
            plain = torch.cat([self.model.forward(each).double().cpu() for each in pixels])  # (n, classes)
        check_answers(self.model, plain.numpy(), truth[choosing])
        amplified, errors = first_failing(
            self.model, order, layers, self.config.omegas, pixels, truth[choosing], self.config.error_bound
        )
        crossed = errors[-1] > self.config.error_bound
        if not crossed:
            warnings.warn(
                f"{self.model.name}: with all {len(layers)} normalisations times {amplified.omega:g} the error on clean data "
                f"is {errors[-1]:.0%}, not above {self.config.error_bound:.0%}; scores will tell little: try larger omegas",
                stacklevel=2,
            )
        sizes = self._sizes(len(errors), len(layers))
        self._amplified = amplified
        self.fitted = Fitted(layers, amplified.omega, len(errors), sizes, given or 1.0, tuple(errors), crossed, 0)
        if given is None:
            rest = mixed[len(choosing) :]
            doubts = [self.assess(pixels).log_doubt for pixels in self._batches(taken(images, rest), batch)]
            log_doubt = -conformal_threshold(-np.concatenate(doubts), self.config.false_positive_rate)
            self.fitted = replace(self.fitted, threshold=-np.expm1(log_doubt), log_doubt=log_doubt, clean=len(rest))
        return self

    def _sizes(self, first: int, layers: int) -> tuple[int, ...]:
        if self.config.compat == "published-code":  # one layer more each; what goes beyond the last repeats it
            return tuple(min(first + 1 + i, layers) for i in range(self.config.members))
        return tuple(size for size in range(first, first + self.config.members) if size <= layers)

    # -- scoring

    def score(self, images: Images, *, batch: int = 64) -> Float[np.ndarray, "n"]:
        """PSC: mean probability of the plain prediction over the amplified networks, 0 to 1; higher is more suspicious.

        Raises:
            DataError: If a picture is not 8-bit RGB, or there is none.
            ModelError: If this is not fitted, or a batch normalisation is in training mode.
        """
        return np.concatenate([self.assess(pixels).score for pixels in self._batches(images, batch)])

    def stream(self, images: Images, *, batch: int = 64) -> Iterator[list[Verdict]]:
        """Verdicts batch by batch; members that cannot change a decision any more are left out, so the scores are bounds.

        Yields:
            One list a batch. Evidence: ``label``, the plain prediction; ``score``, the mean over all members if the missing ones
            were 0; ``members``, how many ran; ``threshold``; ``expected_false_positive_rate``, None for a threshold that was given.
        """
        found = self._found()
        about = provenance(
            "guard.scaling_consistency", config=asdict(self.config), fitted=asdict(found), caveats=CAVEATS
        )
        rate = self.config.false_positive_rate if found.clean else None
        for pixels in self._batches(images, batch):
            seen = self.assess(pixels, found.bound)
            verdicts = []
            rows = zip(seen.label, seen.score, seen.log_doubt, seen.members, strict=True)
            for label, score, log_doubt, members in rows:
                with np.errstate(divide="ignore"):  # none is missing
                    most = np.logaddexp(log_doubt, np.log1p(-members / len(found.sizes)))  # if the missing ones gave 0
                accepted = not self._below(most, found.bound)
                how = (
                    f"after {members} of {len(found.sizes)} members"
                    if members < len(found.sizes)
                    else "over all members"
                )
                reason = (
                    f"{self.model.labels[label]!r} does not outlive the amplification {how}"
                    if accepted
                    else f"{self.model.labels[label]!r} outlives the amplification: {score:.2f} {how}, above {found.threshold:.2f}"
                )
                evidence = {
                    "label": self.model.labels[label], "score": float(score), "threshold": found.threshold,
                    "log_doubt": float(log_doubt), "members": int(members), "expected_false_positive_rate": rate,
                }  # fmt: skip
                verdicts.append(Verdict(accepted, reason, evidence, about))
            yield verdicts

    def predict(self, images: Images, *, batch: int = 64) -> list[Verdict]:
        """One verdict an image: drives ``stream`` to its end."""
        return [verdict for verdicts in self.stream(images, batch=batch) for verdict in verdicts]

    def purify(self, images: Images, *, batch: int = 64) -> Bool[np.ndarray, "n"]:
        """Which images of a suspect training set to keep, for a model that was trained on it."""
        return np.array([verdict.accepted for verdict in self.predict(images, batch=batch)])

    def assess(self, pixels: Float[Tensor, "n 3 height width"], bound: float | None = None) -> Assessed:
        """One batch of pixel values, as ``Classifier.preprocess`` gives them.

        Args:
            pixels: The batch.
            bound: Of the log of the doubt; if given, a sample is left alone once its side of it is certain.

        Raises:
            ModelError: As ``score`` does.
        """
        found, amplified = self._found(), self._amplified
        assert amplified is not None
        logits, kept = amplified.plain(pixels, found.sizes)
        label = logits.argmax(1)
        doubt = torch.full((len(pixels),), -torch.inf, dtype=torch.float64, device=label.device)  # log of the sum
        members = torch.zeros_like(label)
        rows = torch.arange(len(pixels), device=label.device)
        count = len(found.sizes)
        for done, size in enumerate(found.sizes, 1):
            chosen = None if len(rows) == len(pixels) else rows
            rest = _log_rest(amplified.member(pixels, size, kept, chosen).double(), label[rows])
            doubt[rows] = torch.logaddexp(doubt[rows], rest)
            members[rows] = done
            if bound is not None:
                least, limit = doubt[rows], bound + math.log(count)
                most = least.logaddexp(torch.tensor(count - done).double().log())  # if the members to come gave 0
                rows = rows[self._below(least, limit) & ~self._below(most, limit)]
                if not len(rows):
                    break
        score = (members - doubt.exp()) / count
        return Assessed(
            label.cpu().numpy(), score.cpu().numpy(), (doubt - math.log(count)).cpu().numpy(), members.cpu().numpy()
        )

    def _below(self, doubt: Any, bound: float) -> Any:
        """Whether so little doubt is flagged: score > threshold, or >= as the released code has it, where 1 is left out."""
        return doubt <= bound if self.config.compat == "published-code" else doubt < bound

    def _batches(self, images: Images, batch: int) -> Iterator[Float[Tensor, "n 3 height width"]]:
        for start in range(0, max(1, len(images)), batch):  # an empty list reaches preprocess, which says so
            yield self.model.preprocess(images[start : start + batch])

    def _found(self) -> Fitted:
        if self.fitted is None:
            raise ModelError(f"{self.model.name}: the firewall is not fitted; call fit with clean images first")
        return self.fitted


def _log_rest(logits: Float[Tensor, "n classes"], label: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """log(1 - p) of each label, summed from the other classes: where p is 1 as a number, samples still differ."""
    others = logits.scatter(1, label[:, None], -torch.inf)  # (n, classes)
    return others.logsumexp(1) - logits.logsumexp(1)
