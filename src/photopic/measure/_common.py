"""True classes, and words and facts for the pages, of the measurements of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from photopic.core.results import Report
from photopic.data.class_folder import ClassFolder

if TYPE_CHECKING:
    from photopic.models.classifier import Classifier
    from photopic.models.preprocessing import Preprocessing
    from photopic.models.text_to_image.handle import TextToImage

LISTED = 40  # classes in a table of a page


def true_classes(model: Classifier, images: Any, labels: Sequence[int] | None) -> Sequence[int] | None:
    """Labels as given, else those that a folder's sub-folders name, else None.

    Raises:
        DataError: If a sub-folder is named as no class of the model.
    """
    return images.labels(model.labels) if labels is None and isinstance(images, ClassFolder) else labels


def preprocessing_of(model: TextToImage) -> Preprocessing:
    """Pictures of any size as a text-to-image model's VAE takes them: in its size, -1 to 1."""
    from photopic.models.preprocessing import Preprocessing  # torch with it, which pages do without

    return Preprocessing(resize=(model.image_size,) * 2, mean=(0.5,) * 3, std=(0.5,) * 3)


def page_facts(report: Report) -> list[tuple[str, str]]:
    """What the foot of a page says of the classifier and the pictures, as (name, value) pairs."""
    found = report.provenance
    return [
        ("model", f"{found.get('model', 'logits')}, {found['classes']:,} classes"),
        ("pictures", f"{found['images']:,}"),
        ("photopic", found["versions"]["photopic"]),
    ]


def sum_in_words(names: Sequence[str], weights: Sequence[float]) -> str:
    """The largest terms of a sum.

    Example:
        >>> sum_in_words(["bear", "mug"], [0.25, -1.5])
        '-1.50 mug +0.25 bear'
    """
    terms = sorted(zip(names, weights, strict=True), key=lambda term: -abs(term[1]))
    said = " ".join(f"{weight:+.2f} {name}" for name, weight in terms[:5])
    return said + (f" and {len(terms) - 5} more" if len(terms) > 5 else "") if terms else "nothing: its mean"
