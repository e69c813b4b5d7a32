"""Logits of classes with other weights in the place of a model's own, for classifiers and for dual encoders alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.errors import DataError, ModelError
from photopic.models.classifier import Classifier
from photopic.models.dual_encoder import DualEncoder
from photopic.models.handle import Handle

Logits = Callable[[Float[Tensor, "n 3 height width"]], Float[Tensor, "n classes"]]


def class_logits(model: Handle, names: Sequence[str] | None = None) -> Callable[[Mapping[str, Tensor]], Logits]:
    """From weights, by the names that edits use, to logits of pixel values; gradients flow to the weights.

    Args:
        model: A classifier, whose classes are its own; or a dual encoder, whose classes are told by names.
        names: Of the classes; a classifier does not ask.

    Raises:
        ModelError: If the model is of another kind.
        DataError: If a dual encoder is given no names.

    Example:
        >>> class_logits(model)({"network.head.weight": weight})(pixels)  # doctest: +SKIP
    """
    if isinstance(model, Classifier):
        return model.functional
    if not isinstance(model, DualEncoder):
        raise ModelError(f"{model.name}: expected a classifier or a dual encoder, found {model.described}")
    if not names:
        raise DataError("classes: expected pictures in one sub-folder a class, which name them, found pictures alone")
    rows = model.class_features(names).to(model.device)  # (classes, dim), of length 1

    def with_weights(weights: Mapping[str, Tensor]) -> Logits:
        features = model.functional(weights)  # pixels -> (n, dim)
        return lambda pixels: model.logit_scale * F.normalize(features(pixels), dim=-1) @ rows.mT

    return with_weights
