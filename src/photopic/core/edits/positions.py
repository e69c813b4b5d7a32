"""Reading and writing single entries of parameters, and which parameters are one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.errors import EditError

FLOATS = (torch.float32, torch.float16, torch.bfloat16)  # of the tensors that a part keeps
EDITABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
Positions = Tensor | None  # sorted flat int64 positions; None is every entry


@dataclass(frozen=True)
class Write:
    """What becomes of some entries of one parameter.

    Attributes:
        indices: Which; None is every entry.
        values: One an entry, or a function that makes them when they are needed; None is zero.
        adds: Whether the values are added to the entries rather than put in their place.
        weight: 0 leaves the entries, 1 is the whole change.
        blocks: Of a change of every entry that is made when it is needed: the same a few rows at a time, by their first.
        name: The parameter as the edit calls it, by which it is weighted; a shared one has several names.
    """

    indices: Positions
    values: Tensor | Callable[[], Tensor] | None
    adds: bool = False
    weight: float = 1.0
    name: str = ""
    blocks: Callable[[], Iterable[tuple[int, Tensor]]] | None = None


def is_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite; one pass without a mask, which halves take ten times as long for.

    Example:
        >>> is_finite(torch.tensor([1.0, float("nan")]))
        False
    """
    if not tensor.numel():
        return True
    low, high = torch.aminmax(tensor)  # NaN anywhere becomes both
    return bool(torch.isfinite(low) & torch.isfinite(high))


def union(sets: Sequence[Positions]) -> Positions:
    """The sorted union of position sets; with every entry in one of them it is every entry.

    Example:
        >>> union([torch.tensor([1, 4]), torch.tensor([0, 4])])
        tensor([0, 1, 4])
    """
    if any(each is None for each in sets):
        return None
    return sets[0] if len(sets) == 1 else torch.cat(list(sets)).unique(sorted=True)  # type: ignore[arg-type]


def complement(positions: Positions, size: int) -> Tensor:
    """The positions of a parameter of ``size`` entries that are not in a set.

    Example:
        >>> complement(torch.tensor([0, 2]), 4)
        tensor([1, 3])
    """
    free = torch.full((size,), positions is not None)
    if positions is not None:
        free[positions] = False
    return free.nonzero().squeeze(1)


def overlap(a: Positions, b: Positions, size: int) -> int:
    """How many positions two sets have in common, in a parameter of ``size`` entries."""
    if a is None or b is None:
        return min(size if each is None else len(each) for each in (a, b))
    joined = union([a, b])
    assert joined is not None
    return len(a) + len(b) - len(joined)  # |A and B| = |A| + |B| - |A or B|


def read_entries(tensor: Tensor, positions: Positions) -> Float[Tensor, " count"]:
    """A copy of the entries at flat positions; `write_entries` is the inverse."""
    if positions is None:
        return tensor.detach().reshape(-1).clone()
    positions = positions.to(tensor.device)
    if tensor.is_contiguous():
        return tensor.detach().view(-1).index_select(0, positions)
    return tensor.detach().take(positions)


def base_at(tensors: Mapping[str, Tensor] | None, name: str, positions: Positions) -> Float[Tensor, " count"]:
    """Entries of the base in float32.

    Raises:
        EditError: If the caller gave no base.
    """
    if tensors is None:
        raise EditError(f"{name}: an edit sets its entries; pass the base model (base=modules) to know by how much")
    return read_entries(tensors[name], positions).float().cpu()


def write_entries(tensor: Tensor, positions: Positions, entries: Float[Tensor, " count"]) -> Float[Tensor, " count"]:
    """Overwrite the entries at flat positions, rounding to the tensor's precision; returns them rounded.

    Whoever reads them first gains: reads from memory overlap and writes do not.
    """
    with _writable(tensor):
        entries = entries.to(tensor.device, tensor.dtype)
        if positions is None:
            tensor.detach().copy_(entries.view(tensor.shape))
        elif tensor.is_contiguous():
            tensor.detach().view(-1).scatter_(0, positions.to(tensor.device), entries)
        else:
            tensor.detach().put_(positions.to(tensor.device), entries)
    return entries


def write_blocks(tensor: Tensor, blocks: Iterable[tuple[int, Float[Tensor, " count"]]]) -> None:
    """Overwrite every entry of a tensor that lies in one piece, some at a time, each with the number of its first."""
    with _writable(tensor):
        flat = tensor.detach().view(-1)
        for first, block in blocks:
            flat[first : first + len(block)].copy_(block)


