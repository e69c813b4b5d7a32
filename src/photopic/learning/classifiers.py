"""What every few-shot method comes to, so that all are measured by one call, and the classifier that class names make."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from photopic.core.edits import file as edit_file
from photopic.core.errors import DataError, ModelError
from photopic.core.runs import write_atomically
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.models.preprocessing import Images

if TYPE_CHECKING:
    from photopic.core.edits import Edit

CLASSIFIER = "classifier.safetensors"


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
        templates: What ``for_names`` makes rows with.
        names: Of the classes, where it is to be saved.
        provenance: See ``core.results.provenance``.

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
    templates: Sequence[str] = TEMPLATES
    names: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def logits(self, images: Images, *, batch: int = 64) -> Float[Tensor, "n classes"]:
        """exp(logit scale) x cosine of each picture and each class."""
        features = edited_features(self.model, images, self.edit, batch=batch)
        if features.shape[1] != self.class_embeddings.shape[1]:
            raise DataError(
                f"classes: expected rows of {features.shape[1]} numbers, as the model's features are, found "
                f"{self.class_embeddings.shape[1]}; make them with the same model"
            )
        # exp(t) cos, as in the pseudo-code of CLIP
        return self.model.logit_scale * features @ self.class_embeddings.mT  # (n, dim) @ (dim, classes) -> (n, classes)

    def for_names(self, names: Sequence[str]) -> Tuned:
        """The same image tower with the classifier that other names make: what was learnt, on classes it has not seen.

        Args:
            names: Class names.

        Raises:
            DataError: As ``DualEncoder.class_features``.
        """
        return replace(self, class_embeddings=self.model.class_features(names, self.templates), names=tuple(names))

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of the edit's file; the rows follow from the names."""
        return edit_bytes(self.edit)

    def save(self, folder: str | Path) -> None:
        """Write the rows and names into a folder, made if missing; an edit is a file of its own."""
        save_classifier(folder, self.model, {"class_embeddings": self.class_embeddings}, self.names, self.provenance)

    @classmethod
    def load(cls, folder: str | Path, model: DualEncoder) -> TextClassifier:
        """Read what ``save`` wrote.

        Raises:
            ModelError: If the folder holds no such classifier, or one of another model.
        """
        tensors, about = load_classifier(folder, model)
        return cls(model, tensors["class_embeddings"], names=tuple(about["names"]), provenance=about["provenance"])


def save_classifier(
    folder: str | Path,
    model: DualEncoder,
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    provenance: Mapping[str, Any],
    **settings: Any,
) -> None:
    """Write a classifier that is no edit as ``classifier.safetensors``, whole or not at all.

    Args:
        folder: Made if missing.
        model: The base model it was made for.
        tensors: What it is made of.
        names: Of its classes.
        provenance: Where it comes from.
        settings: JSON values that it needs besides.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    base = {"name": model.name, "digest": model.digest()}
    about = {"names": list(names), "provenance": dict(provenance), "settings": settings, "base": base}
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, _metadata(about))
    write_atomically(target / CLASSIFIER, content)


def load_classifier(folder: str | Path, model: DualEncoder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``save_classifier`` wrote: its tensors, and ``names``, ``provenance`` and ``settings``; raises as ``load_tensors``."""
    return load_tensors(Path(folder) / CLASSIFIER, model)


def load_tensors(path: Path, model: DualEncoder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors that a method made for a model, and what their file says of them.

    Raises:
        ModelError: If there is no such file, a damaged one, or one of another model.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            about = json.loads(file.metadata()["photopic"])
        name, digest = about["base"]["name"], about["base"]["digest"][:12]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        found = error if path.exists() else "nothing; check the folder"
        raise ModelError(f"{path}: expected a classifier that photopic tune wrote, found {found}") from error
    if about["base"]["digest"] != model.digest():
        raise ModelError(
            f"{path}: made for base {name} ({digest}), but this model is {model.name} ({model.digest()[:12]}); give that one"
        )
    return tensors, about


def _metadata(about: Mapping[str, Any]) -> dict[str, str]:
    return {"photopic": json.dumps(about, sort_keys=True)}


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
