"""An edit: parts, the base they were made for, and how they were found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from photopic.core.edits.activations import InitialNoise, Insertion, SteeringVector, TokenResidual
from photopic.core.edits.adapters import Adapters, ClassifierHead
from photopic.core.edits.dense import DenseDelta, LowRankDelta, check_fits
from photopic.core.edits.positions import Positions, overlap, union
from photopic.core.edits.sparse import SparseWeights, ZeroedWeights
from photopic.core.edits.token_rows import TokenEmbedding
from photopic.core.errors import EditError
from photopic.core.fingerprint import Fingerprint

WeightPart = ZeroedWeights | SparseWeights | LowRankDelta | DenseDelta
HookPart = TokenResidual | Insertion | SteeringVector | Adapters
Part = WeightPart | HookPart | TokenEmbedding | InitialNoise | ClassifierHead
WEIGHT_PARTS = (ZeroedWeights, SparseWeights, LowRankDelta, DenseDelta)
HOOK_PARTS = (TokenResidual, Insertion, SteeringVector, Adapters)


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of a model as data; an `EditStack` applies and reverts it, `photopic.core.edits.file` stores it.

    An entry may be shut or given a value once; changes that are added come after that and may fall anywhere.

    Attributes:
        parts: Of any kind in `photopic.core.edits`.
        base: The model it was made for, with sketches and shapes of the touched tensors.
        provenance: JSON values: method, config, data hash, seed, steps, versions, token, noun, prompt.

    Raises:
        EditError: If it touches nothing, parts overlap, a position lies outside its tensor, or provenance is not JSON.

    Example:
        >>> from photopic.core.fingerprint import fingerprint
        >>> base = fingerprint({"unet": nn.Linear(2, 2)}, "tiny", ["unet.weight"])
        >>> Edit((ZeroedWeights({"unet.weight": torch.tensor([3])}),), base).touched()
        {'unet.weight': tensor([3])}
    """

    parts: tuple[Part, ...]
    base: Fingerprint
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = tuple(sorted(filter(changes_something, self.parts), key=_turn))
        if not parts:
            raise EditError("this edit touches nothing: no entry is shut or changed and no token is added")
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "provenance", _as_json(self.provenance))
        for part in self.weight_parts:
            for name in part.names():
                _check_inside(name, part, self.base)
        self._check_set_once()
        if len(set(self.tokens)) < len(self.tokens):
            raise EditError(f"this edit adds a token twice: {' '.join(self.tokens)}")
        if sum(isinstance(part, InitialNoise) for part in parts) > 1:
            raise EditError("this edit has two start noises; sampling starts from one")
        if sum(isinstance(part, ClassifierHead) for part in parts) > 1:
            raise EditError("this edit has two heads; a picture gets one class, so leave one of them out")

    @property
    def weight_parts(self) -> tuple[WeightPart, ...]:
        """The parts that write to parameters."""
        return tuple(part for part in self.parts if isinstance(part, WEIGHT_PARTS))

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each touched tensor."""
        return {name: self.base.shapes[name] for name in self.touched()}

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens it adds to the tokenizers."""
        return tuple(part.token for part in self.parts if isinstance(part, TokenEmbedding))

    @property
    def subjects(self) -> tuple[str, ...]:
        """Its tokens that a prompt says; the further ones of a subject of several (``<mine>_1``) come with the first."""
        residuals = [part for part in self.parts if isinstance(part, TokenResidual)]
        further = {word for part in residuals for word in part.words.split()[1:]}
        return tuple(token for token in self.tokens if token not in further)

    def touched(self) -> dict[str, Positions]:
        """Every touched position by tensor name, strictly increasing; None where a part changes the whole tensor."""
        return touched_by(self.weight_parts)

    def _check_set_once(self) -> None:
        seen: dict[str, Positions] = {}
        for part in self.weight_parts:
            for name in part.names():
                if is_added(part):
                    continue
                positions = part.change(name).indices
                if name in seen and (twice := overlap(seen[name], positions, 0)):
                    raise EditError(f"{name}: parts of one edit overlap in {twice} entries")
                seen[name] = union([seen[name], positions]) if name in seen else positions


def touched_by(parts: Sequence[WeightPart]) -> dict[str, Positions]:
    """Every position that some parts write to, by tensor name; None where one of them writes to all."""
    gathered: dict[str, list[Positions]] = {}
    for part in parts:
        for name in part.names():
            gathered.setdefault(name, []).append(part.change(name).indices)
    return {name: union(gathered[name]) for name in sorted(gathered)}


def is_added(part: WeightPart) -> bool:
    """Whether a part adds to entries rather than setting them."""
    return isinstance(part, LowRankDelta | DenseDelta) or (isinstance(part, SparseWeights) and part.delta)


def changes_something(part: Part) -> bool:
    """Whether a part names anything at all."""
    if isinstance(part, WEIGHT_PARTS):
        return bool(part.names())
    return bool(part.modules()) if isinstance(part, HOOK_PARTS) else True


def _turn(part: Part) -> int:
    """Entries are set before anything is added to them; the rest touches no entry."""
    return int(is_added(part)) if isinstance(part, WEIGHT_PARTS) else 2


def _as_json(provenance: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(provenance), sort_keys=True, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise EditError(f"provenance: expected JSON values, found something else ({error})") from None


def _check_inside(name: str, part: WeightPart, base: Fingerprint) -> None:
    if name not in base.shapes or name not in base.sketches:
        raise EditError(
            f"{name}: missing in the fingerprint of {base.name}; pass every touched tensor to fingerprint()"
        )
    if isinstance(part, LowRankDelta | DenseDelta):
        check_fits(part, name, tuple(base.shapes[name]))
        return
    size = torch.Size(base.shapes[name]).numel()
    last = int(part.indices[name][-1])
    if last >= size:
        raise EditError(f"{name}: expected positions below {size}, found {last}")
