"""An edit: parts, the base they were made for, and how they were found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from photopic.core.editfile.views import Searched, Subject
from photopic.core.edits.activations import InitialNoise, TokenResidual
from photopic.core.edits.adapters import ClassifierHead
from photopic.core.edits.part import Part
from photopic.core.edits.positions import Positions, overlap, union
from photopic.core.edits.token_rows import TokenEmbedding
from photopic.core.errors import EditError
from photopic.core.identity import Fingerprint

P = TypeVar("P", bound=Part)
_ONLY_ONE = (  # kinds of which an edit has one at most, and why
    (InitialNoise, "two start noises; sampling starts from one"),
    (ClassifierHead, "two heads; a picture gets one class, so leave one of them out"),
)


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
        >>> from photopic.core.edits import ZeroedWeights
        >>> from photopic.core.fingerprint import fingerprint
        >>> base = fingerprint({"unet": nn.Linear(2, 2)}, "tiny", ["unet.weight"])
        >>> Edit((ZeroedWeights({"unet.weight": torch.tensor([3])}),), base).touched()
        {'unet.weight': tensor([3])}
    """

    parts: tuple[Part, ...]
    base: Fingerprint
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = tuple(sorted((part for part in self.parts if not part.is_empty), key=_turn))
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
        for kind, why in _ONLY_ONE:
            if len(self.of(kind)) > 1:
                raise EditError(f"this edit has {why}")

    def of(self, *kinds: type[P]) -> tuple[P, ...]:
        """Its parts of one kind or several, such as ``edit.of(TokenEmbedding)``."""
        return tuple(part for part in self.parts if isinstance(part, kinds))

    @property
    def weight_parts(self) -> tuple[Part, ...]:
        """The parts that write to parameters."""
        return tuple(part for part in self.parts if part.names())

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each touched tensor."""
        return {name: self.base.shapes[name] for name in self.touched()}

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens it adds to the tokenizers."""
        return tuple(part.token for part in self.of(TokenEmbedding))

    @property
    def subjects(self) -> tuple[str, ...]:
        """Its tokens that a prompt says; the further ones of a subject of several (``<mine>_1``) come with the first."""
        further = {word for part in self.of(TokenResidual) for word in part.words.split()[1:]}
        return tuple(token for token in self.tokens if token not in further)

    @property
    def subject(self) -> Subject | None:
        """The thing it was made of, as its provenance says; None for an edit of none."""
        spoken = {word for part in self.of(TokenResidual) for word in part.words.split()}
        return Subject.of(self.provenance, replaces_noun=bool(spoken & set(self.tokens)))

    @property
    def label(self) -> str:
        """What to call it: its new words, else its noun; empty if it has neither."""
        return "+".join(self.tokens) or (self.subject.noun if self.subject else "")

    @property
    def searched(self) -> Searched | None:
        """Where it was searched for, as its provenance says; None if it was not searched."""
        return Searched.of(self.provenance)

    def touched(self) -> dict[str, Positions]:
        """Every touched position by tensor name, strictly increasing; None where a part changes the whole tensor."""
        return touched_by(self.weight_parts)

    def _check_set_once(self) -> None:
        seen: dict[str, Positions] = {}
        for part in self.weight_parts:
            for name in () if part.adds else part.names():
                positions = part.change(name).indices
                if name in seen and (twice := overlap(seen[name], positions, 0)):
                    raise EditError(f"{name}: parts of one edit overlap in {twice} entries")
                seen[name] = union([seen[name], positions]) if name in seen else positions


def touched_by(parts: Sequence[Part]) -> dict[str, Positions]:
    """Every position that some parts write to, by tensor name; None where one of them writes to all."""
    gathered: dict[str, list[Positions]] = {}
    for part in parts:
        for name in part.names():
            gathered.setdefault(name, []).append(part.change(name).indices)
    return {name: union(gathered[name]) for name in sorted(gathered)}


def _turn(part: Part) -> int:
    """Entries are set before anything is added to them; the rest touches no entry."""
    return int(part.adds) if part.names() else 2


def _as_json(provenance: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(provenance), sort_keys=True, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise EditError(f"provenance: expected JSON values, found something else ({error})") from None


def _check_inside(name: str, part: Part, base: Fingerprint) -> None:
    if name not in base.shapes or name not in base.sketches:
        raise EditError(
            f"{name}: missing in the fingerprint of {base.name}; pass every touched tensor to fingerprint()"
        )
    part.check_fits(name, tuple(base.shapes[name]))
