"""Reading and writing single entries of parameters, and which parameters are one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from photopic.core._edit import union
from photopic.core.errors import EditError

_EDITABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Write:
    """Positions of one parameter and what becomes of them; no values means zero."""

    indices: Int64[Tensor, " count"]
    values: Float[Tensor, " count"] | None


def take(tensor: Tensor, positions: Int64[Tensor, " count"]) -> Float[Tensor, " count"]:
    """The entries at flat positions; `put` is the inverse."""
    positions = positions.to(tensor.device)
    if tensor.is_contiguous():
        return tensor.detach().view(-1).index_select(0, positions)
    return tensor.detach().take(positions)


def put(tensor: Tensor, positions: Int64[Tensor, " count"], entries: Float[Tensor, " count"]) -> None:
    """Overwrite the entries at flat positions, rounding to the tensor's precision."""
    positions, entries = positions.to(tensor.device), entries.to(tensor.device, tensor.dtype)
    if tensor.is_contiguous():
        tensor.detach().view(-1).index_copy_(0, positions, entries)
    else:
        tensor.detach().put_(positions, entries)


def apply(tensor: Tensor, write: Write, weight: float) -> None:
    """Write at a weight: entry + weight x (value - entry), exactly the value at weight 1."""
    if weight == 1:
        values = torch.zeros(len(write.indices)) if write.values is None else write.values
    else:
        entries = take(tensor, write.indices)
        entries = entries.to(torch.promote_types(entries.dtype, torch.float32))
        values = entries * (1 - weight)
        if write.values is not None:
            values = entries + weight * (write.values.to(entries) - entries)
    put(tensor, write.indices, values)


def first_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """For every tensor the first name of the memory it shares."""
    first: dict[tuple, str] = {}
    return {
        name: first.setdefault((tensor.device, tensor.data_ptr() or id(tensor), tensor.shape, tensor.stride()), name)
        for name, tensor in tensors.items()
    }


def once(name: str, writes: list[Write]) -> list[Write]:
    """The same writes with every position once; a shared parameter may have been named twice.

    Raises:
        EditError: If two names ask for different values of one entry.
    """
    if len(writes) == 1:
        return writes
    shut = [write.indices for write in writes if write.values is None]
    valued = [write for write in writes if write.values is not None]
    merged = [Write(union(shut), None)] if shut else []
    if valued:
        indices = torch.cat([write.indices for write in valued])
        values = torch.cat([write.values.float() for write in valued if write.values is not None])
        distinct, group = indices.unique(sorted=True, return_inverse=True)
        kept = torch.zeros(len(distinct)).index_copy_(0, group, values)
        if not torch.equal(kept[group], values):
            raise EditError(f"{name}: one shared parameter under two names, with different values for the same entry")
        merged.append(Write(distinct, kept))
    if len(merged) == 2 and common(merged[0], merged[1]):
        raise EditError(f"{name}: one shared parameter under two names, the same entry shut and changed")
    return merged


def common(a: Write, b: Write) -> int:
    """How many positions two writes have in common."""
    return len(a.indices) + len(b.indices) - len(union([a.indices, b.indices]))


def check_tensor(name: str, tensor: Tensor | None, shape: tuple[int, ...], model: str) -> None:
    """Refuse a tensor that entries cannot be written to exactly.

    Raises:
        EditError: If it is missing, of another shape, offloaded, or of a type without exact entries.
    """
    if tensor is None:
        raise EditError(f"{model}: has no floating-point tensor {name}, which this edit touches")
    if tuple(tensor.shape) != tuple(shape):
        raise EditError(f"{model}: {name}: expected shape {tuple(shape)}, found {tuple(tensor.shape)}")
    if tensor.dtype not in _EDITABLE:
        raise EditError(
            f"{model}: {name}: expected float32, float16 or bfloat16, found {tensor.dtype}; load it unquantised"
        )
    if tensor.is_meta:
        raise EditError(f"{model}: {name}: has no data here (offloaded or meta); load the model without offloading")
