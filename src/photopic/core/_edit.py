"""An edit: parts, the base they were made for, and how they were found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from photopic.core._parts import Part, Shut, TokenRows, Values
from photopic.core.errors import EditError
from photopic.core.fingerprint import Fingerprint, difference


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of a model as data; an `EditStack` applies and reverts it, `photopic.core.editfile` stores it.

    Attributes:
        parts: `Shut`, `Values` and `TokenRows`; no entry may be named twice.
        base: The model it was made for, with sketches and shapes of the touched tensors.
        provenance: JSON values: method, config, data hash, seed, steps, versions, token, noun, prompt.

    Raises:
        EditError: If it touches nothing, parts overlap, a position lies outside its tensor, or provenance is not JSON.

    Example:
        >>> base = fingerprint({"unet": nn.Linear(2, 2)}, "tiny", ["unet.weight"])
        >>> Edit((Shut({"unet.weight": torch.tensor([3])}),), base).touched()
        {'unet.weight': tensor([3])}
    """

    parts: tuple[Part, ...]
    base: Fingerprint
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = tuple(part for part in self.parts if isinstance(part, TokenRows) or part.indices)
        if not parts:
            raise EditError("this edit touches nothing: no entry is shut or changed and no token is added")
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "provenance", _as_json(self.provenance))
        for name, positions in self.touched().items():
            _check_inside(name, positions, self.base)
        if len(set(self.tokens)) < len(self.tokens):
            raise EditError(f"this edit adds a token twice: {' '.join(self.tokens)}")

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each touched tensor."""
        return {name: self.base.shapes[name] for name in self.touched()}

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens it adds to the tokenizers."""
        return tuple(part.token for part in self.parts if isinstance(part, TokenRows))

    def touched(self) -> dict[str, Int64[Tensor, " count"]]:
        """Every touched position by tensor name, strictly increasing.

        Raises:
            EditError: If two parts name the same entry.
        """
        gathered: dict[str, list[Tensor]] = {}
        for part in self.parts:
            if not isinstance(part, TokenRows):
                for name, positions in part.indices.items():
                    gathered.setdefault(name, []).append(positions)
        touched = {}
        for name in sorted(gathered):
            touched[name] = union(gathered[name])
            twice = sum(map(len, gathered[name])) - len(touched[name])
            if twice:
                raise EditError(f"{name}: parts of one edit overlap in {twice} entries")
        return touched


def compose(a: Edit, b: Edit) -> Edit:
    """Combine two edits of one base into one: the union of what they shut, and all their values and tokens.

    Commutative, associative and idempotent, down to the bytes of the file.

    Args:
        a: An edit.
        b: An edit of the same base.

    Returns:
        One edit whose provenance lists its parents.

    Raises:
        EditError: If the bases differ, or where one changes an entry that the other shuts or changes, or both add one token.

    Example:
        >>> both = compose(bear, mug)  # doctest: +SKIP
    """
    reason = difference(a.base, b.base)
    if reason:
        raise EditError(
            f"these edits are for different bases: {a.base.name} ({a.base.digest[:12]}) and "
            f"{b.base.name} ({b.base.digest[:12]}): {reason}"
        )
    shut = [part for edit in (a, b) for part in edit.parts if isinstance(part, Shut)]
    names = sorted({name for part in shut for name in part.indices})
    shut_union = Shut({name: union([part.indices[name] for part in shut if name in part.indices]) for name in names})
    others = _merged([part for edit in (a, b) for part in edit.parts if not isinstance(part, Shut)])
    smallest = min(a.base, b.base, key=lambda base: (base.digest, base.name))
    base = Fingerprint(
        name=smallest.name,
        digest=smallest.digest,
        sketches=_sorted_union(a.base, b.base, "sketches"),
        shapes=_sorted_union(a.base, b.base, "shapes"),
        sketch=smallest.sketch,
    )
    parents = _unique([*_parents(a), *_parents(b)])
    provenance = parents[0] if len(parents) == 1 else {"method": "compose", "parents": parents}
    return Edit((shut_union, *others), base, provenance)


def union(sets: list[Int64[Tensor, " _"]]) -> Int64[Tensor, " count"]:
    """The sorted union of position sets.

    Example:
        >>> union([torch.tensor([1, 4]), torch.tensor([0, 4])])
        tensor([0, 1, 4])
    """
    return sets[0] if len(sets) == 1 else torch.cat(sets).unique(sorted=True)


def _merged(parts: list[Values | TokenRows]) -> list[Values | TokenRows]:
    """Equal parts once, in an order that does not depend on who came first."""
    distinct: list[Values | TokenRows] = []
    for part in parts:
        if not any(_same_part(part, other) for other in distinct):
            distinct.append(part)
    return sorted(distinct, key=_part_order)


def _same_part(a: Values | TokenRows, b: Values | TokenRows) -> bool:
    if isinstance(a, TokenRows) or isinstance(b, TokenRows):
        return isinstance(a, TokenRows) and isinstance(b, TokenRows) and a.token == b.token and _equal(a.rows, b.rows)
    return a.bits == b.bits and _equal(a.indices, b.indices) and _equal(a.values, b.values)


def _part_order(part: Values | TokenRows) -> tuple[int, str]:
    if isinstance(part, TokenRows):
        return 1, part.token
    return 0, json.dumps([part.bits, [[name, positions[0].item()] for name, positions in part.indices.items()]])


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


def _sorted_union(a: Fingerprint, b: Fingerprint, attribute: str) -> dict[str, Any]:
    first, second = (getattr(base, attribute) for base in ((a, b) if a.digest <= b.digest else (b, a)))
    return dict(sorted({**second, **first}.items()))


def _parents(edit: Edit) -> list[Any]:
    return edit.provenance["parents"] if edit.provenance.get("method") == "compose" else [edit.provenance]


def _unique(values: list[Any]) -> list[Any]:
    return [json.loads(text) for text in sorted({json.dumps(value, sort_keys=True) for value in values})]


def _as_json(provenance: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(provenance), sort_keys=True, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise EditError(f"provenance: expected JSON values, found something else ({error})") from None


def _check_inside(name: str, positions: Tensor, base: Fingerprint) -> None:
    if name not in base.shapes or name not in base.sketches:
        raise EditError(
            f"{name}: missing in the fingerprint of {base.name}; pass every touched tensor to fingerprint()"
        )
    size = torch.Size(base.shapes[name]).numel()
    if int(positions[-1]) >= size:
        raise EditError(f"{name}: expected positions below {size}, found {int(positions[-1])}")
