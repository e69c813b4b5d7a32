"""One edit of a stack, and the weights it may have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from photopic.core.edits.edit import Edit
from photopic.core.errors import EditError

Weight = float | Mapping[str, float]
LoadOverlapPolicy = Literal["error", "last"]


@dataclass(frozen=True)
class LoadedEdit:
    """One edit of a stack.

    Attributes:
        name: By which it is unloaded.
        edit: What it is.
        weight: One number, or one a pattern of tensor and module names.
        enabled: Whether it is in force.
        forced: Whether it was made for another base and applied all the same.
        overlap: Whether entries that an earlier edit touches too are refused, or written last.
    """

    name: str
    edit: Edit
    weight: Weight = 1.0
    enabled: bool = True
    forced: bool = False
    overlap: LoadOverlapPolicy = "error"

    def weight_at(self, name: str) -> float:
        """The weight of one tensor or module: that of the first pattern that matches, else 1; 0 while it is disabled."""
        if not self.enabled:
            return 0.0
        if not isinstance(self.weight, Mapping):
            return self.weight
        return next((weight for pattern, weight in self.weight.items() if fnmatchcase(name, pattern)), 1.0)

    @property
    def is_on(self) -> bool:
        """Whether it does anything at all."""
        return self.enabled and self.weight != 0


def checked_weight(edit: Edit, weight: Weight) -> Weight:
    """A weight as plain numbers.

    Raises:
        EditError: If one is not finite, or a pattern matches nothing the edit touches.
    """
    numbers = dict(weight) if isinstance(weight, Mapping) else {"*": weight}
    names = [name for part in edit.parts for name in part.weighted()]
    for pattern, number in numbers.items():
        if not math.isfinite(number):
            raise EditError(f"weight: expected a finite number, found {number}")
        if isinstance(weight, Mapping) and not any(fnmatchcase(name, pattern) for name in names):
            raise EditError(
                f"weight: pattern {pattern!r} matches nothing this edit touches, such as {names[0] if names else '-'}"
            )
    return {key: float(number) for key, number in numbers.items()} if isinstance(weight, Mapping) else float(weight)
