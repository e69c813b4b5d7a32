"""The algebra of edits: compose several into one, take entries out of one, keep only some layers or regions.

What happens to entries that several edits touch is declared: ``error`` refuses all but equal changes and entries that both shut;
``union`` lets a value win over shutting; ``first`` keeps the earlier edit's; ``sum`` adds the changes; ``ties`` elects a sign for
each entry and takes the mean of the changes that agree with it (TIES-Merging, Yadav et al., arXiv 2306.01708, without its trimming:
edits are sparse already).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import permutations
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from photopic.core.edits.changes import Change, clashing, merged, without
from photopic.core.edits.edit import Edit, touched_by
from photopic.core.edits.part import Part
from photopic.core.edits.positions import Positions, complement, union
from photopic.core.edits.positions import overlap as common
from photopic.core.edits.rules import RULES, Rule, summed
from photopic.core.edits.sparse import ZeroedWeights
from photopic.core.errors import EditError, OverlapError
from photopic.core.fingerprint import fingerprint, named_tensors
from photopic.core.identity import Fingerprint
from photopic.core.identity import difference as base_difference

OverlapPolicy = Literal["error", "union", "first", "sum", "ties"]


def compose(
    *edits: Edit,
    overlap: OverlapPolicy | Rule = "error",
    weights: Sequence[float] | None = None,
    base: Mapping[str, nn.Module] | None = None,
) -> Edit:
    """Combine edits of one base into one.

    Under ``error`` and ``union`` the order does not matter, down to the bytes of the file; all policies but ``ties`` are
    associative (``sum`` up to rounding).

    Args:
        edits: At least one, all for the same base.
        overlap: What becomes of entries that several edits touch; see the module. A rule decides on each of them.
        weights: One an edit, 1 each if left out; 0 leaves an edit out, others scale its changes and need ``base`` where it
            sets entries.
        base: The base model's modules by component; ``sum``, ``ties``, rules and weights need its entries where an edit sets them.

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
        rule = overlap if callable(overlap) else RULES[overlap]
        parts = _by_rule(scaled, rule, tensors)
    return Edit(tuple(parts), common_base([edit.base for edit in edits]), _lineage(edits, overlap, scales))


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
    others = {part.digest() for part in b.parts if not part.names()}  # tokens, hooks and noise have no entries
    kept = [part for part in without(a.parts, b.touched()) if part.digest() not in others]
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
    kept = [left for part in edit.parts for left in part.restricted(is_kept, outside)]
    return Edit(tuple(kept), edit.base, {"method": "restrict", "parents": [dict(edit.provenance)]})


def scale(edit: Edit, weight: float, tensors: Mapping[str, Tensor] | None = None) -> Edit:
    """The same edit with every change multiplied by a weight; tokens stay as they are.

    Raises:
        EditError: If it shuts or sets entries and the base's tensors are not given, or has a start noise.
    """
    if weight == 1:
        return edit
    return Edit(tuple(part.scaled(weight, tensors) for part in edit.parts), edit.base, edit.provenance)


def _unordered(edits: Sequence[Edit], overlap: OverlapPolicy) -> list[Part]:
    """Equal parts once, in an order that does not depend on who came first."""
    distinct = {part.digest(): part for edit in edits for part in edit.parts}  # a part that two edits share counts once
    rest = {digest: part for digest, part in distinct.items() if not part.zeroes}
    shut: Part = _zeroed(list(distinct.values()))
    shapes, split = common_base([edit.base for edit in edits]).shapes, [_split(edit) for edit in edits]
    for one, other in permutations(split, 2):  # both ways, as shutting and values are not alike
        _check_agreement(one, other, overlap, shapes)
    if overlap == "union":  # a value wins over shutting
        (shut,) = without((shut,), touched_by([part for part in rest.values() if not part.adds]))
    return [shut, *(rest[digest] for digest in sorted(rest, key=lambda digest: (rest[digest].kind, digest)))]


def _first(edits: Sequence[Edit]) -> list[Part]:
    parts: list[Part] = []
    taken: dict[str, Positions] = {}
    seen: set[str] = set()
    for edit in edits:
        new = [part for part in edit.parts if part.digest() not in seen]  # what an earlier one has is there already
        parts += without(new, taken)
        seen |= {part.digest() for part in new}
        for name, positions in edit.touched().items():
            taken[name] = union([taken[name], positions]) if name in taken else positions
    return joined(parts)


