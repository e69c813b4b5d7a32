"""BitFit: only the biases of the image tower are trained, those of its normalisations included.

Paper: BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models (arXiv:2106.10199). Changed: an
image tower, and no new head, since the class names make one. The result is an edit of values. Claim: ``few_shot.accuracy`` of
benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from photopic.core.edits import SparseWeights
from photopic.core.errors import ModelError
from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.few_shot_batches import Step, Training
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.tune.few_shot._common import check_bare, done, edit_of, fit_weights, image_parameters


@dataclass(frozen=True)
class BiasOnlyConfig:
    """How to train; written into the edit."""

    training: Training = field(default_factory=lambda: Training(steps=200, lr=1e-2))  # Adam


def bias_only(
    model: DualEncoder,
    data: LabelledImages,
    *,
    config: BiasOnlyConfig = BiasOnlyConfig(),
    templates: Sequence[str] = TEMPLATES,
) -> Iterator[Step]:
    """Train the biases of the image tower, reporting after every step; the last event carries a ``TextClassifier`` as ``tuned``.

    Args:
        model: Its weights are never written.
        data: The shots.
        config: How to train.
        templates: Sentences with ``{}`` where a class name goes.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.
        EditError: If the model has edits applied.
        ModelError: If the image tower has no bias.

    Example:
        >>> finished(bias_only(model, data)).trainable  # doctest: +SKIP
        4736
    """
    check_bare(model)
    biases = [name for name in image_parameters(model) if name.endswith(".bias")]
    if not biases:
        raise ModelError(f"{model.name}: expected biases in its image tower to train, found none; use LoRA instead")
    rows = model.class_features(data.names, templates).to(model.device)
    found, last = yield from fit_weights(model, data, config.training, biases, rows)
    values = {name: tensor.reshape(-1) for name, tensor in found.items()}
    indices = {name: torch.arange(value.numel()) for name, value in values.items()}
    edit = edit_of(SparseWeights(indices, values), biases, model, data, "bias_only", config)
    trained = sum(value.numel() for value in values.values())
    yield done(config.training, last, TextClassifier(model, rows.cpu(), edit, trained, templates=templates))
