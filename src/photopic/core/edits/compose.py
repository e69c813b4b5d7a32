"""The algebra of edits: compose several into one, take entries out of one, keep only some layers or regions.

What happens to entries that several edits touch is declared: ``error`` refuses all but equal changes and entries that both shut;
``union`` lets a value win over shutting; ``first`` keeps the earlier edit's; ``sum`` adds the changes; ``ties`` elects a sign for
each entry and takes the mean of the changes that agree with it (TIES-Merging, Yadav et al., arXiv 2306.01708, without its trimming:
edits are sparse already).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from itertools import permutations
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from photopic.core.edits.activations import InitialNoise, Insertion, SteeringVector, TokenResidual
from photopic.core.edits.adapter_hooks import AdapterPlacement, described
from photopic.core.edits.adapters import Adapters
from photopic.core.edits.changes import Change, base_at, clashing, merged, without
from photopic.core.edits.dense import DenseDelta, LowRankDelta
from photopic.core.edits.edit import HOOK_PARTS, WEIGHT_PARTS, Edit, Part, WeightPart, is_added, touched_by
from photopic.core.edits.positions import Positions, complement, union
from photopic.core.edits.positions import overlap as common
from photopic.core.edits.sparse import SparseWeights, ZeroedWeights
from photopic.core.errors import EditError
from photopic.core.fingerprint import Fingerprint, fingerprint, named_tensors
from photopic.core.fingerprint import difference as base_difference

OverlapPolicy = Literal["error", "union", "first", "sum", "ties"]


def compose(
    *edits: Edit,
    overlap: OverlapPolicy = "error",
    weights: Sequence[float] | None = None,
    base: Mapping[str, nn.Module] | None = None,
) -> Edit:
    """Combine edits of one base into one.

    Under ``error`` and ``union`` the order does not matter, down to the bytes of the file; all policies but ``ties`` are
    associative (``sum`` up to rounding).

    Args:
        edits: At least one, all for the same base.
        overlap: What becomes of entries that several edits touch; see the module.
        weights: One an edit, 1 each if left out; 0 leaves an edit out, others scale its changes and need ``base`` where it
            sets entries.
        base: The base model's modules by component; ``sum``, ``ties`` and weights need its entries where an edit sets them.

    Returns:
        One edit whose provenance lists its parents.

    Raises:
        EditError: If the bases differ, entries clash under the policy, both add one token, or ``base`` is another model.

    Example:
        >>> both = compose(bear, mug)  # doctest: +SKIP
    """
    if not edits:
        raise EditError("compose: expected at least one edit, found none")
    scales = [1.0] * len(edits) if weights is None else [float(weight) for weight in weights]
    if len(scales) != len(edits):
        raise EditError(f"compose: expected {len(edits)} weights, found {len(scales)}")
    for other in edits[1:]:
        check_same_base(edits[0], other)
    tensors = None if base is None else _tensors_of(base, edits)
    scaled = [scale(edit, weight, tensors) for edit, weight in zip(edits, scales, strict=True) if weight != 0]
    if not scaled:
        raise EditError("compose: the result touches nothing: every weight is 0")
    if overlap in ("error", "union"):
        parts = _unordered(scaled, overlap)
    elif overlap == "first":
        parts = _first(scaled)
    else:
        parts = _added(scaled, overlap, tensors)
    return Edit(tuple(parts), _common_base(edits), _lineage(edits, overlap, scales))


def difference(a: Edit, b: Edit) -> Edit:
    """What an edit does to entries that another does not touch; tokens, hooks and start noise of ``a`` that ``b`` has too go.

    A dense change that ``b`` touches in part becomes values added at the other entries.

    Args:
        a: What to take from.
        b: What to leave out.

    Raises:
        EditError: If nothing is left, or the bases differ.

    Example:
        >>> rest = difference(both, bear)  # doctest: +SKIP
    """
    check_same_base(a, b)
    others = {part_digest(part) for part in b.parts if not isinstance(part, WEIGHT_PARTS)}
    kept = [part for part in without(a.parts, b.touched(), a.base.shapes) if part_digest(part) not in others]
    return Edit(tuple(kept), a.base, {"method": "difference", "parents": [dict(a.provenance), dict(b.provenance)]})


def restrict(edit: Edit, layers: Sequence[str] | None = None, region: Mapping[str, Positions] | None = None) -> Edit:
    """Keep only some layers, or some entries; new tokens and start noise stay.

    Args:
        edit: What to restrict.
        layers: Shell-style patterns of tensor or module names, such as ``"unet.up_blocks.*"``; None keeps all.
        region: Tensor name to the positions that may be touched, None for all of them; other tensors are left out.

    Raises:
        EditError: If nothing is left, or a region lies outside its tensor.

    Example:
        >>> upper = restrict(edit, layers=["unet.up_blocks.*"])  # doctest: +SKIP
    """
    shapes = edit.base.shapes

    def is_kept(name: str) -> bool:
        return layers is None or any(fnmatchcase(name, pattern) for pattern in layers)

    outside: dict[str, Positions] = {name: None for name in edit.touched() if not is_kept(name)}
    if region is not None:
        for name in edit.touched().keys() - outside.keys():
            inside = region.get(name, torch.zeros(0, dtype=torch.int64))
            if inside is not None:
                size = prod(shapes[name])
                if inside.dtype != torch.int64 or (
                    len(inside) and not 0 <= int(inside.min()) <= int(inside.max()) < size
                ):
                    raise EditError(f"{name}: expected a region of int64 positions in [0, {size}), found others")
                outside[name] = complement(inside, size)
    kept = [_kept_hooks(part, is_kept) for part in without(edit.parts, outside, shapes)]
    return Edit(tuple(kept), edit.base, {"method": "restrict", "parents": [dict(edit.provenance)]})


def scale(edit: Edit, weight: float, tensors: Mapping[str, Tensor] | None = None) -> Edit:
    """The same edit with every change multiplied by a weight; tokens stay as they are.

    Raises:
        EditError: If it shuts or sets entries and the base's tensors are not given, or has a start noise.
    """
    if weight == 1:
        return edit
    return Edit(tuple(_scaled(part, weight, tensors) for part in edit.parts), edit.base, edit.provenance)


def part_digest(part: Part) -> str:
    """The same text for the same content, whatever made it."""
    hashed = hashlib.sha256(part.kind.encode())
    for entry in fields(part):
        value = getattr(part, entry.name)
        tensors = value if isinstance(value, Mapping) else {entry.name: value}
        for name, each in tensors.items():
            if isinstance(each, Tensor):
                hashed.update(json.dumps([entry.name, name, str(each.dtype), list(each.shape)]).encode())
                hashed.update(each.contiguous().view(-1).view(torch.uint8).numpy().data)
            else:
                plain = described(each) if isinstance(each, AdapterPlacement) else each
                hashed.update(json.dumps([entry.name, name, plain]).encode())
    return hashed.hexdigest()


def _unordered(edits: Sequence[Edit], overlap: OverlapPolicy) -> list[Part]:
    """Equal parts once, in an order that does not depend on who came first."""
    distinct = {part_digest(part): part for edit in edits for part in edit.parts}
    rest = {digest: part for digest, part in distinct.items() if not isinstance(part, ZeroedWeights)}
    shut = _union_of([part for part in distinct.values() if isinstance(part, ZeroedWeights)])
    shapes = _common_base(edits).shapes
    written = [part for part in rest.values() if isinstance(part, WEIGHT_PARTS)]
    split = [_split(edit) for edit in edits]
    for one, other in permutations(split, 2):
        _check_agreement(one, other, overlap, shapes)
    if overlap == "union":
        taken = touched_by([part for part in written if not is_added(part)])
        shut = next(
            (part for part in without((shut,), taken, {}) if isinstance(part, ZeroedWeights)), ZeroedWeights({})
        )
    return [shut, *(rest[digest] for digest in sorted(rest, key=lambda digest: (rest[digest].kind, digest)))]


def _first(edits: Sequence[Edit]) -> list[Part]:
    parts: list[Part] = []
    taken: dict[str, Positions] = {}
    seen: set[str] = set()
    for edit in edits:
        new = [part for part in edit.parts if part_digest(part) not in seen]
        parts += without(new, taken, edit.base.shapes)
        seen |= {part_digest(part) for part in new}
        for name, positions in edit.touched().items():
            taken[name] = union([taken[name], positions]) if name in taken else positions
    return _joined(parts)


def _added(edits: Sequence[Edit], overlap: OverlapPolicy, tensors: Mapping[str, Tensor] | None) -> list[Part]:
    """Tensors that one edit touches keep its parts; entries that several touch are merged."""
    contested = clashing(edits, overlap)
    kept = [part for edit in edits for part in without(edit.parts, contested, edit.base.shapes)]
    changes = [Change.of(edit, name, tensors) for edit in edits for name in contested if name in edit.touched()]
    weight_parts = [part for part in kept if isinstance(part, WEIGHT_PARTS)]
    hooked = [part for part in kept if isinstance(part, HOOK_PARTS)] if overlap == "sum" else []  # these add up too
    once = {part_digest(part): part for part in kept if not isinstance(part, WEIGHT_PARTS) and part not in hooked}
    return [*_joined(weight_parts), *merged(changes, contested, overlap, tensors), *hooked, *once.values()]


def _joined(parts: Sequence[Part]) -> list[Part]:
    """All that is shut as one part, before the others."""
    shut = _union_of([part for part in parts if isinstance(part, ZeroedWeights)])
    return [shut, *(part for part in parts if not isinstance(part, ZeroedWeights))]


def _union_of(parts: Sequence[ZeroedWeights]) -> ZeroedWeights:
    names = sorted({name for part in parts for name in part.indices})
    found = {name: union([part.indices[name] for part in parts if name in part.indices]) for name in names}
    return ZeroedWeights({name: positions for name, positions in found.items() if positions is not None})


def _split(edit: Edit) -> tuple[ZeroedWeights, dict[str, WeightPart]]:
    """All that an edit shuts, and its other parts that write, by content."""
    shut = _union_of([part for part in edit.parts if isinstance(part, ZeroedWeights)])
    return shut, {part_digest(part): part for part in edit.weight_parts if not isinstance(part, ZeroedWeights)}


def _check_agreement(
    one: tuple[ZeroedWeights, dict[str, WeightPart]],
    other: tuple[ZeroedWeights, dict[str, WeightPart]],
    overlap: OverlapPolicy,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuse what one edit does to an entry and another does not do; within one edit parts are as its maker wanted."""
    (shut, parts), (other_shut, others) = one, other
    more = [
        part for part in without((other_shut,), shut.indices, {}) if isinstance(part, ZeroedWeights)
    ]  # that this one leaves open
    for digest, part in parts.items():
        for other_digest, each in others.items():
            if not {digest, other_digest} <= parts.keys() & others.keys():
                _refuse(part, each, shapes)
        if overlap == "error" or is_added(part):
            for each in more if digest in others else [other_shut]:
                _refuse(part, each, shapes)


