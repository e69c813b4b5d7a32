"""Zero-shot classification: the names of the classes alone make the classifier; nothing is learnt.

Paper: CLIP (arXiv:2103.00020). The pictures given are not looked at, only their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.models.few_shot_model import TextClassifier

if TYPE_CHECKING:
    from photopic.data.few_shot import LabelledImages


def zero_shot(
    model: DualEncoder, data: LabelledImages, *, templates: Sequence[str] = TEMPLATES
) -> Iterator[TextClassifier]:
    """The classifier that the class names make, as a few-shot method that learns nothing.

    Args:
        model: A dual encoder.
        data: Only its names are read.
        templates: Sentences with ``{}`` where a name goes.

    Raises:
        DataError: If a name has no token of the model, or a template has no place for it.

    Example:
        >>> finished(zero_shot(model, data)).logits(images)  # doctest: +SKIP
    """
    yield TextClassifier(model, model.class_features(data.names, templates))
