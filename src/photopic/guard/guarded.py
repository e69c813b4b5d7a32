"""A classifier that refuses: checks for backdoor triggers and for unknown or doubtful inputs around it, in one call.

>>> guarded = photopic.guarded("emoji-resnet-64-0").fit(clean_images, clean_labels)  # doctest: +SKIP
>>> [(each.label, each.verdict.accepted) for each in guarded(images)]  # doctest: +SKIP

Both checks look at the same plain pass of a batch. The backdoor check puts amplified tensors in the places of the model's own for
the time of a run; so calls on one network wait for each other and for changes by edits, and an interruption takes effect before the
network's next run, when nothing is half undone. Whoever runs the network by other ways in other threads meanwhile holds
``GuardedModel.lock``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int

from photopic.core.errors import DataError, ModelError
from photopic.core.results import Verdict, provenance
from photopic.guard._clean import reading_of, shape_of, tell_copies
from photopic.guard._plain import Plain, plain_pass
from photopic.guard.guardfile import GuardFileError, SavedGuard, load, save
from photopic.guard.interrupts import interrupted_between_runs
from photopic.guard.open_set import OpenSetDetector, name_of
from photopic.guard.open_set.guard import CAVEATS as OPEN_SET_CAVEATS
from photopic.guard.open_set.guard import OpenSetConfig, OpenSetGuard
from photopic.guard.saved_checks import BACKDOOR, OPEN_SET, FittedOn, restored_checks, saved_checks
from photopic.guard.scaling_consistency import CAVEATS as BACKDOOR_CAVEATS
from photopic.guard.scaling_consistency import ScalingConsistency, ScalingConsistencyConfig
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images, batched, starts


@dataclass(frozen=True)
class Prediction:
    """What the classifier says of one image, and whether to believe it.

    Attributes:
        label: The most probable class.
        probability: Of it, by the classifier.
        verdict: Accepted if every check accepts; evidence: that of each check under its name, and ``rejected_by``.
    """

    label: str
    probability: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"label": self.label, "probability": self.probability, "verdict": self.verdict.to_dict()}


class GuardedModel:
    """A classifier with one or two checks around it; its parameters and buffers are the same after every call.

    Attributes:
        provenance: Where it comes from, where ``fit_guard`` made it.

    Args:
        model: The classifier.
        backdoor: The check for triggers.
        open_set: The check for unknown classes and likely mistakes.

    Raises:
        DataError: If there is no check, or a check is around another classifier.
    """

    saves_file: ClassVar[bool] = True  # and no folder

    def __init__(
        self, model: Classifier, *, backdoor: ScalingConsistency | None = None, open_set: OpenSetGuard | None = None
    ):
        given = {BACKDOOR: backdoor, OPEN_SET: open_set}
        self.model = model
        self.provenance: Mapping[str, Any] = {}
        self.checks: dict[str, Any] = {name: check for name, check in given.items() if check is not None}
        if not self.checks:
            raise DataError("guard: expected a check, found backdoor and open_set both off; turn one on")
        for name, check in self.checks.items():
            if check.model is not model:
                raise DataError(f"guard: {name} is around {check.model.name}, expected {model.name}")
        self._fitted_on: FittedOn | None = None

    def fit(
        self,
        images: Images,
        labels: Sequence[int] | Int[np.ndarray, "_"] | None = None,
        *,
        references: Any = None,
        batch: int = 64,
    ) -> GuardedModel:
        """Fit and calibrate every check.

        Args:
            images: A few hundred that nobody tampered with, of classes the model knows, and not those it was trained on.
            labels: Their true classes; None where they are not known, for scorers that do without.
            references: Images to reject, in the same form, for few-shot scorers.
            batch: Images at a time.

        Raises:
            DataError: If images and labels do not fit, or there are too few for the rate of false positives.

        Warns:
            UserWarning: If the backdoor check will tell little about this model.
        """
        tell_copies(images)
        with self._alone():
            features = self._fit_backdoor(images, labels, batch)
            if (known := self.checks.get(OPEN_SET)) is not None:
                if features is None:
                    known.fit(images, labels, references=references, batch=batch)
                else:
                    known.fit_seen(features, labels, references=references, batch=batch)
        shape = shape_of(batched(images)[0])
        self._fitted_on = FittedOn(shape, reading_of(self.model, shape))
        return self

    def _fit_backdoor(self, images: Images, labels: Any, batch: int) -> Float64[np.ndarray, "n width"] | None:
        """What entered the head in its plain passes, which spares the open-set check passes of its own; None without the check."""
        if (wall := self.checks.get(BACKDOOR)) is None:
            return None
        if labels is None:
            raise DataError("labels: expected the class of every image, which the backdoor check needs, found none")
        features = np.empty((len(images), self.model.head.in_features))

        def look(rows: Int[np.ndarray, " rows"], plain: Plain) -> None:
            assert plain.features is not None
            features[rows] = plain.features.double().cpu().numpy()

        wall.fit_seen(images, labels, batch, look)
        return features

    def __call__(self, images: Images, *, batch: int = 64) -> list[Prediction]:
        """One prediction an image.

        Args:
            images: As ``Classifier.preprocess`` takes them.
            batch: Images at a time.

        Raises:
            DataError: If an image is not 8-bit RGB, or there is none.
            ModelError: If this is not fitted, or a batch normalisation is in training mode.
        """
        return [prediction for predictions in self.stream(images, batch=batch) for prediction in predictions]

    def stream(self, images: Images, *, batch: int = 64) -> Iterator[list[Prediction]]:
        """Predictions batch by batch; arguments and errors as those of a call. Between batches the network is free for others."""
        about = provenance(f"guard.{'+'.join(self.checks)}", caveats=self.caveats)
        several = batched(images)
        for start in starts(len(several), batch):
            yield self._judged(several[start : start + batch], about)

    @property
    def caveats(self) -> tuple[str, ...]:
        """Where the checks are blind."""
        return ((BACKDOOR_CAVEATS,) if BACKDOOR in self.checks else ()) + (
            OPEN_SET_CAVEATS if OPEN_SET in self.checks else ()
        )

    @property
    def expected_false_positive_rate(self) -> float | None:
        """At most this share of clean images is expected to be rejected: the sum over checks. None: a threshold was given."""
        wall = self.checks.get(BACKDOOR)
        if wall is not None and wall.config.threshold is not None:
            return None
        return float(sum(check.config.false_positive_rate for check in self.checks.values()))

    def _judged(self, images: Images, about: Mapping[str, Any]) -> list[Prediction]:
        wall, known = self.checks.get(BACKDOOR), self.checks.get(OPEN_SET)
        with self._alone():
            pixels = self.model.preprocess(images)
            if wall is not None:
                plain = wall.plain(pixels, features=known is not None)
            else:
                plain = plain_pass(self.model, pixels, features=True)
            found = {} if wall is None else {BACKDOOR: wall.judged(plain, {})}
            if known is not None:
                assert plain.features is not None
                found[OPEN_SET] = known.judged(plain.features.double().cpu().numpy(), {})
        probabilities = plain.logits.double().softmax(1).cpu().numpy()  # (n, classes)
        return [
            self._prediction(row, {name: verdicts[number] for name, verdicts in found.items()}, about)
            for number, row in enumerate(probabilities)
        ]

    def _prediction(
        self, probabilities: Float64[np.ndarray, "_classes"], verdicts: Mapping[str, Verdict], about: Mapping[str, Any]
    ) -> Prediction:
        label = int(probabilities.argmax())
        against = [name for name, verdict in verdicts.items() if not verdict.accepted]
        reason = "; ".join(f"{name}: {verdicts[name].reason}" for name in against or verdicts)
        evidence: dict[str, Any] = {
            "rejected_by": against,
            "expected_false_positive_rate": self.expected_false_positive_rate,
            **{name: dict(verdict.evidence) for name, verdict in verdicts.items()},
        }
        return Prediction(
            self.model.labels[label],
            float(probabilities[label]),
            Verdict(not against, reason, evidence, about),
        )

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """What every use and every change by edits of the same network takes; to be held in a ``with`` statement."""
        return self.model.edits.applied()  # no edit: only the lock that the stacks of a network share

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with interrupted_between_runs(self.model.network), self.lock:
            if in_force := [each.name for each in self.model.edits.list() if each.is_on]:
                raise ModelError(
                    f"{self.model.name}: edits are in force ({', '.join(in_force)}), and a guard speaks of the model without "
                    "them; unload them, or fuse them and fit again"
                )
            yield

    # -- files

    def stamped(self, provenance: Mapping[str, Any]) -> GuardedModel:
        """The same guard, saying where it comes from."""
        self.provenance = dict(provenance)
        return self

    def save(self, path: str | Path) -> None:
        """Write what was fitted, and which weights it belongs to; ``load_guarded`` is the inverse.

        Raises:
            ModelError: If this is not fitted.
        """
        checks = saved_checks(self.checks, self._fitted_on)
        with self._alone():
            digest = self.model.digest()
        save(SavedGuard(self.model.name, digest, checks, provenance("guard.guarded")), path)


def guarded(
    model: Classifier | str | Path,
    *,
    backdoor: bool | ScalingConsistencyConfig = True,
    open_set: bool | str | OpenSetConfig | OpenSetDetector = True,
    false_positive_rate: float = 0.05,
) -> GuardedModel:
    """Put checks around a classifier; ``fit`` it before it is asked. Also ``photopic.guarded``.

    Args:
        model: A classifier, or what ``Classifier.load`` takes.
        backdoor: Whether to look for backdoor triggers, or how.
        open_set: Whether to look for unknown classes and likely mistakes: True is ``"msp"``; the name of a scorer; a scorer with
            settings of its own; or how.
        false_positive_rate: At most this share of clean images is expected to be rejected, by all checks together; each gets an
            equal part. A check that is given as a configuration keeps its own.

    Raises:
        ModelError: If there is no such classifier, or it has no normalisation and the backdoor check is on.
        DataError: If both checks are off, or there is no such scorer.

    Example:
        >>> checked = guarded(model, open_set="energy").fit(clean_images, clean_labels)  # doctest: +SKIP
        >>> checked([image])[0].verdict.accepted  # doctest: +SKIP
        True
    """
    if not 0 < false_positive_rate < 1:
        raise DataError(f"false_positive_rate: expected between 0 and 1, found {false_positive_rate}")
    handle = model if isinstance(model, Classifier) else Classifier.load(model)
    share = false_positive_rate / ((backdoor is not False) + (open_set is not False) or 1)
    detector = open_set if isinstance(open_set, OpenSetDetector) else None
    wall: ScalingConsistencyConfig | None = None
    known: OpenSetConfig | None = None
    if backdoor is not False:
        wall = ScalingConsistencyConfig(false_positive_rate=share) if backdoor is True else backdoor
    if detector is not None:
        known = OpenSetConfig(name_of(detector), false_positive_rate=share)
    elif isinstance(open_set, OpenSetConfig):
        known = open_set
    elif open_set is not False:
        known = OpenSetConfig("msp" if open_set is True else str(open_set), false_positive_rate=share)
    return GuardedModel(
        handle,
        backdoor=None if wall is None else ScalingConsistency(handle, wall),
        open_set=None if known is None else OpenSetGuard(handle, known, detector),
    )


def load_guarded(path: str | Path, model: Classifier | str | Path | None = None) -> GuardedModel:
    """Read a guard that ``GuardedModel.save`` or ``photopic guard fit`` wrote.

    Args:
        path: The file.
        model: The classifier it was fitted on, or what ``Classifier.load`` takes; None: by the name in the file.

    Raises:
        GuardFileError: If the file is no guard, is damaged, or was made for other weights.
        ModelError: If the classifier cannot be loaded.

    Example:
        >>> guarded = load_guarded("emoji.guard", "emoji-resnet-64-0")  # doctest: +SKIP
    """
    saved, name = load(path), Path(path).name
    found = saved.model if model is None else model
    handle = found if isinstance(found, Classifier) else Classifier.load(found)
    if handle.digest() != saved.digest:
        raise GuardFileError(
            f"{name}: fitted on {saved.model} ({saved.digest[:12]}), found {handle.name} ({handle.digest()[:12]}); "
            "give the model it was fitted on, or fit again"
        )
    checks, fitted_on = restored_checks(name, saved, handle)
    guarded = GuardedModel(handle, backdoor=checks.get(BACKDOOR), open_set=checks.get(OPEN_SET))
    guarded._fitted_on = fitted_on
    return guarded
