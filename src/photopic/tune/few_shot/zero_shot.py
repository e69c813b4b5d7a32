"""Zero-shot classification: the names of the classes alone make the classifier; nothing is learnt.

Paper: CLIP (arXiv:2103.00020). The pictures to learn from are not looked at, only their names. Claim: ``few_shot.accuracy`` of
benchmarks/tune/few_shot.py, where every other method is compared with this one.
"""

from __future__ import annotations

from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.data.few_shot import FewShotTask
from photopic.learning.classifiers import TextClassifier
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates
from photopic.tune.few_shot._common import accuracy_view, measured


@method(
    paper="arXiv:2103.00020",
    claims="few_shot.",
    examples=("Example: photopic tune zero-shot emoji:held-out-style -o names/",),
    view=accuracy_view,
    allow_edits=True,
)
def zero_shot(model: DualEncoder, data: FewShotTask, *, templates: Templates = TEMPLATES) -> Steps[TextClassifier]:
    """The classifier that the class names make, as a few-shot method that learns nothing: what others are compared with.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: Only its names are read, and what is measured on.
        templates: Sentence with {} where a class name goes; several times.

    Returns:
        The classifier.

    Raises:
        DataError: If a name has no token of the model, or a template has no place for it.

    Example:
        >>> zero_shot(model, data).logits(images)  # doctest: +SKIP
    """
    yield Event("preparing")
    rows = model.class_features(data.train.names, templates)
    found = TextClassifier(model, rows, templates=templates, names=data.train.names)
    return measured(found, model, data.test, rows)
