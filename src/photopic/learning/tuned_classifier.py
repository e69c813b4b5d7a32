"""A classifier as one file: an edit of the image tower together with the head that was learnt with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import Adapters, ClassifierHead, Edit
from photopic.core.edits import file as edit_file
from photopic.core.errors import EditError
from photopic.learning.classifiers import TextClassifier, Tuned, edit_bytes, edited_features
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.models.preprocessing import Images


@dataclass(frozen=True, eq=False)
class TunedClassifier:
    """A model, and an edit with a head, applied inside ``logits`` only.

    Attributes:
        model: The base model.
        edit: With one part of kind ``head``; without others the tower stays as it is.

    Raises:
        EditError: If the edit has no head.

    Example:
        >>> classifier = TunedClassifier.load(model, "pets.edit")  # doctest: +SKIP
        >>> classifier.predict(images)  # doctest: +SKIP
        ['mug', 'bear']
    """

    model: DualEncoder
    edit: Edit

    def __post_init__(self) -> None:
        if not self.edit.of(ClassifierHead):
            kinds = ", ".join(sorted({part.kind for part in self.edit.parts}))
            raise EditError(f"classifier: expected an edit with a head, found {kinds}; use what tune tuners wrote")

    @classmethod
    def load(cls, model: DualEncoder, path: str | Path) -> TunedClassifier:
        """Read one from a file that ``save`` wrote.

        Raises:
            EditFileError: If the file is no edit.
            EditError: If it has no head.
        """
        return cls(model, edit_file.load(path))

    def save(self, path: str | Path) -> None:
        """Write edit and head into one file, whole or not at all.

        Raises:
            EditFileError: If the place cannot be written.
        """
        edit_file.save(self.edit, path)

    @property
    def head(self) -> ClassifierHead:
        """The classifier on the features."""
        return self.edit.of(ClassifierHead)[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.head.labels

    def logits(self, images: Images, *, batch: int = 64) -> Float[Tensor, "n classes"]:
        """weight x features of length 1 + bias.

        Raises:
            DataError: If a picture is not 8-bit RGB, or there is none.
            EditError: If the edit was made for another model.
        """
        features = edited_features(self.model, images, self.edit, batch=batch)
        return features @ self.head.weight.float().mT + self.head.bias.float()  # (n, dim) @ (dim, classes)

    def predict(self, images: Images, *, batch: int = 64) -> list[str]:
        """The class name of each picture; raises as ``logits``."""
        return [self.labels[index] for index in self.logits(images, batch=batch).argmax(1).tolist()]

    @property
    def trainable(self) -> int:
        """Numbers of the branches and of the head."""
        trained = [each for part in self.edit.of(Adapters) for each in part.tensors.values()]
        return sum(each.numel() for each in (*trained, self.head.weight, self.head.bias))

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return edit_bytes(self.edit)


def classifier_of(
    model: DualEncoder,
    result: Any,
    class_embeddings: Float[Tensor, "classes dim"],
    templates: Sequence[str] = TEMPLATES,
) -> Tuned:
    """The classifier that a few-shot method's result makes.

    Args:
        model: The base model.
        result: A classifier already; or an edit, which names the classes by its head, or by the rows given.
        class_embeddings: One row of length 1 a class.
        templates: What made the rows.

    Example:
        >>> classifier_of(model, edit, model.class_features(names)).logits(images)  # doctest: +SKIP
    """
    if isinstance(result, Tuned):
        return result
    if result.of(ClassifierHead):
        return TunedClassifier(model, result)
    trained = int(result.provenance.get("trained", 0))
    return TextClassifier(model, class_embeddings, result, trained, templates)
