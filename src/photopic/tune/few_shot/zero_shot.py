"""Zero-shot classification: the names of the classes alone make the classifier; nothing is learnt.

Paper: CLIP (arXiv:2103.00020). The pictures given are not looked at, only their names. Claim: ``few_shot.accuracy`` of
benchmarks/tune/few_shot.py, where every other method is compared with this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.few_shot_batches import Step
from photopic.models.dual_encoder import TEMPLATES, DualEncoder


def zero_shot(model: DualEncoder, data: LabelledImages, *, templates: Sequence[str] = TEMPLATES) -> Iterator[Step]:
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
    rows = model.class_features(data.names, templates)
    yield Step("done", tuned=TextClassifier(model, rows, templates=templates))
