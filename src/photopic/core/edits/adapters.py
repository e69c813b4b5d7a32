"""The part of an edit that adds branches beside operations of a transformer, and the classifier that was learnt with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from photopic.core.editfile.placement import ROLES, SCALES, AdapterPlacement, roles
from photopic.core.edits.adapter_hooks import branch_hooks
from photopic.core.edits.dense import _checked, _is_finite
from photopic.core.edits.part import Hook, ModuleOf, Part, Weights
from photopic.core.edits.positions import Positions
from photopic.core.errors import EditError


@dataclass(frozen=True, eq=False)
class Adapters(Part):
    """Branches beside operations: adapters, prefixes and prompts in parallel form (U-Tuning, arXiv 2303.00690).

    Attributes:
        branches: The name of a module to how its branch works; the branch is added to the module's output.
        tensors: ``<module name>/<role>`` to tensor. Roles of an adapter: ``down`` (rank, in), ``up`` (out, rank) and perhaps
            ``down_bias`` (rank,) and ``up_bias`` (out,); of a prefix: ``keys`` and ``values`` (length, dim); of a prompt:
            ``tokens`` (length, dim); of a scaling: ``scale`` (1,) or (out,), or ``gate`` (out,) and ``gate_bias`` (1,).
        scale: Of all branches.

    Example:
        >>> import torch
        >>> branch = AdapterPlacement("adapter", scaling="none")
        >>> Adapters({"m.mlp": branch}, {"m.mlp/down": torch.ones(1, 4), "m.mlp/up": torch.zeros(4, 1)}).modules()
        ('m.mlp',)
    """

    kind: ClassVar[str] = "tuner"
    branches: Mapping[str, AdapterPlacement]
    tensors: Mapping[str, Tensor]
    scale: float = 1.0

    def __post_init__(self) -> None:
        branches = dict(sorted(self.branches.items()))
        tensors = _checked(self.tensors, None, "tuner")
        if not _is_finite(self.scale):
            raise EditError(f"tuner: expected a finite scale, found {self.scale}")
        known = {f"{name}/{role}" for name, branch in branches.items() for role in roles(branch)}
        if odd := sorted(tensors.keys() - known):
            raise EditError(f"tuner: {odd[0]}: expected tensors of its branches, found one that belongs to none")
        for name, branch in branches.items():
            _check_shapes(name, branch, {role: tensors.get(f"{name}/{role}") for role in roles(branch)})
        object.__setattr__(self, "branches", branches)
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "scale", float(self.scale))

    @property
    def is_empty(self) -> bool:
        return not self.branches

    def modules(self) -> tuple[str, ...]:
        """What it hooks."""
        read = {branch.reads for branch in self.branches.values() if branch.reads}
        return tuple(sorted(self.branches.keys() | read))

    def needs(self) -> tuple[str, ...]:
        """What it hooks or calls."""
        return tuple(sorted(self.branches.keys() | {each for b in self.branches.values() for each in b.modules}))

    def hooks(self, weight: Weights, module_of: ModuleOf) -> Iterator[tuple[str, Hook]]:
        """Hooks by module, each branch at its weight."""
        return branch_hooks(self.branches, self.tensors, lambda name: weight(name) * self.scale, module_of)

    def scaled(self, weight: float, base: Mapping[str, Tensor] | None) -> Part:
        return replace(self, scale=weight * self.scale)

    def restricted(self, keep: Callable[[str], bool], outside: Mapping[str, Positions]) -> Sequence[Part]:
        branches = {name: branch for name, branch in self.branches.items() if keep(name)}
        tensors = {name: each for name, each in self.tensors.items() if name.rpartition("/")[0] in branches}
        return (Adapters(branches, tensors, self.scale),)


@dataclass(frozen=True, eq=False)
class ClassifierHead(Part):
    """A classifier on the features that a model gives, kept with the edit they were learnt with; it changes no model.

    Attributes:
        labels: Class names, in the order of the rows.
        weight: One row a class, shape (classes, dim).
        bias: One number a class.

    Example:
        >>> import torch
        >>> ClassifierHead(("mug", "bear"), torch.ones(2, 4), torch.zeros(2)).labels
        ('mug', 'bear')
    """

    kind: ClassVar[str] = "head"
    labels: tuple[str, ...]
    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        weight = _checked({"weight": self.weight}, 2, "head")["weight"]
        bias = _checked({"bias": self.bias}, 1, "head")["bias"]
        labels = tuple(self.labels)
        if not len(labels) == len(set(labels)) == len(weight) == len(bias) or not all(map(str.strip, labels)):
            raise EditError(
                f"head: expected one row, one bias and one name a class, each name once, found {len(weight)} rows, "
                f"{len(bias)} biases and {len(labels)} names, {len(set(labels))} of them different"
            )
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)


def _check_shapes(name: str, branch: AdapterPlacement, tensors: Mapping[str, Tensor | None]) -> None:
    found = {role: tuple(tensor.shape) for role, tensor in tensors.items() if tensor is not None}
    lacking = [role for role in (*ROLES[branch.kind], *SCALES[branch.scaling]) if role not in found]
    first = ROLES[branch.kind][0]
    if lacking or len(found[first]) != 2:
        raise EditError(
            f"tuner: {name}: its {branch.kind} needs {', '.join(lacking) or f'a matrix as {first}'}, found {found}"
        )
    length, dim = found[first]  # (rank, in) of a down, (length, dim) of keys or tokens
    out = found["up"][0] if branch.kind == "adapter" else dim
    expected: dict[str, tuple[int, ...]] = {
        "up": (out, length),
        "down_bias": (length,),
        "up_bias": (out,),
        "keys": (length, dim),
        "values": (length, dim),
        "scale": (out,) if branch.scaling == "channel" else (1,),
        "gate": (out,),
        "gate_bias": (1,),
    }
    for role, shape in found.items():
        if shape != expected.get(role, shape):
            raise EditError(f"tuner: {name}: expected {role} of shape {expected[role]}, found {shape}")
    if branch.kind != "adapter" and dim % branch.heads:
        raise EditError(f"tuner: {name}: expected a width that {branch.heads} heads divide, found {dim}")
