"""Fit a guard around a classifier from a folder of clean pictures: what ``photopic guard fit`` and ``guard serve --clean`` do.

One half of the pictures teaches what is normal, the other sets the threshold (split conformal). The scores are those of
``guard.open_set`` and ``guard.scaling_consistency``; their papers and claims are named there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError, FieldError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.view import Section, Text, View
from photopic.data.class_folder import ClassFolder
from photopic.guard.guarded import GuardedModel, guarded
from photopic.guard.open_set import scorer
from photopic.models.classifier import Classifier

Scorer = Literal[
    "msp", "max-logit", "energy", "doctor", "entropy", "knn", "mahalanobis", "rmds", "vim", "react", "sirc",
    "fs-knn", "ssd", "fs-knns",
]  # fmt: skip
WITH_COVARIANCE = ("mahalanobis", "rmds")  # scorers that whiten features by their covariance


@dataclass(frozen=True)
class GuardConfig(Config):
    """How to guard."""

    # what tells unknown classes and likely mistakes: msp, the doubt of the classifier itself, needs nothing else and is hard to
    # beat at mistakes; fs-knn, ssd and fs-knns learn from --reject; rmds needs classes
    scorer: Scorer = "msp"
    # of mahalanobis and rmds alone: ledoit-wolf shrinks the covariance, which few pictures need; empirical does not, as published
    covariance: Literal["ledoit-wolf", "empirical"] | None = None
    backdoor: bool = False  # also look for backdoor triggers; takes several times as long a picture
    # at most this share of clean pictures is expected to be rejected, by all checks together; 0.01 needs about 200 of them
    rate: Annotated[float, Ge(1e-4), Le(0.5)] = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.covariance is not None and self.scorer not in WITH_COVARIANCE:
            raise FieldError("covariance", f"scorer {self.scorer} has none; {' and '.join(WITH_COVARIANCE)} do")


def guard_view(made: GuardedModel) -> View:
    """What the guard promises, in one line."""
    rate = made.expected_false_positive_rate
    text = (
        f"{', '.join(made.checks)}; rejects at most {rate:.1%} of clean pictures like those it was fitted on, expected"
    )
    return View("guard", [Section("", [Text(text)])])


@method(
    claims="firewall. open_set.",
    command="guard fit",
    examples=(
        "Example: photopic guard fit emoji-resnet-64-0 clean/ -o emoji.guard",
        "With shots of what to reject: photopic guard fit emoji-resnet-64-0 clean/ --scorer fs-knns --reject others/ -o few.guard",
    ),
    view=guard_view,
    after=("next: photopic guard check {output} pictures/",),
)
def fit_guard(
    model: Classifier,
    clean: ClassFolder,
    *,
    reject: Annotated[ClassFolder | None, Flags("--reject")] = None,
    config: GuardConfig = GuardConfig(),
) -> Steps[GuardedModel]:
    """Fit a guard around a classifier from clean pictures.

    One half of the pictures teaches what is normal, the other sets the threshold (split conformal): whatever the score, at most
    the rate asked for of new pictures like these is expected to be rejected. The guard belongs to these weights, this
    preprocessing and these class names, and no others.

    Args:
        model: A bundled classifier, a folder with one of transformers, or a hub id; only read.
        clean: A few hundred pictures that nobody tampered with and that the model was not trained on, one sub-folder a class.
        reject: Folder of pictures of what to reject, 1 to 5 of a kind, for fs-knn, ssd and fs-knns.
        config: How to guard.

    Returns:
        The classifier with its checks.

    Raises:
        DataError: If there are too few pictures for the rate, classes are missing that a check needs, or the model names no more
            of them right than guessing.
        ModelError: If the model answers in probabilities, or has nothing to amplify and ``backdoor`` is on.

    Example:
        >>> checked = fit_guard(model, load_classes("clean"))  # doctest: +SKIP
    """
    labels = clean.labels(model.labels)
    if labels is None and (config.backdoor or config.scorer == "rmds"):
        raise DataError(
            f"{clean.files[0].parent}: expected one sub-folder a class, which --backdoor and rmds need, found pictures "
            "alone; sort them into sub-folders named as the model's classes"
        )
    settings = {} if config.covariance is None else {"covariance": config.covariance}
    detector = scorer(config.scorer, **settings)  # the guard fills in the head
    yield Event("fitting", total=len(clean))
    made = guarded(model, backdoor=config.backdoor, open_set=detector, false_positive_rate=config.rate)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made.fit(clean, labels, references=reject)
    for warning in said:
        yield Event("fitting", len(clean), len(clean), warning=str(warning.message))
    return made
