"""What every few-shot method gives back, so that all are measured by one call, and the two classifiers most of them end in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import file as edit_file
from photopic.core.errors import DataError
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.models.preprocessing import Images

if TYPE_CHECKING:
    from photopic.core.edits import Edit


@runtime_checkable
class Tuned(Protocol):
    """A model as a few-shot method tuned it for some classes; the base model is untouched before and after every call."""

    def logits(self, images: Images, *, batch: int = 64) -> Float[Tensor, "n classes"]:
        """Logits of pictures, float32 in main memory, without gradients."""

    @property
    def trainable(self) -> int:
        """Number of parameters that were trained, the head included."""

    @property
    def size_bytes(self) -> int:
        """What would be saved beside the base model."""


@runtime_checkable
class Transferable(Protocol):
    """What a method that learns from names gives back: it can be asked about classes it has not seen."""

    def for_names(self, names: Sequence[str]) -> Tuned:
        """The same for other class names; nothing is learnt again."""


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """Scaled cosines with one row a class, over the image tower with an edit, or without.

    Attributes:
        model: The base model; the edit is applied inside ``logits`` only.
        class_embeddings: One row of length 1 a class, as ``DualEncoder.class_features`` gives.
        edit: What was learnt of the image tower, or None.
        trainable: Number of parameters that were trained.
        embeddings_learnt: Whether the rows were learnt, so that they have to be saved with the edit. Rows that names make are not.
        templates: What ``for_names`` makes rows with.

    Raises:
        DataError: If the rows are not of the width of the model's features.

    Example:
        >>> tuned = TextClassifier(model, model.class_features(["mug", "bear"]))  # doctest: +SKIP
        >>> tuned.logits(images).argmax(1)  # doctest: +SKIP
    """

    model: DualEncoder
    class_embeddings: Float[Tensor, "classes dim"]
    edit: Edit | None = None
    trainable: int = 0
    embeddings_learnt: bool = False
    templates: Sequence[str] = TEMPLATES

    def logits(self, images: Images, *, batch: int = 64) -> Float[Tensor, "n classes"]:
        """exp(logit scale) x cosine of each picture and each class."""
        features = edited_features(self.model, images, self.edit, batch=batch)
        _check_width(features, self.class_embeddings)
        return self.model.logit_scale * features @ self.class_embeddings.mT  # (n, dim) @ (dim, classes) -> (n, classes)

    def for_names(self, names: Sequence[str]) -> Tuned:
        """The same image tower with the classifier that other names make: what was learnt, on classes it has not seen.

        Args:
            names: Class names.

        Raises:
            DataError: As ``DualEncoder.class_features``.
        """
        return replace(self, class_embeddings=self.model.class_features(names, self.templates), embeddings_learnt=False)

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of the edit's file, and of the rows if they were learnt."""
        return edit_bytes(self.edit) + (tensor_bytes([self.class_embeddings]) if self.embeddings_learnt else 0)


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear layer over features of length 1, of the image tower with an edit, or without.

    Attributes:
        model: The base model; the edit is applied inside ``logits`` only.
        weight: One row a class.
        bias: One number a class.
        edit: What was learnt of the image tower, or None.
        edit_trainable: Number of parameters that were trained besides the head.

    Raises:
        DataError: If the rows are not of the width of the model's features.

    Example:
        >>> LinearHead(model, torch.zeros(2, 128), torch.zeros(2)).trainable  # doctest: +SKIP
        258
    """

    model: DualEncoder
    weight: Float[Tensor, "classes dim"]
    bias: Float[Tensor, " classes"]
    edit: Edit | None = None
    edit_trainable: int = 0

    def logits(self, images: Images, *, batch: int = 64) -> Float[Tensor, "n classes"]:
        """weight x features + bias."""
        features = edited_features(self.model, images, self.edit, batch=batch)
        _check_width(features, self.weight)
        return features @ self.weight.mT + self.bias  # (n, dim) @ (dim, classes) -> (n, classes)

    @property
    def trainable(self) -> int:
        """Parameters of the head and of what else was trained."""
        return self.weight.numel() + self.bias.numel() + self.edit_trainable

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of the edit's file and of the head."""
        return edit_bytes(self.edit) + tensor_bytes([self.weight, self.bias])


def tuned_of(event: Any) -> Tuned | None:
    """What a method's event carries as ``tuned``; None with all but the last."""
    found = getattr(event, "tuned", None)
    return found if isinstance(found, Tuned) else None


def finished(events: Iterable[Any]) -> Tuned:
    """What a few-shot method learnt, its events read to the end.

    Args:
        events: What the method yields; the last event has a ``Tuned`` as ``tuned``.

    Example:
        >>> finished(linear_probe(model, data)).logits(images)  # doctest: +SKIP
    """
    *_, last = events
    found = tuned_of(last)
    assert found is not None, last
    return found


def edited_features(
    model: DualEncoder, images: Images, edit: Edit | None = None, *, batch: int = 64
) -> Float[Tensor, "n dim"]:
    """Features of pictures with an edit applied meanwhile; edits that were applied before stay.

    Args:
        model: The base model.
        images: As ``DualEncoder.preprocess`` takes them.
        edit: Made for the model, or None.
        batch: Pictures read at a time.

    Returns:
        Rows of length 1, float32 in main memory, without gradients.

    Raises:
        DataError: If a picture is not 8-bit RGB, or there is none.
        EditError: If the edit was made for another model.

    Example:
        >>> edited_features(model, images, edit).shape  # doctest: +SKIP
        torch.Size([2, 128])
    """
    if edit is None:
        return model.image_features(images, batch=batch)
    with model.edits.applied(edit, overlap="last"):  # it was learnt on top of what is there
        return model.image_features(images, batch=batch)


def edit_bytes(edit: Edit | None) -> int:
    """Bytes of an edit's file; 0 for None."""
    return 0 if edit is None else len(edit_file.to_bytes(edit))


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the entries of tensors."""
    return sum(each.numel() * each.element_size() for each in tensors)


def _check_width(features: Tensor, rows: Tensor) -> None:
    if features.shape[1] != rows.shape[1]:
        raise DataError(
            f"classes: expected rows of {features.shape[1]} numbers, as the model's features are, found {rows.shape[1]}; "
            "make them with the same model"
        )
