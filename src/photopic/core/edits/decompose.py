"""Taking an edit apart again into what each of its parents touches.

Whoever makes one edit of several keeps each of its parts to the entries that the same parents touch, and writes down with
`belonging` which these are. A part is named by its content, so that a changed edit is noticed and never taken apart wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from photopic.core.edits.compose import joined
from photopic.core.edits.edit import Edit, touched_by
from photopic.core.edits.part import Part
from photopic.core.edits.positions import union
from photopic.core.errors import EditError

_NAME = 16  # hex digits of a part's digest
_KEPT = ("noun", "token", "prompt")  # of a parent's provenance, what its part of a tuned edit is still used with
Belonging = list[list[Any]]


def regions(supports: Sequence[Mapping[str, Tensor]]) -> dict[tuple[int, ...], dict[str, Tensor]]:
    """Split the union of several sets of positions by who has them.

    Args:
        supports: For each set, tensor name to its sorted flat positions.

    Returns:
        The numbers of the sets to the positions that exactly these have.

    Example:
        >>> regions([{"w": torch.tensor([0, 2])}, {"w": torch.tensor([2, 5])}])
        {(0,): {'w': tensor([0])}, (1,): {'w': tensor([5])}, (0, 1): {'w': tensor([2])}}
    """
    found: dict[tuple[int, ...], dict[str, Tensor]] = {}
    nothing = torch.zeros(0, dtype=torch.int64)
    for name in sorted({name for support in supports for name in support}):
        everywhere = union([support[name] for support in supports if name in support])
        assert everywhere is not None
        has = torch.stack([torch.isin(everywhere, support.get(name, nothing)) for support in supports])  # (sets, union)
        for pattern in has.unique(dim=1).T:  # (sets,)
            who = tuple(pattern.nonzero().flatten().tolist())
            found.setdefault(who, {})[name] = everywhere[(has == pattern[:, None]).all(0)]
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def belonging(parts: Sequence[tuple[Part, Sequence[int]]]) -> Belonging:
    """What the provenance of an edit holds under ``apart``: each part by its content, with the numbers of its parents."""
    return [[part.digest()[:_NAME], list(who)] for part, who in parts]


def take_apart(edit: Edit) -> list[Edit]:
    """The inverse of making one edit of several, as far as values were not changed since.

    Args:
        edit: What ``tune together`` made.

    Returns:
        One edit a parent, in their order: its entries with the values they have now, and its tokens. If nothing was tuned they are
        the parents themselves.

    Raises:
        EditError: If the edit was not made so, or its parts were changed afterwards.

    Example:
        >>> bear, mug = take_apart(both)  # doctest: +SKIP
    """
    parents, owners = _record(edit)
    found = []
    for number, parent in enumerate(parents):
        parts = tuple(joined([part for part in edit.parts if number in owners[part.digest()[:_NAME]]]))
        names = touched_by(parts)
        base = replace(
            edit.base,
            sketches={name: edit.base.sketches[name] for name in names},
            shapes={name: edit.base.shapes[name] for name in names},
        )
        kept = {name: parent[name] for name in _KEPT if name in parent}
        tuned = {"method": "take_apart", **kept, "config": edit.provenance.get("config"), "parents": [parent]}
        found.append(Edit(parts, base, tuned if edit.provenance.get("steps") else parent))
    return found


def _record(edit: Edit) -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
    """The parents, and by the name of each part the numbers of its parents."""
    parents, written = edit.provenance.get("parents"), edit.provenance.get("apart")
    if not isinstance(parents, list) or not isinstance(written, list) or not all(isinstance(p, dict) for p in parents):
        raise EditError(
            f"made by {edit.provenance.get('method', 'hand')}: expected an edit that remembers what belongs to which parent; "
            "take apart what 'photopic tune together' wrote"
        )
    owners = {}
    for row in written:
        fits = isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and isinstance(row[1], list)
        if not fits or not all(type(who) is int and 0 <= who < len(parents) for who in row[1]):
            raise EditError(f"apart: expected rows of a part and numbers below {len(parents)}, found {str(row)[:80]}")
        owners[row[0]] = row[1]
    if {part.digest()[:_NAME] for part in edit.parts} != owners.keys():
        raise EditError("apart: expected the parts this edit was made with, found others; it was changed afterwards")
    return parents, owners
