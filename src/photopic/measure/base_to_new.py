"""The base-to-new protocol: learn from half of the classes, measure on both halves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from photopic.data.few_shot import LabelledImages, base_and_new
from photopic.learning.classifiers import TextClassifier
from photopic.models.dual_encoder import TEMPLATES, DualEncoder

if TYPE_CHECKING:
    from photopic.core.edits import Edit


class BaseToNew(NamedTuple):
    """Accuracy on the classes that were trained on, and on those that were not."""

    base: float
    new: float

    @property
    def harmonic_mean(self) -> float:
        """2 x base x new / (base + new); 0 where both are."""
        total = self.base + self.new
        return 2 * self.base * self.new / total if total else 0.0


def base_to_new(
    model: DualEncoder, test: LabelledImages, edit: Edit | None, templates: Sequence[str] = TEMPLATES
) -> BaseToNew:
    """Accuracy of an edit learnt from the base classes alone, among the base classes and among the new ones.

    Args:
        model: The base model.
        test: Pictures of all classes; ``data.few_shot.base_and_new`` of its names says which are base.
        edit: Learnt from ``train.classes(base)``; None measures the model as it is.
        templates: Sentences that make the classifiers of the class names.

    Raises:
        DataError: If there are fewer than four classes.

    Example:
        >>> base, new = base_and_new(train.names)  # doctest: +SKIP
        >>> edit = mask_tuning(model, FewShotTask(train.classes(base).shots(16, seed=0)))  # doctest: +SKIP
        >>> base_to_new(model, test, edit).harmonic_mean  # doctest: +SKIP
    """
    found = []
    for part in map(test.classes, base_and_new(test.names)):
        classifier = TextClassifier(model, model.class_features(part.names, templates), edit)
        found.append(float((classifier.logits(part.images).argmax(1).numpy() == part.labels).mean()))
    return BaseToNew(*found)
