"""A part that adds small branches beside operations of a transformer, and the classifier that was learnt with them.

One forward serves both training and the edit: `branch_hooks` takes any tensors, those that are being trained or those of a file.
U-Tuning (arXiv 2303.00690): x' = OP(x) + s * branch(x), where x enters the operation before its layer normalisation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from photopic.core._edits.activations import ACTIVATIONS, Hook, replaced
from photopic.core._edits.dense import _checked, _is_finite
from photopic.core.errors import EditError

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
Tensors = Mapping[str, Tensor]  # of one branch, by role


@dataclass(frozen=True)
class Branch:
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


def branch_output(
    branch: Branch, tensors: Tensors, x: Float[Tensor, "*batch tokens dim"], module_of: Callable[[str], nn.Module]
) -> Float[Tensor, "*batch tokens out"]:
    """What a branch adds for one input.

    Args:
        branch: How it works.
        tensors: By role; they may require gradients.
        x: What it reads.
        module_of: Gives the frozen modules by name; their ``forward`` is called, so that no hook on them runs twice.
    """
    own = {role: tensor.to(x) for role, tensor in tensors.items()}
    if branch.kind == "adapter":
        hidden = x @ own["down"].mT + own.get("down_bias", 0)  # (..., dim) -> (..., rank)
        out = ACTIVATIONS[branch.activation](hidden) @ own["up"].mT + own.get("up_bias", 0)  # -> (..., out)
    else:
        normed = module_of(branch.norm).forward(x) if branch.norm else x
        queries = module_of(branch.query).forward(normed)
        if branch.kind == "prefix":
            keys, values = own["keys"], own["values"]
        else:
            keys, values = (module_of(each).forward(own["tokens"]) for each in (branch.key, branch.value))
        out = attention(queries, keys, values, branch.heads)
    if branch.scaling == "input":
        return out * torch.sigmoid(out @ own["gate"] + own["gate_bias"]).mean(-1, keepdim=True).unsqueeze(-1)
    return out if branch.scaling == "none" else out * own["scale"]


def attention(
    queries: Float[Tensor, "*batch tokens dim"],
    keys: Float[Tensor, "length dim"],
    values: Float[Tensor, "length dim"],
    heads: int,
) -> Float[Tensor, "*batch tokens dim"]:
    """Softmax attention of every query over a few keys that all pictures share."""
    q = queries.unflatten(-1, (heads, -1)).transpose(-3, -2)  # (..., tokens, dim) -> (..., heads, tokens, head dim)
    k, v = (each.unflatten(-1, (heads, -1)).transpose(0, 1) for each in (keys, values))  # (heads, length, head dim)
    share = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)  # (..., heads, tokens, length)
    return (share @ v).transpose(-3, -2).flatten(-2)


def branch_hooks(
    branches: Mapping[str, Branch],
    tensors: Mapping[str, Tensor],
    weight: Callable[[str], float],
    module_of: Callable[[str], nn.Module],
) -> Iterator[tuple[str, Hook]]:
    """The forward hooks that put branches beside their modules, with the names of the modules.

    Args:
        branches: By the name of the module whose output they are added to.
        tensors: ``<module name>/<role>`` to tensor.
        weight: Of a branch by the module's name; at 0 there is no hook.
        module_of: Module by name.
    """
    for name, branch in branches.items():
        if weight(name) != 0:
            own = {role: tensors[f"{name}/{role}"] for role in roles(branch) if f"{name}/{role}" in tensors}
            entered: dict[int, Tensor] = {}  # by thread, between the module that is read and the operation
            if branch.reads and branch.reads != name:
                yield branch.reads, _recorder(entered)
            yield name, _adder(name, branch, own, weight(name), entered, module_of)


def roles(branch: Branch) -> tuple[str, ...]:
    """Every tensor that a branch may have, by role."""
    return (*ROLES[branch.kind], *(BIASES if branch.kind == "adapter" else ()), *SCALES[branch.scaling])


def _recorder(entered: dict[int, Tensor]) -> Hook:
    def record(module: Any, given: Mapping[str, Any], output: Any) -> Any:
        entered[threading.get_ident()] = next(iter(given.values()))
        return output

    return record


def _adder(
    name: str,
    branch: Branch,
    tensors: Tensors,
    weight: float,
    entered: dict[int, Tensor],
    module_of: Callable[[str], nn.Module],
) -> Hook:
    def add(module: Any, given: Mapping[str, Any], output: Any) -> Any:
        first = output if isinstance(output, Tensor) else output[0]
        if branch.serial:
            x = first
        elif branch.reads and branch.reads != name:
            if threading.get_ident() not in entered:
                raise EditError(f"{name}: expected {branch.reads} to run before it, found that it did not")
            x = entered.pop(threading.get_ident())
        else:
            x = next(iter(given.values()))
        return replaced(output, first + weight * branch_output(branch, tensors, x, module_of))

    return add


@dataclass(frozen=True, eq=False)
class Tuner:
    """Branches beside operations: adapters, prefixes and prompts in parallel form (U-Tuning, arXiv 2303.00690).

    Attributes:
        branches: The name of a module to how its branch works; the branch is added to the module's output.
        tensors: ``<module name>/<role>`` to tensor. Roles of an adapter: ``down`` (rank, in), ``up`` (out, rank) and perhaps
            ``down_bias`` (rank,) and ``up_bias`` (out,); of a prefix: ``keys`` and ``values`` (length, dim); of a prompt:
            ``tokens`` (length, dim); of a scaling: ``scale`` (1,) or (out,), or ``gate`` (out,) and ``gate_bias`` (1,).
        scale: Of all branches.

    Example:
        >>> branch = Branch("adapter", scaling="none")
        >>> Tuner({"m.mlp": branch}, {"m.mlp/down": torch.ones(1, 4), "m.mlp/up": torch.zeros(4, 1)}).modules()
        ('m.mlp',)
    """

    kind: ClassVar[str] = "tuner"
    branches: Mapping[str, Branch]
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

    def modules(self) -> tuple[str, ...]:
        """What it hooks."""
        read = {branch.reads for branch in self.branches.values() if branch.reads}
        return tuple(sorted(self.branches.keys() | read))

    def needs(self) -> tuple[str, ...]:
        """What it hooks or calls."""
        return tuple(sorted(self.branches.keys() | {each for b in self.branches.values() for each in b.modules}))

    def hooks(
        self, weight: Callable[[str], float], module_of: Callable[[str], nn.Module]
    ) -> Iterator[tuple[str, Hook]]:
        """Hooks by module, each branch at its weight."""
        return branch_hooks(self.branches, self.tensors, lambda name: weight(name) * self.scale, module_of)

    def only(self, names: Callable[[str], bool]) -> Tuner:
        """The same with some branches alone."""
        branches = {name: branch for name, branch in self.branches.items() if names(name)}
        tensors = {name: each for name, each in self.tensors.items() if name.rpartition("/")[0] in branches}
        return Tuner(branches, tensors, self.scale)


@dataclass(frozen=True, eq=False)
class Head:
    """A classifier on the features that a model gives, kept with the edit they were learnt with; it changes no model.

    Attributes:
        labels: Class names, in the order of the rows.
        weight: One row a class, shape (classes, dim).
        bias: One number a class.

    Example:
        >>> Head(("mug", "bear"), torch.ones(2, 4), torch.zeros(2)).labels
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


def branch_of(described: Mapping[str, Any]) -> Branch:
    """A branch from what a file says of it; `described` is the inverse."""
    return Branch(**described)


def described(branch: Branch) -> dict[str, Any]:
    """A branch as JSON values."""
    return asdict(branch)


def is_described(value: Any) -> bool:
    """Whether JSON values have the fields and types of a branch."""
    types = {field.name: {"str": str, "bool": bool, "int": int}[str(field.type)] for field in fields(Branch)}
    return isinstance(value, dict) and {name: type(each) for name, each in value.items()} == types


def _check_shapes(name: str, branch: Branch, tensors: Mapping[str, Tensor | None]) -> None:
    found = {role: tuple(tensor.shape) for role, tensor in tensors.items() if tensor is not None}
    lacking = [role for role in (*ROLES[branch.kind], *SCALES[branch.scaling]) if role not in found]
    first = ROLES[branch.kind][0]
    if lacking or len(found[first]) != 2:
        raise EditError(
            f"tuner: {name}: its {branch.kind} needs {', '.join(lacking) or f'a matrix as {first}'}, found {found}"
        )
    length, dim = found[first]
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
