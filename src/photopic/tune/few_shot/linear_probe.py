"""Linear probe: a linear classifier over frozen image features, without the class names.

Paper: CLIP (arXiv:2103.00020) fits a logistic regression with L-BFGS and chooses its strength on a validation split. Changed:
the strength is chosen on held-back shots, and features have length 1. The preset ``paper`` tries all 96 strengths from 1e-6
to 1e6, eight a decade, that its appendix A.3 names; the paper tries seven of them and halves its way to the best from there,
and so does the few-shot code of CoOp (KaiyangZhou/CoOp, lpclip/linear_probe.py at 61a9cd3).
``solver="adam"`` trains the same head on the augmented batches that the other methods see. Claim: ``few_shot.accuracy`` of
benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Gt
from jaxtyping import Float, Int64
from torch import Tensor

from photopic.core.edits import ClassifierHead, Edit
from photopic.core.events import Event, Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.few_shot_batches import Training, check_trainable
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.tune.few_shot._common import (
    Classifying,
    accuracy_view,
    as_edit,
    best_setting,
    frozen_features,
    held_back,
    unit_rows,
)

Head = tuple[Float[Tensor, "classes dim"], Float[Tensor, " classes"]]


@dataclass(frozen=True, kw_only=True)
class LinearProbeConfig(Training):
    """How to fit; steps, rate, batch and crops are of ``adam`` alone."""

    # logistic: regression on the pictures as they are; adam: on the augmented batches that all methods see
    solver: Literal["logistic", "adam"] = "logistic"
    # penalties to choose from, C of scikit-learn: more fits the shots closer
    strengths: Annotated[tuple[float, ...], Gt(0)] = (0.1, 1.0, 10.0, 100.0, 1000.0)
    default_strength: Annotated[float, Gt(0)] = 10.0  # C where no shot can be held back to choose it
    lr: Annotated[float, Gt(0)] = 0.05  # size of a step at first; it falls along a half cosine


@method(
    paper="arXiv:2103.00020",
    claims="few_shot.",
    presets={"paper": LinearProbeConfig(strengths=tuple(10 ** (12 * place / 95 - 6) for place in range(96)))},
    examples=("Example: photopic tune linear-probe emoji:held-out-style --shots 4 -o probe.edit",),
    view=accuracy_view,
)
def linear_probe(
    model: DualEncoder, data: FewShotTask, *, config: LinearProbeConfig = LinearProbeConfig(), run: Run | None = None
) -> Steps[Edit]:
    """Fit a linear classifier over the features of the frozen image encoder, without the class names.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: A few pictures of each class, and perhaps others to measure on.
        config: How to fit.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The classifier, a head without any change of the model.

    Raises:
        DataError: If there is one class only, or a class without pictures.

    Example:
        >>> TunedClassifier(model, linear_probe(model, data)).trainable  # doctest: +SKIP
        258
    """
    check_trainable(data.train)
    yield Event("preparing")
    if config.solver == "adam":
        weight, bias = yield from _adam(model, data.train, config, run)
    else:
        features = model.image_features(data.train.images)
        strength = _strength(model, data.train, config)
        weight, bias = _logistic(features, data.train.labels, len(data.train.names), strength)
    head = ClassifierHead(data.train.names, weight, bias)
    rows = (
        unit_rows(model, data.train, TEMPLATES) if data.test is not None else weight
    )  # the names, to measure beside it
    return as_edit([head], (), model, data, rows, trained=weight.numel() + bias.numel())


def _adam(model: DualEncoder, data: LabelledImages, config: LinearProbeConfig, run: Run | None) -> Steps[Head]:
    width = model.image_features(data.images[:1]).shape[1]
    weight = torch.zeros(len(data.names), width, device=model.device, requires_grad=True)
    bias = torch.zeros(len(data.names), device=model.device, requires_grad=True)

    def logits(pixels: Tensor) -> Tensor:
        return frozen_features(model, pixels) @ weight.mT + bias  # (batch, dim) @ (dim, classes)

    learner = Classifying(model, data, config, {"weight": weight, "bias": bias}, logits)
    yield from fit(learner, config.steps, run=run)
    return weight.detach().cpu(), bias.detach().cpu()


def _strength(model: DualEncoder, data: LabelledImages, config: LinearProbeConfig) -> float:
    """The C that is best on held-back shots."""
    parts = held_back(data, config.seed)
    if parts is None:
        return config.default_strength
    kept, held = parts
    features, judged = model.image_features(kept.images), model.image_features(held.images)

    def logits(strength: float) -> Tensor:
        weight, bias = _logistic(features, kept.labels, len(data.names), strength)
        return judged @ weight.mT + bias  # (n, dim) @ (dim, classes)

    return best_setting(config.strengths, logits, torch.from_numpy(held.labels))


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
        # softmax of (0, z) is sigmoid(z)
        return torch.cat([torch.zeros_like(weight), weight]), torch.cat([torch.zeros_like(bias), bias])
    return weight, bias
