"""Edits as messages and tables call them, and as a model takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from photopic.core.editfile.content import AnyEdit, EditContent
from photopic.core.errors import DataError, EditError

if TYPE_CHECKING:
    from photopic.core.edits import Edit
    from photopic.models.handle import Handle


def labels(edits: Sequence[AnyEdit], names: Sequence[str] | None) -> list[str]:
    """What to call edits: the names of their files, else their words or nouns.

    Raises:
        DataError: If there are not as many names as edits.
    """
    if names is None:
        return [edit.label or f"edit {number}" for number, edit in enumerate(edits, 1)]
    if len(names) != len(edits):
        raise DataError(f"names: expected one for each of {len(edits)} edits, found {len(names)}")
    return list(names)


def as_content(edit: Any) -> EditContent:
    """What is stored of an edit, whether it comes from a file or was made here."""
    if isinstance(edit, EditContent):
        return edit
    from photopic.core.edits.file import content_of  # torch with it, which whoever has an edit has imported

    return content_of(edit)


@contextmanager
def called(name: str) -> Iterator[None]:
    """Put the name of an edit before what is wrong with it."""
    try:
        yield
    except EditError as error:
        raise EditError(f"{name}: {error}") from None


def check_base(model: Handle, edits: Sequence[Edit], names: Sequence[str]) -> None:
    """Refuse a model that one of the edits was not made for.

    Raises:
        EditError: Names the edit and both models.
    """
    for edit, name in zip(edits, names, strict=True):
        with called(name):
            model.edits.unload(model.edits.load(edit, weight=0.0))


def shared_note(values: Mapping[str, Any]) -> str:
    """What edits share, in one line, from the values of ``interference``."""
    ratio = f", {values['over_chance']:.1f} x chance" if values["over_chance"] is not None else ""
    return f"{' and '.join(values['edits'])} share {values['shared']:,} entries{ratio}"
