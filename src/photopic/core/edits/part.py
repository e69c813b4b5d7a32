"""What every kind of part of an edit can do; a new kind is one class that overrides what it changes, hooks, holds and becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from photopic.core.edits.positions import Positions, Write
from photopic.core.errors import EditError

Hook = Callable[[Any, Any, Any], Any]  # module, arguments by name, output -> new output
Weights = Callable[[str], float]  # name of a tensor or module -> its weight
ModuleOf = Callable[[str], nn.Module]  # ``<component>.<module name>`` -> module


class Part:
    """One change of a model as data. What is not overridden does nothing: a kind that only hooks modules names no parameter.

    Attributes:
        kind: As files call it; it never changes.
        zeroes: Whether all that it writes is zero, so that two such parts agree wherever they meet.
        bits: Of each value that it keeps beside positions; 0 where it keeps none.
    """

    kind: ClassVar[str]
    zeroes: ClassVar[bool] = False
    bits: int = 0

    @property
    def adds(self) -> bool:
        """Whether it adds to entries rather than setting them."""
        return False

    @property
    def is_empty(self) -> bool:
        """Whether it names nothing at all, so that an edit leaves it out."""
        return False

    def names(self) -> tuple[str, ...]:
        """The parameters it writes to."""
        return ()

    def change(self, name: str) -> Write:
        """What becomes of one of its parameters."""
        raise EditError(f"{self.kind}: writes to no parameter {name}")

    def check_fits(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse a parameter of a shape that it was not made for; only of its own `names`.

        Raises:
            EditError: Names the parameter, its shape and what was found.
        """

    def modules(self) -> tuple[str, ...]:
        """The modules it hooks."""
        return ()

    def needs(self) -> tuple[str, ...]:
        """The modules it hooks or calls."""
        return self.modules()

    def hooks(self, weight: Weights, module_of: ModuleOf) -> Iterator[tuple[str, Hook]]:
        """Its forward hooks with the names of their modules; none where the weight is 0."""
        return iter(())

    def weighted(self) -> tuple[str, ...]:
        """The names that patterns of weights can match."""
        return (*self.names(), *self.modules())

    def scaled(self, weight: float, base: Mapping[str, Tensor] | None) -> Part:
        """The same change multiplied by a weight; the base's entries say by how much where it sets them.

        Raises:
            EditError: If it sets entries and the base is not given, or cannot be weighted.
        """
        return self

    def restricted(self, keep: Callable[[str], bool], outside: Mapping[str, Positions]) -> Sequence[Part]:
        """What is left of it in the tensors and modules that are kept, less the entries outside; None is every entry."""
        return (self,)

    def at_bits(self, bits: int) -> Sequence[Part]:
        """The same with the values beside its positions rounded to at most so many bits; at 0 what is set is shut instead."""
        return (self,)

    def with_ids(self, tokens: set[str], ids_of: Callable[[str, list[str]], tuple[int, ...]]) -> Part:
        """The same at the ids that new tokens have now, which depend on what else was added before."""
        return self

    def digest(self) -> str:
        """The same text for the same content, whatever made it."""
        hashed = hashlib.sha256(self.kind.encode())
        for entry in fields(self):  # type: ignore[arg-type]  # every kind is a dataclass
            value = getattr(self, entry.name)
            for name, each in (value if isinstance(value, Mapping) else {entry.name: value}).items():
                if isinstance(each, Tensor):
                    hashed.update(json.dumps([entry.name, name, str(each.dtype), list(each.shape)]).encode())
                    hashed.update(each.contiguous().view(-1).view(torch.uint8).numpy().data)
                else:
                    plain = asdict(each) if is_dataclass(each) and not isinstance(each, type) else each
                    hashed.update(json.dumps([entry.name, name, plain]).encode())
        return hashed.hexdigest()


def within(keep: Callable[[str], bool], outside: Mapping[str, Positions], name: str) -> Positions:
    """The entries of a tensor that a restriction takes away; None is every entry."""
    return outside.get(name, torch.zeros(0, dtype=torch.int64)) if keep(name) else None
