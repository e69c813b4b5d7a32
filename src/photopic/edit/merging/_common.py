"""The one way of merging; a method of this family says by which rule, and what matters to each edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from torch import nn

from photopic.core.edits import Edit, compose
from photopic.core.edits.rules import Importance, Rule
from photopic.core.errors import EditError


def merged(
    edits: Sequence[Edit], rule: Rule, importance: Importance | None = None, base: Mapping[str, nn.Module] | None = None
) -> Edit:
    """Make one edit of several: entries that one edit alone changes are its own, a rule decides on the others.

    Args:
        edits: Two or more, all for one base.
        rule: From the changes of all edits, shape (edits, entries), 0 where one touches nothing, to one change an entry;
            ``summed`` and ``elected`` (TIES) are rules, and any function of this kind is.
        importance: How much each entry matters to each edit, in the shapes of the tensors that it touches; for rules that ask.
        base: The base model's modules by component; needed where edits shut or set entries.

    Returns:
        One edit whose provenance lists its parents.

    Raises:
        EditError: If there are fewer than two, the bases differ, the base is needed and not given, or importance lacks a tensor.

    Example:
        >>> merged([bear, mug], elected, base=model.components)  # doctest: +SKIP
    """
    if len(edits) < 2:
        raise EditError(f"merging: expected at least two edits, found {len(edits)}; name another")
    if importance is not None:
        _check_importance(edits, importance)
    return compose(*edits, overlap=rule, base=base, importance=importance)


def _check_importance(edits: Sequence[Edit], importance: Importance) -> None:
    if len(importance) != len(edits):
        raise EditError(f"importance: expected one for each of {len(edits)} edits, found {len(importance)}")
    for number, (edit, own) in enumerate(zip(edits, importance, strict=True), 1):
        for name in edit.touched():
            if name not in own or own[name].numel() != prod(edit.base.shapes[name]):
                found = tuple(own[name].shape) if name in own else "none"
                raise EditError(
                    f"importance of edit {number}: {name}: expected shape {tuple(edit.base.shapes[name])}, found {found}"
                )
