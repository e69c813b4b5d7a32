"""An open-set detector around a classifier: pictures in, verdicts out. The classifier is only read.

Fitted on clean pictures: one part teaches the detector, another sets the threshold by split conformal calibration, so that the
expected share of new clean pictures that is rejected is at most the rate asked for, whatever the score. The rate speaks of pictures
like the clean ones; pictures from elsewhere may be rejected more often, which is the purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int
from sklearn.base import clone

from photopic.core.errors import DataError, ModelError
from photopic.core.results import Verdict, provenance
from photopic.guard._clean import check_answers
from photopic.guard._plain import BoundWeights
from photopic.guard.open_set import FEW_SHOT, SCORERS, scorer
from photopic.guard.open_set._common import REFERENCE, OpenSetDetector
from photopic.guard.open_set.logits import LogitDetector
from photopic.guard.open_set.state import detector_of, state_of
from photopic.metrics.conformal import conformal_threshold, false_positive_band
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images, starts

CAVEATS = (
    "the rate of false positives is that of pictures like the clean ones it was calibrated on",
    "a picture of an unknown class may look like a known one to the classifier, and is then accepted",
    "an input made to deceive the classifier may deceive the score too",
)


@dataclass(frozen=True)
class OpenSetConfig:
    """How to guard."""

    scorer: str = "msp"  # a key of SCORERS
    false_positive_rate: float = 0.05  # of clean pictures, expected to be rejected at most
    calibration_share: float = 0.5  # of the clean pictures; all of them for scorers that learn nothing
    seed: int = 0  # of which pictures calibrate

    def __post_init__(self) -> None:
        if self.scorer not in SCORERS:
            raise DataError(f"scorer {self.scorer}: expected one of {', '.join(SCORERS)}")
        for name in ("false_positive_rate", "calibration_share"):
            if not 0 < (value := getattr(self, name)) < 1:
                raise DataError(f"{name}: expected between 0 and 1, found {value}")


class OpenSetGuard:
    """A classifier that knows when to refuse.

    Args:
        model: The classifier.
        config: How to guard.
        detector: One with other settings than its default; the head is filled in. None: the scorer's default.

    Raises:
        DataError: If the detector is not of the scorer's kind.

    Example:
        >>> guard = OpenSetGuard(model).fit(clean_images)  # doctest: +SKIP
        >>> [verdict.reason for verdict in guard.predict(images)]  # doctest: +SKIP
    """

    def __init__(
        self, model: Classifier, config: OpenSetConfig = OpenSetConfig(), detector: OpenSetDetector | None = None
    ):
        if not issubclass(SCORERS[config.scorer], LogitDetector):
            model.check_layers(f"scorer {config.scorer}")
        head = (model.head.weight, model.head.bias) if model.shows_layers else None
        self.model, self.config = model, config
        self.detector = scorer(config.scorer, head=head) if detector is None else clone(detector)
        if type(self.detector) is not SCORERS[config.scorer]:
            raise DataError(f"detector: expected one of scorer {config.scorer}, found a {type(self.detector).__name__}")
        if "head" in self.detector.get_params():
            self.detector.set_params(head=head)
        self.calibration: Float64[np.ndarray, "n"] | None = None
        self._weights: BoundWeights | None = None

    def fit(
        self,
        images: Images,
        labels: Sequence[int] | Int[np.ndarray, "_labels"] | None = None,
        *,
        references: Any = None,
        batch: int = 64,
    ) -> OpenSetGuard:
        """Learn what is normal from clean pictures.

        Args:
            images: A few hundred clean pictures of classes the model knows, as ``Classifier.preprocess`` takes them; not those the
                model was trained on, of which it is surer than of new ones.
            labels: Their classes, for detectors that ask for them.
            references: Pictures of what to reject, in the same form, for few-shot scorers.
            batch: Pictures read at a time.

        Raises:
            DataError: If there are too few pictures for the rate or the detector, or labels do not fit.
        """
        return self.fit_seen(self._features(images, batch), labels, references=references, batch=batch)

    def fit_seen(
        self,
        features: Float64[np.ndarray, "n width"],
        labels: Sequence[int] | Int[np.ndarray, "_labels"] | None = None,
        *,
        references: Any = None,
        batch: int = 64,
    ) -> OpenSetGuard:
        """As ``fit``, from the features of the clean pictures."""
        if labels is not None and len(labels) != len(features):
            raise DataError(f"labels: expected {len(features)}, one a picture, found {len(labels)}")
        check_answers(self.model, self._logits(features), None if labels is None else np.asarray(labels))
        if (references is not None) != (self.config.scorer in FEW_SHOT):
            needs = "needs references" if references is None else f"takes no references; {', '.join(FEW_SHOT)} do"
            raise DataError(f"scorer {self.config.scorer}: {needs}")
        mixed = np.random.default_rng(self.config.seed).permutation(len(features))
        held_out = round(len(mixed) * self.config.calibration_share)
        learning, calibrating = (mixed[held_out:], mixed[:held_out]) if self.detector.learned else (mixed, mixed)
        if not len(learning) or not len(calibrating):
            raise DataError(f"clean pictures: expected a few hundred, found {len(mixed)}")
        rows, y = features[learning], None if labels is None else np.asarray(labels)[learning]
        if references is not None:
            shots = self._features(references, batch)
            y = np.append(np.zeros(len(rows), int) if y is None else y, np.full(len(shots), REFERENCE))
            rows = np.concatenate([rows, shots])
        self.detector.fit(rows, y)
        self.calibration = np.sort(self.detector.rejection_scores(features[calibrating]))
        self.detector.offset_ = -conformal_threshold(self.calibration, self.config.false_positive_rate)
        self._weights = BoundWeights(self.model)
        return self

    def score(self, images: Images, *, batch: int = 64) -> Float64[np.ndarray, "n"]:
        """One score a picture, higher = reject.

        Raises:
            ModelError: If this is not fitted.
            DataError: If a picture is not 8-bit RGB, or there is none.
        """
        self._found()
        return self.detector.rejection_scores(self._features(images, batch))

    def stream(self, images: Images, *, batch: int = 64) -> Iterator[list[Verdict]]:
        """Verdicts batch by batch.

        Yields:
            One list a batch. Evidence: ``label``, the prediction; ``probability`` of it; ``score``, higher = reject; ``threshold``;
            ``p_value``, the chance of a score as high on a clean picture; ``expected_false_positive_rate``.
        """
        about = self.about()
        for start in starts(len(images), batch):
            yield self.judged(self._features(images[start : start + batch], batch), about)

    def about(self) -> dict[str, Any]:
        """The provenance of its verdicts."""
        clean = len(self._found())
        band = false_positive_band(clean, self.config.false_positive_rate)
        config = asdict(self.config)
        return provenance("guard.open_set", config=config, clean=clean, false_positive_band=band, caveats=CAVEATS)

    def judged(self, features: Float64[np.ndarray, "n width"], about: Mapping[str, Any]) -> list[Verdict]:
        """Verdicts on the features of a batch.

        Args:
            features: As ``Classifier.features`` gives them.
            about: Their provenance.

        Raises:
            ModelError: If this is not fitted, or the weights are not those it was fitted on any more.
        """
        clean, rate, threshold = self._found(), self.config.false_positive_rate, -self.detector.offset_
        assert self._weights is not None
        self._weights.moved()
        logits, scores = self._logits(features), self.detector.rejection_scores(features)  # (n, classes), (n,)
        likely = logits.argmax(1)
        sums = np.exp(logits - logits.max(1, keepdims=True)).sum(1)  # 1 / the largest probability
        p_values = (1 + len(clean) - np.searchsorted(clean, scores, "left")) / (len(clean) + 1)
        verdicts = []
        for label, total, score, p_value in zip(likely, sums, scores, p_values, strict=True):
            accepted, name = bool(score <= threshold), self.model.labels[label]
            unusual = f"{p_value:.1%} of clean pictures are as unusual ({self.config.scorer})"
            evidence = {
                "label": name, "probability": float(1 / total), "score": float(score), "threshold": float(threshold),
                "p_value": float(p_value), "expected_false_positive_rate": rate,
            }  # fmt: skip
            reason = f"taken for {name!r}; {unusual}" if accepted else f"not trusted as {name!r}: {unusual}"
            verdicts.append(Verdict(accepted, reason, evidence, about))
        return verdicts

    def predict(self, images: Images, *, batch: int = 64) -> list[Verdict]:
        """One verdict a picture: drives ``stream`` to its end."""
        return [verdict for verdicts in self.stream(images, batch=batch) for verdict in verdicts]

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON settings and float64 arrays from which ``of_state`` makes the same guard; the head is the model's."""
        settings, arrays = state_of(self.detector)
        return {"config": asdict(self.config), "detector": settings}, {**arrays, "calibration": self._found()}

    @classmethod
    def of_state(cls, model: Classifier, settings: Any, arrays: Mapping[str, np.ndarray]) -> OpenSetGuard:
        """The guard that gave this state, around the same model.

        Raises:
            DataError: If the state is not one that ``state`` gives.
        """
        try:
            config = OpenSetConfig(**settings["config"])
            described = settings["detector"]
        except (TypeError, KeyError) as error:
            raise DataError(f"open_set: expected the settings of a guard, found others ({error})") from None
        learned = {name: values for name, values in arrays.items() if name != "calibration"}
        guard = cls(model, config)
        guard.detector = detector_of(type(guard.detector), described, learned, guard.detector.head)
        clean = arrays.get("calibration")
        if clean is None or clean.ndim != 1 or not len(clean) or (np.diff(clean) < 0).any():
            raise DataError("open_set: calibration: expected scores in ascending order, found something else")
        width = model.head.in_features if model.shows_layers else len(model.labels)
        if guard.detector.n_features_in_ != width:
            raise DataError(
                f"open_set: made for features of {guard.detector.n_features_in_} numbers, {model.name} has {width}"
            )
        guard.calibration, guard._weights = clean, BoundWeights(model)
        return guard

    def _features(self, images: Images, batch: int) -> Float64[np.ndarray, "n width"]:
        read = self.model.features if self.model.shows_layers else self.model.logits
        return read(images, batch=batch).double().numpy()

    def _logits(self, features: Float64[np.ndarray, "n width"]) -> Float64[np.ndarray, "n classes"]:
        if not self.model.shows_layers:
            return features
        head = self.model.head
        logits = features @ head.weight.detach().double().cpu().numpy().T
        return logits if head.bias is None else logits + head.bias.detach().double().cpu().numpy()

    def _found(self) -> Float64[np.ndarray, "n"]:
        if self.calibration is None:
            raise ModelError(f"{self.model.name}: the guard is not fitted; call fit with clean pictures first")
        return self.calibration
