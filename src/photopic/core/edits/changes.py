"""What edits do to the same entries of one tensor, as changes to the base, and how such changes become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits.dense import DenseDelta
from photopic.core.edits.edit import Edit
from photopic.core.edits.part import Part
from photopic.core.edits.positions import Positions, apply, base_at, read_entries, union
from photopic.core.edits.rules import Rule, summed
from photopic.core.edits.sparse import SparseWeights


@dataclass(frozen=True, eq=False)
class Change:
    """What one edit does to one tensor: new entries minus the base's, in float32.

    Attributes:
        name: Of the tensor.
        positions: Touched entries; None is all of them.
        delta: One a touched entry.
        shape: Of the tensor.
    """

    name: str
    positions: Positions
    delta: Float[Tensor, " count"]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, edit: Edit, name: str, tensors: Mapping[str, Tensor] | None) -> Change:
        """All parts of an edit together."""
        parts = [part for part in edit.weight_parts if name in part.names()]
        shape = tuple(edit.base.shapes[name])
        if len(parts) == 1:
            return cls.of_part(parts[0], name, shape, tensors)
        positions = union([part.change(name).indices for part in parts])
        base = _zeros_or_base(parts, name, tensors, shape)  # what is only added does not depend on the base
        changed = base.clone()
        for part in parts:
            apply(changed, part.change(name))
        delta = read_entries(changed, positions) - read_entries(base, positions)
        return cls(name, positions, delta, shape)

    @classmethod
    def of_part(cls, part: Part, name: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor] | None) -> Change:
        """One part alone.

        Raises:
            EditError: If it sets entries and the base's are not known.
        """
        write = part.change(name)
        values = write.values() if callable(write.values) else write.values
        if write.adds:
            assert values is not None
            return cls(name, write.indices, values.float(), shape)
        entries = base_at(tensors, name, write.indices)
        return cls(name, write.indices, -entries if values is None else values.float() - entries, shape)


def without(parts: Sequence[Part], taken: Mapping[str, Positions]) -> list[Part]:
    """Parts less the entries that are taken; a dense change becomes values added at the entries that are left."""
    return [left for part in parts for left in part.restricted(lambda _: True, taken)]


def clashing(edits: Sequence[Edit], rule: Rule) -> dict[str, Positions]:
    """Entries that several edits touch and whose changes do not add up by themselves.

    Where they are summed, added changes do, and so does one that is set with others added after it, so only entries set twice are
    left; under any other rule every entry touched twice has to be decided.
    """
    found: dict[str, Positions] = {}
    names = {name for edit in edits for name in edit.touched()}
    for name in sorted(names):
        sets = []
        for edit in edits:
            parts = [part for part in edit.weight_parts if name in part.names()]
            if rule is summed:
                parts = [part for part in parts if not part.adds]
            if parts:
                sets.append(union([part.change(name).indices for part in parts]))
        twice = repeated(sets)
        if twice is None or len(twice):
            found[name] = twice
    return found


def merged(
    changes: Sequence[Change],
    contested: Mapping[str, Positions],
    rule: Rule,
    tensors: Mapping[str, Tensor] | None,
) -> list[Part]:
    """One change for the contested entries, as a rule makes it of those of all."""
    sparse_indices: dict[str, Tensor] = {}
    sparse_values: dict[str, Tensor] = {}
    dense: dict[str, Tensor] = {}
    for name, positions in contested.items():
        voters = [change for change in changes if change.name == name]
        stacked = torch.stack(
            [at_positions(change, positions) for change in voters]
        )  # (edits, entries), 0 where untouched
        total = rule(stacked)  # (edits, entries) -> (entries,)
        if positions is None:
            dense[name] = total
        else:
            sparse_indices[name], sparse_values[name] = positions, total
    if rule is summed and tensors is not None:  # set entries stay set entries
        values = {name: base_at(tensors, name, at) + sparse_values[name] for name, at in sparse_indices.items()}
        return [SparseWeights(sparse_indices, values), *_deltas(dense, changes)]
    return [SparseWeights(sparse_indices, sparse_values, delta=True), *_deltas(dense, changes)]


def _deltas(dense: Mapping[str, Tensor], changes: Sequence[Change]) -> list[Part]:
    shapes = {change.name: change.shape for change in changes}
    return [DenseDelta({name: total.view(shapes[name]) for name, total in dense.items()})] if dense else []


def repeated(sets: Sequence[Positions]) -> Positions:
    """Positions in at least two of the sets."""
    if sum(each is None for each in sets) >= 2:
        return None
    sparse = [each for each in sets if each is not None]
    if len(sparse) < len(sets) and sparse:
        return union(sparse)  # one set is everything, so whatever is in another is in two
    if len(sparse) < 2:
        return torch.zeros(0, dtype=torch.int64)
    distinct, counts = torch.cat(sparse).unique(sorted=True, return_counts=True)  # each set has a position once
    return distinct[counts > 1]


def at_positions(change: Change, positions: Positions) -> Float[Tensor, " count"]:
    """A change at other positions, 0 where it touches nothing."""
    if change.positions is None:
        return change.delta if positions is None else change.delta[positions]
    if positions is None:
        return torch.zeros(prod(change.shape)).index_copy_(0, change.positions, change.delta)
    at = torch.searchsorted(change.positions, positions).clamp(max=len(change.positions) - 1)  # where each would stand
    return torch.where(change.positions[at] == positions, change.delta[at], torch.zeros(()))


def _zeros_or_base(
    parts: Sequence[Part], name: str, tensors: Mapping[str, Tensor] | None, shape: tuple[int, ...]
) -> Tensor:
    if all(part.adds for part in parts):
        return torch.zeros(shape)
    return base_at(tensors, name, None).view(shape)
