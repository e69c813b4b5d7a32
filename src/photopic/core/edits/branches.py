"""Edits of weights that hold no plain numbers: the change is a branch beside the frozen matrix, and goes with its hook.

``y = W x + D x`` with ``D`` what the edits make of the matrix less what it stands for: its few entries, or factors of low rank
where only such are added. Nothing is written to the matrix, so taking the edits away leaves no trace.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from photopic.core.edits.dense import LowRankDelta
from photopic.core.edits.positions import Write, apply, read_entries, union
from photopic.core.edits.stack_item import LoadedEdit
from photopic.core.frozen import frozen_weights, plain_weight


@dataclass(frozen=True, eq=False)
class SparseBranch:
    """A few entries, as a compressed matrix of (out, in)."""

    matrix: Tensor

    def __call__(self, given: Tensor) -> Tensor:
        """D x for x of (n, in)."""
        return (self.matrix.to(given.device) @ given.T).T  # (out, in) (in, n) -> (out, n) -> (n, out)


@dataclass(frozen=True, eq=False)
class LowRankBranch:
    """Factors: up of (out, rank) times down of (rank, in)."""

    up: Tensor
    down: Tensor

    def __call__(self, given: Tensor) -> Tensor:
        """D x for x of (n, in)."""
        return (given @ self.down.to(given.device).T) @ self.up.to(given.device).T


@dataclass(frozen=True, eq=False)
class _Beside:
    """A forward hook that adds a branch to what a layer puts out, computed in float32 and rounded to the layer's format once."""

    branch: SparseBranch | LowRankBranch

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        given = args[0]
        rows = given.reshape(-1, given.shape[-1])  # (..., in) -> (n, in)
        added = self.branch(rows.float())
        return output + added.reshape(*output.shape).to(output.dtype)


class Branches:
    """The branches of one model."""

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_hooks": []}  # the hooks of a copied model are its own

    def set(
        self, pending: Mapping[str, Sequence[Write]], loaded: Sequence[LoadedEdit], modules: Mapping[str, nn.Module]
    ) -> None:
        """Put these in the place of those that are there.

        Args:
            pending: What the edits in force write, first to last, by name.
            loaded: The edits.
            modules: Component name to module.
        """
        self.clear()
        if not pending:
            return
        layers = frozen_weights(modules, pending)
        for name, writes in pending.items():
            layer: Any = layers[name]
            branch = _low_rank(name, loaded, layer.weight.device) or _sparse(plain_weight(layer), writes)
            self._hooks.append(layer.register_forward_hook(_Beside(branch)))

    def clear(self) -> None:
        """Take all away."""
        while self._hooks:
            self._hooks.pop().remove()


def _low_rank(name: str, loaded: Sequence[LoadedEdit], device: torch.device) -> LowRankBranch | None:
    """The factors of all edits side by side, if nothing but factors changes the matrix; where the matrix is."""
    ups, downs = [], []
    for each in loaded:
        for part in each.edit.weight_parts if each.is_on else ():
            if name not in part.names():
                continue
            if not isinstance(part, LowRankDelta):
                return None
            ups.append(each.weight_at(name) * part.scales[name] * part.up[name].float())  # (out, rank)
            downs.append(part.down[name].float())  # (rank, in)
    if not ups:
        return None
    place = (
        torch.device("cpu") if device.type == "meta" else device
    )  # offloaded: it comes with each call, and so do they
    return LowRankBranch(torch.cat(ups, dim=1).to(place), torch.cat(downs).to(place))


def _sparse(base: Tensor, writes: Sequence[Write]) -> SparseBranch:
    """What is left of the written matrix when its base is taken away."""
    changed = base.clone()
    for write in writes:
        apply(changed, write)
    positions = union([write.indices for write in writes])
    if positions is None:
        return SparseBranch(changed - base)  # every entry: a plain matrix
    delta = read_entries(changed, positions) - read_entries(base, positions)
    columns = base.shape[1]
    index = torch.stack([positions // columns, positions % columns])  # flat positions -> (2, entries), rows and columns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls compressed matrices a beta, once a process
        matrix = torch.sparse_coo_tensor(index, delta, base.shape, check_invariants=True)
        return SparseBranch(matrix.coalesce().to_sparse_csr())