def _by_rule(edits: Sequence[Edit], rule: Rule, tensors: Mapping[str, Tensor] | None) -> list[Part]:
    """Tensors that one edit touches keep its parts; entries that several touch are merged."""
    contested = clashing(edits, rule)
    kept = [part for edit in edits for part in without(edit.parts, contested)]
    changes = [Change.of(edit, name, tensors) for edit in edits for name in contested if name in edit.touched()]
    hooked = [part for part in kept if part.modules()] if rule is summed else []  # these add up too
    once = {part.digest(): part for part in kept if not part.names() and not part.is_empty and part not in hooked}
    written = [part for part in kept if part.names()]
    return [*joined(written), *merged(changes, contested, rule, tensors), *hooked, *once.values()]


def joined(parts: Sequence[Part]) -> list[Part]:
    """All that is shut as one part, before the others."""
    return [_zeroed(parts), *(part for part in parts if not part.zeroes)]


def _zeroed(parts: Sequence[Part]) -> ZeroedWeights:
    touched = touched_by([part for part in parts if part.zeroes])
    return ZeroedWeights({name: positions for name, positions in touched.items() if positions is not None})


def _split(edit: Edit) -> tuple[ZeroedWeights, dict[str, Part]]:
    """All that an edit shuts, and its other parts that write, by content."""
    return _zeroed(edit.parts), {part.digest(): part for part in edit.weight_parts if not part.zeroes}


def _check_agreement(
    one: tuple[ZeroedWeights, dict[str, Part]],
    other: tuple[ZeroedWeights, dict[str, Part]],
    overlap: OverlapPolicy,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuse what one edit does to an entry and another does not do; within one edit parts are as its maker wanted."""
    (shut, parts), (other_shut, others) = one, other
    more = without((other_shut,), shut.indices)  # that this one leaves open
    for digest, part in parts.items():
        for other_digest, each in others.items():
            if not {digest, other_digest} <= parts.keys() & others.keys():
                _refuse(part, each, shapes)
        if overlap == "error" or part.adds:
            for each in more if digest in others else [other_shut]:
                _refuse(part, each, shapes)


def _refuse(a: Part, b: Part, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name in sorted(set(a.names()) & set(b.names())):
        if shared := common(a.change(name).indices, b.change(name).indices, prod(shapes[name])):
            raise OverlapError(
                f"{name}: these edits both touch {shared} entries",
                "say what becomes of them with overlap= union, first, sum or ties",
                tensor=name,
                count=shared,
            )


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
    tensors, base = named_tensors(modules), common_base([edit.base for edit in edits])
    found = fingerprint(modules, "the one given", [name for name in base.sketches if name in tensors])
    if reason := base_difference(base, found):
        raise EditError(
            f"these edits are for base {base.name} ({base.digest[:12]}), but base= is another model ({found.digest[:12]}), or one "
            f"with edits applied: {reason}"
        )
    return tensors


def common_base(bases: Sequence[Fingerprint]) -> Fingerprint:
    """One base with the sketches and shapes of all tensors that any of the edits of these bases touches."""
    ordered = sorted(bases, key=lambda base: (base.digest, base.name))
    sketches: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for base in reversed(ordered):  # the first in this order is laid on last
        sketches |= base.sketches
        shapes |= base.shapes
    smallest = ordered[0]
    return replace(smallest, sketches=dict(sorted(sketches.items())), shapes=dict(sorted(shapes.items())))


def _lineage(edits: Sequence[Edit], overlap: OverlapPolicy | Rule, weights: Sequence[float]) -> dict[str, Any]:
    parents = [parent for edit in edits for parent in _parents(edit)]
    if overlap in ("error", "union"):
        parents = [json.loads(text) for text in sorted({json.dumps(value, sort_keys=True) for value in parents})]
    if len(parents) == 1 and set(weights) == {1.0}:
        return parents[0]
    lineage: dict[str, Any] = {"method": "compose", "parents": parents}
    if overlap != "error":
        lineage["overlap"] = overlap.__name__ if callable(overlap) else overlap
    return lineage if set(weights) == {1.0} else lineage | {"weights": list(weights)}


def _parents(edit: Edit) -> list[Any]:
    parents = edit.provenance.get("parents")
    is_plain = edit.provenance.get("method") in ("compose", "edit.compose") and "weights" not in edit.provenance
    return parents if is_plain and isinstance(parents, list) else [edit.provenance]
