"""Small branches beside the operations of a transformer: how one works, what it adds, the hooks that put it there.

One forward serves both training and the edit: `branch_hooks` takes any tensors, those that are being trained or those of a file.
U-Tuning (arXiv 2303.00690): x' = OP(x) + s * branch(x), where x enters the operation before its layer normalisation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.editfile.placement import AdapterPlacement, roles
from photopic.core.edits.activations import ACTIVATIONS, replaced
from photopic.core.edits.part import Hook
from photopic.core.errors import EditError

Tensors = Mapping[str, Tensor]  # of one branch, by role


def branch_output(
    branch: AdapterPlacement,
    tensors: Tensors,
    x: Float[Tensor, "*batch tokens dim"],
    module_of: Callable[[str], nn.Module],
) -> Float[Tensor, "*batch tokens out"]:
    """What a branch adds for one input.

    Args:
        branch: How it works.
        tensors: By role; they may require gradients.
        x: What it reads.
        module_of: Gives the frozen modules by name; their ``forward`` is called, so that no hook on them runs twice.
    """
    own = {role: tensor.to(x) for role, tensor in tensors.items()}  # at the precision of the activations
    if branch.kind == "adapter":
        hidden = x @ own["down"].mT + own.get("down_bias", 0)  # (..., dim) -> (..., rank)
        out = ACTIVATIONS[branch.activation](hidden) @ own["up"].mT + own.get("up_bias", 0)  # -> (..., out)
    else:
        normed = module_of(branch.norm).forward(x) if branch.norm else x
        queries = module_of(branch.query).forward(normed)  # (..., tokens, dim)
        if branch.kind == "prefix":
            keys, values = own["keys"], own["values"]  # (length, dim) each
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
    return (share @ v).transpose(-3, -2).flatten(-2)  # (..., heads, tokens, head dim) -> (..., tokens, dim)


def branch_hooks(
    branches: Mapping[str, AdapterPlacement],
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


def _recorder(entered: dict[int, Tensor]) -> Hook:
    def record(module: Any, given: Mapping[str, Any], output: Any) -> Any:
        entered[threading.get_ident()] = next(iter(given.values()))
        return output

    return record


def _adder(
    name: str,
    branch: AdapterPlacement,
    tensors: Tensors,
    weight: float,
    entered: dict[int, Tensor],
    module_of: Callable[[str], nn.Module],
) -> Hook:
    def add(module: Any, given: Mapping[str, Any], output: Any) -> Any:
        first = output if isinstance(output, Tensor) else output[0]
        if branch.serial:
            x = first  # (..., tokens, dim): what the operation put out
        elif branch.reads and branch.reads != name:
            if threading.get_ident() not in entered:
                raise EditError(f"{name}: expected {branch.reads} to run before it, found that it did not")
            x = entered.pop(threading.get_ident())
        else:
            x = next(iter(given.values()))
        return replaced(output, first + weight * branch_output(branch, tensors, x, module_of))

    return add
