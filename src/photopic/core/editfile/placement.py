"""How a small branch stands beside an operation of a transformer, as files say it; `photopic.core.edits.adapter_hooks` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from photopic.core.errors import EditError

ACTIVATIONS = ("identity", "relu", "gelu")
MOST_HEADS = 4096
ROLES: dict[str, tuple[str, ...]] = {  # tensors that a branch must have
    "adapter": ("down", "up"),
    "prefix": ("keys", "values"),
    "prompt": ("tokens",),
}
BIASES = ("down_bias", "up_bias")  # that an adapter may have
SCALES: dict[str, tuple[str, ...]] = {
    "none": (),
    "scalar": ("scale",),
    "channel": ("scale",),
    "input": ("gate", "gate_bias"),
}


@dataclass(frozen=True)
class AdapterPlacement:
    """How one branch works and what it reads; modules are called ``<component>.<module name>``.

    Attributes:
        kind: ``adapter``: up(activation(down(x))). ``prefix``: attention over trained keys and values. ``prompt``: attention over
            trained tokens that go through the frozen key and value projections.
        scaling: What the branch is multiplied with: ``none``, ``scalar``, ``channel`` (one a channel), or ``input``: the mean over
            tokens of a gate on the branch itself.
        activation: Of an adapter: ``identity``, ``relu`` or ``gelu``.
        reads: The module whose input the branch reads, such as the layer normalisation before the operation; empty for the
            operation's own input.
        serial: Whether it reads the operation's output instead, as the first adapters did.
        norm: Of attention: what normalises x before the query projection.
        query: Of attention: the frozen query projection.
        key: Of a prompt: the frozen key projection.
        value: Of a prompt: the frozen value projection.
        heads: Of attention: how many heads.
    """

    kind: str
    scaling: str = "channel"
    activation: str = "gelu"
    reads: str = ""
    serial: bool = False
    norm: str = ""
    query: str = ""
    key: str = ""
    value: str = ""
    heads: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ROLES or self.scaling not in SCALES or self.activation not in ACTIVATIONS:
            raise EditError(
                f"branch: expected a kind of {', '.join(ROLES)}, a scaling of {', '.join(SCALES)} and an activation of "
                f"{', '.join(ACTIVATIONS)}, found {self.kind!r}, {self.scaling!r} and {self.activation!r}"
            )
        if self.serial and (self.reads or self.kind != "adapter"):
            raise EditError("branch: expected an adapter without another module to read, as it reads the output")
        if self.kind != "adapter" and not (self.query and 0 < self.heads <= MOST_HEADS):
            raise EditError(
                f"branch: a {self.kind} needs a query projection and heads, found {self.query!r}, {self.heads}"
            )
        if self.kind == "prompt" and not (self.key and self.value):
            raise EditError("branch: a prompt needs the frozen key and value projections, found none")

    @property
    def modules(self) -> tuple[str, ...]:
        """Other modules that it needs."""
        return tuple(filter(None, (self.reads, self.norm, self.query, self.key, self.value)))


def roles(branch: AdapterPlacement) -> tuple[str, ...]:
    """Every tensor that a branch may have, by role."""
    return (*ROLES[branch.kind], *(BIASES if branch.kind == "adapter" else ()), *SCALES[branch.scaling])


def branch_of(described: Mapping[str, Any]) -> AdapterPlacement:
    """A branch from what a file says of it; `described` is the inverse."""
    return AdapterPlacement(**described)


def described(branch: AdapterPlacement) -> dict[str, Any]:
    """A branch as JSON values."""
    return asdict(branch)


def is_described(value: Any) -> bool:
    """Whether JSON values have the fields and types of a branch."""
    types = {field.name: {"str": str, "bool": bool, "int": int}[str(field.type)] for field in fields(AdapterPlacement)}
    return isinstance(value, dict) and {name: type(each) for name, each in value.items()} == types
