"""Tell inputs that carry a backdoor's trigger: their prediction outlives an amplification of the network's last normalisations.

Paper: *IBD-PSC: Input-level Backdoor Detection via Parameter-oriented Scaling Consistency* (arXiv:2405.09786). The scale and shift
of the last i normalisation layers are multiplied by omega; the score is the plain prediction's mean probability over several i.
Changed: layers count in the order of execution; members beyond the last layer are dropped instead of repeated; if the error never
crosses its bound all layers are scaled, with a warning; LayerNorm models climb a ladder of omegas until it does; the threshold is
calibrated on clean data unless one is given; whatever lies before the first scaled layer is computed once; a verdict is given as
soon as the remaining members cannot change it. ``compat="published-code"`` has the released code's indices and its ``>=``.
Claims ``firewall.*`` of benchmarks/guard/firewall.py; exact checks are in tests/guard.

Weak, by construction, on triggers whose prediction has little confidence; blind to attacks without one target class
(all-to-all), and to attacks that were trained against it. Clean images of the target class are its natural false positives.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.core.results import Verdict, provenance
from photopic.guard._clean import check_answers
from photopic.guard._plain import Plain
from photopic.guard._scaling_scores import Assessed, Fitted, log_rest, reason_of
from photopic.guard.amplified_norms import Amplified, checked_labels, first_failing, norms, ordered, taken
from photopic.metrics.conformal import conformal_rank
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images, starts

CAVEATS = (
    "weak on triggers whose prediction has little confidence, blind to attacks without one target class; "
    "clean images of a backdoor's target class are rejected more often than others"
)

Rows = Int[np.ndarray, "_rows"]  # numbers of images
Look = Callable[[Rows, Plain], None]


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
        model.check_layers("the backdoor check")
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
        self.fit_seen(images, labels, batch, None)
        return self

    def fit_seen(
        self,
        images: Images,
        labels: Sequence[int] | Int[np.ndarray, "n"],
        batch: int,
        look: Look | None,
    ) -> None:
        """As ``fit``; ``look``, if given, gets the plain pass of each image once, with features."""
        truth = checked_labels(images, labels, len(self.model.labels))
        mixed = np.random.default_rng(0).permutation(len(truth))
        given = self.config.threshold
        half = len(mixed) if given is not None else len(mixed) // 2
        choosing, calibrating = (
            [rows[start : start + batch] for start in starts(len(rows), batch) if len(rows)]
            for rows in (mixed[:half], mixed[half:])
        )
        self._choose(images, truth, choosing, look)
        if given is None:
            self._calibrate(images, calibrating, look)

    def _choose(self, images: Images, truth: Int[np.ndarray, " n"], batches: list[Rows], look: Look | None) -> None:
        """The first member: the fewest layers that bring the error over its bound."""
        order, layers = ordered(self.model, images[:1], as_registered=self.config.compat == "published-code")
        logits: list[np.ndarray] = []

        def seen(plain: Plain) -> None:
            if look is not None:
                look(batches[len(logits)], plain)
            logits.append(plain.logits.double().cpu().numpy())

        pixels = [self.model.preprocess(taken(images, rows)) for rows in batches]
        expected, bound = truth[np.concatenate(batches)], self.config.error_bound
        amplified, errors = first_failing(
            self.model, order, layers, self.config.omegas, pixels, expected, bound, seen, features=look is not None
        )
        check_answers(self.model, np.concatenate(logits), expected)
        crossed = errors[-1] > bound
        if not crossed:
            warnings.warn(
                f"{self.model.name}: with all {len(layers)} normalisations times {amplified.omega:g} the error on clean data "
                f"is {errors[-1]:.0%}, not above {bound:.0%}; scores will tell little: try larger omegas",
                stacklevel=4,
            )
        sizes, threshold = self._sizes(len(errors), len(layers)), self.config.threshold or 1.0
        self._amplified = amplified
        self.fitted = Fitted(layers, amplified.omega, len(errors), sizes, threshold, tuple(errors), crossed, 0)

    def _calibrate(self, images: Images, batches: list[Rows], look: Look | None) -> None:
        """The threshold, on images that chose nothing: one of the lowest doubts, so only these are summed over all members."""
        found, rows = self._found(), np.concatenate(batches)
        most = len(rows) + 1 - conformal_rank(len(rows), self.config.false_positive_rate)
        seen = [self._first_doubts(images, each, look) for each in batches]
        label, doubt = (torch.cat(each) for each in zip(*seen, strict=True))  # (clean,)

        def complete(chosen: Int[Tensor, " chosen"]) -> None:
            for some in chosen.split(len(batches[0])) if len(chosen) else ():
                pixels = self.model.preprocess(taken(images, rows[some.cpu().numpy()]))
                assert self._amplified is not None
                for logits in self._amplified.members(pixels, sorted(found.as_run[1:])):
                    doubt[some] = doubt[some].logaddexp(log_rest(logits.double(), label[some]))

        if len(found.sizes) > 1:
            order = doubt.argsort()
            lowest, others = order[: 2 * most], order[2 * most :]  # twice, so that seldom another is left to complete
            complete(lowest)
            limit = doubt[lowest].sort().values[most - 1]
            complete(others[doubt[others] < limit])  # sums only grow with members
        log_doubt = float(doubt.sort().values[most - 1]) - math.log(len(found.sizes))
        if not np.isfinite(log_doubt):  # a score that nothing can pass, or none at all
            raise DataError(
                f"{self.model.name}: expected finite doubts of clean pictures, found {log_doubt}; check its weights"
            )
        self.fitted = replace(found, threshold=-math.expm1(log_doubt), log_doubt=log_doubt, clean=len(rows))

    def _first_doubts(
        self, images: Images, rows: Rows, look: Look | None
    ) -> tuple[Int[Tensor, " rows"], Float64[Tensor, " rows"]]:
        """Plain predictions, and the log of their doubt by the first member."""
        assert self._amplified is not None
        first = self._found().as_run[0]
        pixels = self.model.preprocess(taken(images, rows))
        plain = self._amplified.plain(pixels, [first], features=look is not None)
        if look is not None:
            look(rows, plain)
        label = plain.logits.argmax(1)
        return label, self._rest(plain, label, first, torch.arange(len(label), device=label.device))

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
        about = self.about()
        for pixels in self._batches(images, batch):
            yield self.judged(self.plain(pixels), about)

    def about(self) -> dict[str, Any]:
        """The provenance of its verdicts."""
        return provenance(
            "guard.scaling_consistency", config=asdict(self.config), fitted=asdict(self._found()), caveats=CAVEATS
        )

    def plain(self, pixels: Float[Tensor, "n channels height width"], *, features: bool = False) -> Plain:
        """One batch as the unchanged network sees it, with what ``judged`` can go on from; raises as ``score``."""
        found = self._found()
        assert self._amplified is not None
        return self._amplified.plain(pixels, found.sizes, features=features)

    def judged(self, plain: Plain, about: Mapping[str, Any]) -> list[Verdict]:
        """Verdicts on a batch.

        Args:
            plain: Of ``self.plain``.
            about: Their provenance.
        """
        found = self._found()
        seen = self._assessed(plain, found.bound)
        with np.errstate(divide="ignore"):  # where all members ran, what the missing ones could add is log 0
            most = np.logaddexp(seen.log_doubt, np.log1p(-seen.members / len(found.sizes)))  # (n,)
        accepted = ~self._below(most, found.bound)
        rate = self.config.false_positive_rate if found.clean else None
        verdicts = []
        for row, label in enumerate(seen.label):
            name, score, members = self.model.labels[label], float(seen.score[row]), int(seen.members[row])
            evidence = {
                "label": name, "score": score, "threshold": found.threshold, "log_doubt": float(seen.log_doubt[row]),
                "members": members, "expected_false_positive_rate": rate,
            }  # fmt: skip
            reason = reason_of(name, bool(accepted[row]), score, members, found)
            verdicts.append(Verdict(bool(accepted[row]), reason, evidence, about))
        return verdicts

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
        return self._assessed(self.plain(pixels), bound)

    def _assessed(self, plain: Plain, bound: float | None = None) -> Assessed:
        found = self._found()
        label, count = plain.logits.argmax(1), len(found.sizes)
        doubt = torch.full(label.shape, -torch.inf, dtype=torch.float64, device=label.device)  # (n,) log of the sum
        members = torch.zeros_like(label)
        rows = torch.arange(len(label), device=label.device)  # of those that are not certain yet
        for done, size in enumerate(found.as_run, 1):
            doubt[rows] = doubt[rows].logaddexp(self._rest(plain, label, size, rows))
            members[rows] = done
            if bound is not None:
                least, limit = doubt[rows], bound + math.log(count)
                most = least.logaddexp(torch.tensor(count - done).double().log())  # if the members to come gave 0
                rows = rows[self._below(least, limit) & ~self._below(most, limit)]
                if not len(rows):
                    break
        score = (members - doubt.exp()) / count  # PSC = mean of p = 1 - mean of (1 - p)
        return Assessed(
            label.cpu().numpy(), score.cpu().numpy(), (doubt - math.log(count)).cpu().numpy(), members.cpu().numpy()
        )

    def _rest(
        self, plain: Plain, label: Int[Tensor, " n"], size: int, rows: Int[Tensor, " rows"]
    ) -> Float64[Tensor, " rows"]:
        """log(1 - p) of some samples' labels in one member, float64."""
        assert self._amplified is not None
        logits = self._amplified.member(plain, size, None if len(rows) == len(label) else rows)  # (rows, classes)
        return log_rest(logits.double(), label[rows])

    def _below(self, doubt: Any, bound: float) -> Any:
        """Whether so little doubt is flagged: score > threshold, or >= as the released code has it, where 1 is left out."""
        return doubt <= bound if self.config.compat == "published-code" else doubt < bound

    def _batches(self, images: Images, batch: int) -> Iterator[Float[Tensor, "n 3 height width"]]:
        for start in starts(len(images), batch):
            yield self.model.preprocess(images[start : start + batch])

    def _found(self) -> Fitted:
        if self.fitted is None:
            raise ModelError(f"{self.model.name}: the firewall is not fitted; call fit with clean images first")
        return self.fitted