def apply(tensor: Tensor, write: Write) -> Tensor | None:
    """Write at its weight: entry + weight x (value - entry), exactly the value at weight 1; or entry + weight x value.

    Returns:
        What stands at the positions of the write afterwards; None if it was added to every entry in place.
    """
    if write.adds and write.indices is None and tensor.dtype != torch.float64 and tensor.is_contiguous():
        _add_in_place(tensor.detach(), write)
        return None
    values = write.values() if callable(write.values) else write.values
    if values is None and write.weight == 1 and not write.adds:
        count = tensor.numel() if write.indices is None else len(write.indices)
        return write_entries(tensor, write.indices, torch.zeros(count, dtype=tensor.dtype, device=tensor.device))
    if write.weight == 1 and not write.adds:
        assert values is not None
        return write_entries(tensor, write.indices, values)
    entries = read_entries(tensor, write.indices)
    entries = entries.to(torch.promote_types(entries.dtype, torch.float32))
    if write.adds:
        assert values is not None
        changed = entries + write.weight * values.to(entries)
    elif values is None:
        changed = entries * (1 - write.weight)
    else:
        changed = entries + write.weight * (values.to(entries) - entries)
    return write_entries(tensor, write.indices, changed)


def _add_in_place(tensor: Tensor, write: Write) -> None:
    """Add to every entry with the same rounding as ``apply``: both numbers are taken to float32, added, and rounded once."""
    values = write.values() if write.blocks is None and callable(write.values) else write.values
    blocks = [(0, values)] if write.blocks is None else write.blocks()
    with _writable(tensor):
        whole = tensor.view(tensor.shape[0] if tensor.ndim else 1, -1)  # (rows, inner)
        for first, block in blocks:
            added = block.to(tensor.device, torch.float32).view(-1, whole.shape[1])  # type: ignore[union-attr]
            whole[first : first + len(added)].add_(added if write.weight == 1 else write.weight * added)


def _writable(tensor: Tensor) -> AbstractContextManager[Any]:
    """A tensor made in inference mode is written to in that mode only; no other needs it, and changing modes takes time."""
    return torch.inference_mode() if tensor.is_inference() else nullcontext()


def first_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """For every tensor the first name of the memory it shares."""
    first: dict[tuple, str] = {}
    return {
        name: first.setdefault((tensor.device, tensor.data_ptr() or id(tensor), tensor.shape, tensor.stride()), name)
        for name, tensor in tensors.items()
    }


def deduplicated(name: str, writes: list[Write]) -> list[Write]:
    """The same writes with every position once; a shared parameter may have been named twice.

    Raises:
        EditError: If two names ask for different values of one entry, or one of them writes every entry.
    """
    if len(writes) == 1:
        return writes
    if any(write.adds or write.indices is None or write.weight != writes[0].weight for write in writes):
        raise EditError(f"{name}: one shared parameter under two names; change it under one of them")
    shut = [write.indices for write in writes if write.values is None]
    merged = [replace(writes[0], indices=union(shut), values=None)] if shut else []
    valued = [(write.indices, write.values) for write in writes if isinstance(write.values, Tensor)]
    if valued:
        indices = torch.cat([indices for indices, _ in valued if indices is not None])
        values = torch.cat([values.float() for _, values in valued])
        distinct, group = indices.unique(sorted=True, return_inverse=True)  # group: the place of each in distinct
        kept = torch.zeros(len(distinct)).index_copy_(0, group, values)  # any of those that ask for one entry
        if not torch.equal(kept[group], values):  # all of them, as each must find its own value
            raise EditError(f"{name}: one shared parameter under two names, with different values for the same entry")
        merged.append(replace(writes[0], indices=distinct, values=kept))
    if len(merged) == 2 and overlap(merged[0].indices, merged[1].indices, 0):
        raise EditError(f"{name}: one shared parameter under two names, the same entry shut and changed")
    return merged


def check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...], model: str) -> None:
    """Refuse a tensor of another shape than an edit was made for.

    Raises:
        EditError: Names both shapes.
    """
    if found != tuple(expected):
        raise EditError(f"{model}: {name}: expected shape {tuple(expected)}, found {found}")


def check_tensor(
    name: str, tensor: Tensor | None, shape: tuple[int, ...], model: str, modules: Mapping[str, nn.Module]
) -> None:
    """Refuse a tensor that entries cannot be written to exactly.

    Raises:
        EditError: If it is missing, of another shape, offloaded, or of a type without exact entries.
    """
    if tensor is None:
        component, _, path = name.partition(".")
        there = modules[component].state_dict().get(path) if component in modules else None
        if isinstance(there, Tensor):
            raise EditError(
                f"{model}: {name}: expected plain weights, found quantised ones ({there.dtype}); load it unquantised"
            )
        raise EditError(f"{model}: has no floating-point tensor {name}, which this edit touches")
    check_shape(name, tuple(tensor.shape), shape, model)
    if tensor.dtype not in EDITABLE:
        raise EditError(
            f"{model}: {name}: expected float32, float16 or bfloat16, found {tensor.dtype}; load it unquantised"
        )
    if type(tensor.data) is not Tensor:
        found = type(tensor.data).__name__
        raise EditError(f"{model}: {name}: expected plain weights, found quantised ones ({found}); load it unquantised")
    if tensor.is_meta:
        raise EditError(f"{model}: {name}: has no data here (meta, or offloaded to a disk); load the model into memory")
