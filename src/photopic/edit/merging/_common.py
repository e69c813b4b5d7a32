"""What the rules of merging share: the changes of edits one edit at a time, sums over them, and the edit that they come to.

Each edit is taken as a model of its own, the base with its change, so an entry that it does not touch votes for no change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import DenseDelta, Edit, Part, SparseWeights
from photopic.core.edits.changes import Change, at_positions
from photopic.core.edits.compose import common_base
from photopic.core.edits.stored import StoredEdit, opened
from photopic.core.errors import EditError
from photopic.core.identity import Fingerprint, difference
from photopic.models.handle import Handle

Totals = Mapping[str, Float[Tensor, " entries"]]


@dataclass(frozen=True)
class Changes:
    """What several edits change, one edit in memory at a time.

    Attributes:
        edits: All for one base.
        model: Their base; needed where one sets entries.
    """

    edits: Sequence[Edit | StoredEdit]
    model: Handle | None = None

    def __len__(self) -> int:
        return len(self.edits)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every tensor that one of them touches."""
        return tuple(sorted({name for base in self.read[0] for name in base.shapes}))

    def of(self, number: int) -> Iterator[tuple[str, Float[Tensor, " entries"]]]:
        """Each tensor that an edit touches, with the new entries minus the base's, all of them, in float32."""
        edit, base = opened(self.edits[number]), None if self.model is None else self.model.parameters()
        for name in edit.touched():
            yield name, at_positions(Change.of(edit, name, base), None)

    @cached_property
    def read(self) -> tuple[list[Fingerprint], list[dict[str, Any]]]:
        """The bases and the provenance of all.

        Raises:
            EditError: If the bases differ, or one does something else than change weights.
        """
        bases: list[Fingerprint] = []
        parents: list[dict[str, Any]] = []
        for number, each in enumerate(self.edits, 1):
            edit = opened(each)
            if reason := difference((bases or [edit.base])[0], edit.base):
                raise EditError(f"edit {number}: made for another base than the first: {reason}")
            if other := [part.kind for part in edit.parts if not part.names()]:
                raise EditError(
                    f"edit {number}: expected changes of weights only, found {other[0]}; photopic compose joins what adds words "
                    "or acts beside the weights"
                )
            bases.append(edit.base)
            parents.append(dict(edit.provenance))
            del edit  # before the next one is read
        return bases, parents


def check_model(model: Handle | None, changes: Changes, *, at_least: int = 2) -> None:
    """Refuse too few edits, edits of several bases, and a model that they were not made for.

    Raises:
        EditError: Says which edit, and what it was made for.
    """
    if len(changes) < at_least:
        raise EditError(f"merging: expected {at_least} edits or more, found {len(changes)}; name another")
    bases, _ = changes.read
    found = None if model is None else model.fingerprint(*changes.names)
    for number, base in enumerate(bases, 1):
        if model is not None and found is not None and (reason := difference(base, found)):
            raise EditError(f"edit {number}: made for {base.name}, but this model is {model.name}: {reason}")


class Sums:
    """One running sum an entry for each tensor.

    Args:
        folder: Where to keep them as files that memory is mapped to; None keeps them in memory.

    Example:
        >>> sums = Sums()
        >>> sums.add("w", torch.ones(2)), sums.add("w", torch.ones(2))
        (None, None)
        >>> sums.totals["w"]
        tensor([2., 2.])
    """

    def __init__(self, folder: Path | None = None):
        if folder is not None:
            folder.mkdir()
        self.folder = folder
        self.totals: dict[str, Tensor] = {}

    def add(self, name: str, values: Float[Tensor, " entries"]) -> None:
        """Add values to those of a tensor."""
        if name not in self.totals:
            self.totals[name] = self._zeros(len(values))
        self.totals[name] += values

    def _zeros(self, count: int) -> Tensor:
        if self.folder is None:
            return torch.zeros(count)
        path = self.folder / f"{len(self.totals)}.sum"
        return torch.from_file(str(path), shared=True, size=count, dtype=torch.float32)  # a new file reads as zeros


def as_edit(totals: Totals, changes: Changes, scale: float = 1.0, **facts: Any) -> Edit:
    """One edit of merged changes: values added to some entries where most stay, else to whole tensors.

    Args:
        totals: Tensor name to what is added to each entry.
        changes: What it was made of.
        scale: What all of it is multiplied with.
        facts: For its provenance, beside the parents'.

    Raises:
        EditError: If nothing is changed.
    """
    bases, parents = changes.read
    base = common_base(bases)
    indices, values, dense = {}, {}, {}
    for name, total in totals.items():
        positions = total.nonzero().flatten()  # (entries,) -> (changed,)
        if 2 * len(positions) < prod(base.shapes[name]):
            indices[name], values[name] = positions, scale * total[positions]
        else:
            dense[name] = (scale * total).view(base.shapes[name])  # out of a mapped file, which goes
    parts: list[Part] = [SparseWeights(indices, values, delta=True), DenseDelta(dense)]
    return Edit(tuple(parts), base, {"parents": parents, **facts})