def _refuse(a: WeightPart, b: WeightPart, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name in sorted(set(a.names()) & set(b.names())):
        shared = common(a.change(name).indices, b.change(name).indices, prod(shapes[name]))
        if shared:
            raise EditError(
                f"{name}: these edits both touch {shared} entries; say what becomes of them with overlap= union, first, sum or ties"
            )


def _scaled(part: Part, weight: float, tensors: Mapping[str, Tensor] | None) -> Part:
    if isinstance(part, LowRankDelta):
        return replace(part, scales={name: weight * each for name, each in part.scales.items()})
    if isinstance(part, DenseDelta):
        return DenseDelta({name: weight * delta.float() for name, delta in part.deltas.items()})
    if isinstance(part, SparseWeights) and part.delta:
        return SparseWeights(
            part.indices, {name: weight * each.float() for name, each in part.values.items()}, 32, True
        )
    if isinstance(part, ZeroedWeights | SparseWeights):
        values = {}
        for name, positions in part.indices.items():
            entries = base_at(tensors, name, positions)
            target = part.values[name].float() if isinstance(part, SparseWeights) else torch.zeros_like(entries)
            values[name] = entries + weight * (target - entries)
        return SparseWeights(part.indices, values)
    if isinstance(part, Insertion | Adapters):
        return replace(part, scale=weight * part.scale)
    if isinstance(part, SteeringVector):
        return SteeringVector({name: weight * vector for name, vector in part.vectors.items()})
    if isinstance(part, TokenResidual):
        return replace(part, residuals={name: weight * each for name, each in part.residuals.items()})
    if isinstance(part, InitialNoise):
        raise EditError("start noise: a composed edit takes it whole; expected weight 1")
    return part


def _kept_hooks(part: Part, is_kept: Any) -> Part:
    if isinstance(part, Insertion):
        names = [name for name in part.down if is_kept(name)]
        return replace(part, down={n: part.down[n] for n in names}, up={n: part.up[n] for n in names})
    if isinstance(part, SteeringVector):
        return SteeringVector({name: vector for name, vector in part.vectors.items() if is_kept(name)})
    return part.only(is_kept) if isinstance(part, Adapters) else part


def check_same_base(a: Edit, b: Edit) -> None:
    """Refuse two edits of different bases.

    Raises:
        EditError: Names both bases and how they differ.
    """
    reason = base_difference(a.base, b.base)
    if reason:
        raise EditError(
            f"these edits are for different bases: {a.base.name} ({a.base.digest[:12]}) and "
            f"{b.base.name} ({b.base.digest[:12]}): {reason}"
        )


def _tensors_of(modules: Mapping[str, nn.Module], edits: Sequence[Edit]) -> dict[str, Tensor]:
    """The base's tensors, once it is known to be the base."""
    tensors, base = named_tensors(modules), _common_base(edits)
    found = fingerprint(modules, "the one given", [name for name in base.sketches if name in tensors])
    if reason := base_difference(base, found):
        raise EditError(
            f"these edits are for base {base.name} ({base.digest[:12]}), but base= is another model ({found.digest[:12]}), or one "
            f"with edits applied: {reason}"
        )
    return tensors


def _common_base(edits: Sequence[Edit]) -> Fingerprint:
    ordered = sorted((edit.base for edit in edits), key=lambda base: (base.digest, base.name))
    sketches: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for base in reversed(ordered):
        sketches |= base.sketches
        shapes |= base.shapes
    smallest = ordered[0]
    return replace(smallest, sketches=dict(sorted(sketches.items())), shapes=dict(sorted(shapes.items())))


def _lineage(edits: Sequence[Edit], overlap: OverlapPolicy, weights: Sequence[float]) -> dict[str, Any]:
    parents = [parent for edit in edits for parent in _parents(edit)]
    if overlap in ("error", "union"):
        parents = [json.loads(text) for text in sorted({json.dumps(value, sort_keys=True) for value in parents})]
    if len(parents) == 1 and set(weights) == {1.0}:
        return parents[0]
    lineage: dict[str, Any] = {"method": "compose", "parents": parents}
    if overlap != "error":
        lineage["overlap"] = overlap
    return lineage if set(weights) == {1.0} else lineage | {"weights": list(weights)}


def _parents(edit: Edit) -> list[Any]:
    parents = edit.provenance.get("parents")
    is_plain = edit.provenance.get("method") in ("compose", "edit.compose") and "weights" not in edit.provenance
    return parents if is_plain and isinstance(parents, list) else [edit.provenance]
