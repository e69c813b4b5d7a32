"""Full fine-tuning: every weight of the image tower is trained on the shots; the text tower and its class rows stay.

The plain baseline of every few-shot paper, here with the budget of the others. Batch normalisations stay in evaluation mode. The
result is a dense delta. Claim: ``few_shot.accuracy`` of benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from photopic.core.edits import DenseDelta
from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.few_shot_batches import Step, Training
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.tune.few_shot._common import check_bare, done, edit_of, fit_weights, image_parameters


@dataclass(frozen=True)
class FullConfig:
    """How to train; written into the edit."""

    training: Training = field(default_factory=lambda: Training(steps=200, lr=3e-4))  # Adam


def full_fine_tuning(
    model: DualEncoder,
    data: LabelledImages,
    *,
    config: FullConfig = FullConfig(),
    templates: Sequence[str] = TEMPLATES,
) -> Iterator[Step]:
    """Train the whole image tower, reporting after every step; the last event carries a ``TextClassifier`` as ``tuned``.

    Args:
        model: Its weights are never written.
        data: The shots.
        config: How to train.
        templates: Sentences with ``{}`` where a class name goes.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.
        EditError: If the model has edits applied.

    Example:
        >>> finished(full_fine_tuning(model, data)).edit  # doctest: +SKIP
    """
    check_bare(model)
    base = image_parameters(model)
    rows = model.class_features(data.names, templates).to(model.device)
    found, last = yield from fit_weights(model, data, config.training, list(base), rows)
    deltas = {name: tensor - base[name] for name, tensor in found.items()}
    deltas = {name: delta for name, delta in deltas.items() if bool(delta.any())}
    edit = edit_of(DenseDelta(deltas), list(deltas), model, data, "full", config)
    trained = sum(each.numel() for each in base.values())
    yield done(config.training, last, TextClassifier(model, rows.cpu(), edit, trained, templates=templates))
