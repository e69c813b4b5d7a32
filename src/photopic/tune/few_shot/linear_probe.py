"""Linear probe: a linear classifier over frozen image features, without the class names.

Paper: CLIP (arXiv:2103.00020) fits a logistic regression with L-BFGS and chooses its strength on a validation split. Changed: the
strength is chosen on held-back shots, and features have length 1. ``solver="adam"`` trains the same head on the augmented batches
that the other methods see. Claim: ``few_shot.accuracy`` of benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import LinearHead
from photopic.learning.few_shot_batches import Step, Training, check_trainable
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.tune.few_shot._common import best_setting, done, fit, held_back

Head = tuple[Float[Tensor, "classes dim"], Float[Tensor, " classes"]]


@dataclass(frozen=True)
class LinearProbeConfig:
    """How to fit."""

    solver: Literal["logistic", "adam"] = "logistic"  # adam: on the augmented batches that all methods see
    strengths: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0, 1000.0)  # C of scikit-learn to choose from
    default_strength: float = 10.0  # C where no shot can be held back
    training: Training = field(default_factory=lambda: Training(steps=200, lr=0.05))  # Adam; the seed holds back


def linear_probe(
    model: DualEncoder,
    data: LabelledImages,
    *,
    config: LinearProbeConfig = LinearProbeConfig(),
    templates: Sequence[str] = TEMPLATES,
) -> Iterator[Step]:
    """Fit a linear head; the last event carries a ``LinearHead`` as ``tuned``.

    Args:
        model: Its weights are never written.
        data: The shots.
        config: How to fit.
        templates: Not read: a linear probe does without names.

    Raises:
        DataError: If there is one class only, or a class without pictures.

    Example:
        >>> finished(linear_probe(model, data)).trainable  # doctest: +SKIP
        258
    """
    check_trainable(data)
    if config.solver == "adam":
        yield from _adam(model, data, config)
        return
    yield Step("preparing")
    features = model.image_features(data.images)
    weight, bias = _logistic(features, data.labels, len(data.names), _strength(model, data, config))
    accuracy = float(((features @ weight.mT + bias).argmax(1).numpy() == data.labels).mean())
    yield Step("done", accuracy=accuracy, tuned=LinearHead(model, weight, bias))


def _adam(model: DualEncoder, data: LabelledImages, config: LinearProbeConfig) -> Iterator[Step]:
    width = model.image_features(data.images[:1]).shape[1]
    weight = torch.zeros(len(data.names), width, device=model.device, requires_grad=True)
    bias = torch.zeros(len(data.names), device=model.device, requires_grad=True)

    def logits(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            features = F.normalize(model.encode_pixels(pixels), dim=-1)
        return features @ weight.mT + bias

    last = Step("preparing")
    for last in fit(model, data, config.training, [weight, bias], logits):
        yield last
    yield done(config.training, last, LinearHead(model, weight.detach().cpu(), bias.detach().cpu()))


def _strength(model: DualEncoder, data: LabelledImages, config: LinearProbeConfig) -> float:
    """The C that is best on held-back shots."""
    parts = held_back(data, config.training.seed)
    if parts is None:
        return config.default_strength
    kept, held = parts
    features, judged = model.image_features(kept.images), model.image_features(held.images)
    found = {}
    for strength in config.strengths:
        weight, bias = _logistic(features, kept.labels, len(data.names), strength)
        found[strength] = judged @ weight.mT + bias
    best: float = best_setting(found, torch.from_numpy(held.labels))
    return best


def _logistic(features: Float[Tensor, "n dim"], labels: Int64[np.ndarray, " n"], classes: int, strength: float) -> Head:
    """Multinomial logistic regression; two classes become two rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=strength, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of weak penalties: far enough to choose and to name
        fitted.fit(features.double().numpy(), labels)
    weight, bias = torch.from_numpy(fitted.coef_).float(), torch.from_numpy(fitted.intercept_).float()
    if classes == 2:  # scikit-learn gives one row, for the second class
        return torch.cat([torch.zeros_like(weight), weight]), torch.cat([torch.zeros_like(bias), bias])
    return weight, bias
