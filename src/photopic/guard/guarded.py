"""A classifier that refuses: checks for backdoor triggers and for unknown or doubtful inputs around it, in one call.

>>> guarded = photopic.guarded("emoji-resnet-64-0").fit(clean_images, clean_labels)  # doctest: +SKIP
>>> [(each.label, each.verdict.accepted) for each in guarded(images)]  # doctest: +SKIP

The backdoor check writes into the model's weights for the time of a call and takes that back; so calls on one network wait for
each other, and an interruption takes effect before the network's next run, when nothing is half undone. Whoever runs the network by
other ways in other threads meanwhile holds ``GuardedModel.lock``.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float64, Int
from torch import nn

from photopic.core.errors import DataError, ModelError
from photopic.core.nn.hooks import tap
from photopic.core.results import Verdict, provenance
from photopic.guard._clean import check_reading, reading_of, tell_copies
from photopic.guard.amplified_norms import Amplified, ordered
from photopic.guard.guardfile import GuardFileError, SavedCheck, SavedGuard, load, save
from photopic.guard.open_set.guard import CAVEATS as OPEN_SET_CAVEATS
from photopic.guard.open_set.guard import OpenSetConfig, OpenSetGuard
from photopic.guard.scaling_consistency import CAVEATS as BACKDOOR_CAVEATS
from photopic.guard.scaling_consistency import Fitted, ScalingConsistency, ScalingConsistencyConfig
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images

BACKDOOR, OPEN_SET = "scaling_consistency", "open_set"  # the kinds of checks in a file
READING = "reading"  # among the settings of a check: how the classifier read pictures
_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()  # one a network, whoever guards it


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
        self.lock = _LOCKS.setdefault(model.network, threading.RLock())
        self._size: tuple[int, int] | None = None  # (height, width) of an image it was fitted on
        self.reading: Mapping[str, Any] | None = None  # how the classifier read pictures when this was fitted

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
            if BACKDOOR in self.checks:
                if labels is None:
                    raise DataError(
                        "labels: expected the class of every image, which the backdoor check needs, found none"
                    )
                self.checks[BACKDOOR].fit(images, labels, batch=batch)
            if OPEN_SET in self.checks:
                self.checks[OPEN_SET].fit(images, labels, references=references, batch=batch)
        first: Any = images[0]
        height, width = first.size[::-1] if hasattr(first, "getpixel") else first.shape[:2]
        self._size, self.reading = (int(height), int(width)), reading_of(self.model)
        return self

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
        if batch < 1:
            raise DataError(f"batch: expected 1 or more, found {batch}")
        about = provenance(f"guard.{'+'.join(self.checks)}", caveats=self.caveats)
        for start in range(0, max(1, len(images)), batch):  # an empty list reaches preprocess, which says so
            yield self._judged(images[start : start + batch], about)

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
        count = max(1, len(images))
        with self._alone(), tap(self.model.network, "") as seen:
            found = {name: check.predict(images, batch=count) for name, check in self.checks.items()}
        output = seen[""][0]  # every check runs the network as it is first
        probabilities = getattr(output, "logits", output).double().softmax(1).cpu().numpy()
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

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with _interrupted_between_runs(self.model.network), self.lock:
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
        checks = []
        if (wall := self.checks.get(BACKDOOR)) is not None:
            if wall.fitted is None or self._size is None:
                raise ModelError(f"{self.model.name}: the guard is not fitted; call fit with clean images first")
            fitted = {
                key: value for key, value in asdict(wall.fitted).items() if key != "log_doubt" or value is not None
            }
            state = {"config": asdict(wall.config), "fitted": fitted, "size": list(self._size)}
            checks.append(SavedCheck(BACKDOOR, state, {}))
        if (known := self.checks.get(OPEN_SET)) is not None:
            checks.append(SavedCheck(OPEN_SET, *known.state()))
        with self._alone():
            digest = self.model.digest()
        if self.reading is not None:  # files of before did not say
            checks = [replace(check, settings={**check.settings, READING: self.reading}) for check in checks]
        save(SavedGuard(self.model.name, digest, checks, provenance("guard.guarded")), path)


def guarded(
    model: Classifier | str | Path,
    *,
    backdoor: bool | ScalingConsistencyConfig = True,
    open_set: bool | str | OpenSetConfig = True,
    false_positive_rate: float = 0.05,
) -> GuardedModel:
    """Put checks around a classifier; ``fit`` it before it is asked. Also ``photopic.guarded``.

    Args:
        model: A classifier, or what ``Classifier.load`` takes.
        backdoor: Whether to look for backdoor triggers, or how.
        open_set: Whether to look for unknown classes and likely mistakes: True is ``"msp"``; the name of a scorer; or how.
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
    wall: ScalingConsistencyConfig | None = ScalingConsistencyConfig(false_positive_rate=share)
    known: OpenSetConfig | None = OpenSetConfig(false_positive_rate=share)
    if not isinstance(backdoor, bool):
        wall = backdoor
    elif not backdoor:
        wall = None
    if isinstance(open_set, OpenSetConfig):
        known = open_set
    elif isinstance(open_set, str):
        known = OpenSetConfig(open_set, false_positive_rate=share)
    elif not open_set:
        known = None
    return GuardedModel(
        handle,
        backdoor=None if wall is None else ScalingConsistency(handle, wall),
        open_set=None if known is None else OpenSetGuard(handle, known),
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
    made: dict[str, Any] = {}
    for check in saved.checks:
        if check.kind in made or check.kind not in (BACKDOOR, OPEN_SET):
            raise GuardFileError(f"{name}: expected checks {BACKDOOR} and {OPEN_SET}, each once, found {check.kind}")
        settings = dict(check.settings)
        if (reading := settings.pop(READING, None)) is not None:
            check_reading(name, reading, handle)
        of_state = _backdoor if check.kind == BACKDOOR else OpenSetGuard.of_state
        made[check.kind] = of_state(handle, settings, check.arrays)
    guarded = GuardedModel(handle, backdoor=made.get(BACKDOOR), open_set=made.get(OPEN_SET))
    sizes = [check.settings["size"] for check in saved.checks if check.kind == BACKDOOR]
    guarded._size = tuple(sizes[0]) if sizes else None
    guarded.reading = saved.checks[0].settings.get(READING)
    return guarded


def _backdoor(model: Classifier, settings: Any, arrays: Mapping[str, np.ndarray]) -> ScalingConsistency:
    """The check that gave this state, around the same model."""
    try:
        config, fitted = (_with_tuples(settings[key]) for key in ("config", "fitted"))
        wall = ScalingConsistency(model, ScalingConsistencyConfig(**config))
        found = Fitted(**fitted)
        height, width = settings["size"]
        blank = np.zeros((1, int(height), int(width), 3), np.uint8)
        order, layers = ordered(model, blank, as_registered=wall.config.compat == "published-code")
        if layers != found.layers or not all(1 <= size <= len(layers) for size in found.sizes):
            raise ValueError(f"normalisations {found.layers[:2]}")
    except (TypeError, KeyError, ValueError) as error:
        raise GuardFileError(
            f"{BACKDOOR}: expected the settings of a guard of {model.name}, found others ({error})"
        ) from error
    wall.fitted = replace(found, threshold=float(found.threshold))
    wall._amplified = Amplified(model, order, layers, float(found.omega))
    return wall


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@contextmanager
def _interrupted_between_runs(network: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block Ctrl-C takes effect before the network's next run, or at the end of the block.

    Python raises KeyboardInterrupt at any point of the main thread, also while something is being put back.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    held: list[tuple[Any, Any]] = []

    def deliver(*_: Any) -> None:
        if held:
            handler(*held.pop())

    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        hook = network.register_forward_pre_hook(deliver)
        try:
            yield
        finally:
            hook.remove()
    finally:
        signal.signal(signal.SIGINT, handler)
        deliver()
