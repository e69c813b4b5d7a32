"""Parts of an edit that change whole parameters: a low-rank product added (LoRA), or a dense delta (a task vector)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits.positions import FLOATS, Write
from photopic.core.errors import EditError


@dataclass(frozen=True, eq=False)
class LowRankDelta:
    """Parameters that get scale x up @ down added (LoRA, Hu et al., arXiv 2106.09685).

    Attributes:
        up: Parameter name to its left factor, shape (out, rank).
        down: Parameter name to its right factor, shape (rank, in); of a convolution in x height x width, flattened.
        scales: Parameter name to what the product is multiplied with (alpha / rank in LoRA files); 1 where it is left out.

    Example:
        >>> part = LowRankDelta({"w": torch.ones(2, 1)}, {"w": torch.ones(1, 3)}, {"w": 0.5})
        >>> part.product("w").tolist()
        [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """

    kind: ClassVar[str] = "low_rank"
    up: Mapping[str, Tensor]
    down: Mapping[str, Tensor]
    scales: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.up.keys() != self.down.keys() or not self.scales.keys() <= self.up.keys():
            odd = min((self.up.keys() ^ self.down.keys()) | (self.scales.keys() - self.up.keys()))
            raise EditError(f"low-rank: {odd}: expected both factors, found only one, or a scale without factors")
        up, down = _checked(self.up, 2, "low-rank up"), _checked(self.down, 2, "low-rank down")
        for name in up:
            if up[name].shape[1] != down[name].shape[0] or up[name].dtype != down[name].dtype:
                found = f"{tuple(up[name].shape)} and {tuple(down[name].shape)}"
                raise EditError(f"low-rank: {name}: expected (out, rank) and (rank, in) of one dtype, found {found}")
        scales = {name: float(self.scales.get(name, 1.0)) for name in up}
        if not all(map(_is_finite, scales.values())):
            raise EditError(f"low-rank: expected finite scales, found {scales}")
        object.__setattr__(self, "up", up)
        object.__setattr__(self, "down", down)
        object.__setattr__(self, "scales", scales)

    @property
    def count(self) -> int:
        """How many entries of parameters it changes."""
        return sum(up.shape[0] * self.down[name].shape[1] for name, up in self.up.items())

    def names(self) -> tuple[str, ...]:
        """The parameters it writes to."""
        return tuple(self.up)

    def product(self, name: str, device: torch.device | None = None) -> Float[Tensor, "out inner"]:
        """scale x up @ down in float32."""
        up, down = self.up[name].to(device).float(), self.down[name].to(device).float()
        return self.scales[name] * (up @ down)  # (out, rank) @ (rank, in) -> (out, in)

    def change(self, name: str) -> Write:
        """What becomes of one parameter."""
        return Write(None, partial(_flat, self, name), adds=True)


@dataclass(frozen=True, eq=False)
class DenseDelta:
    """Whole parameters that get a tensor added: a dense delta, or a task vector (Ilharco et al., arXiv 2212.04089).

    Attributes:
        deltas: Parameter name to what is added, in its shape, finite.

    Example:
        >>> DenseDelta({"w": torch.ones(2, 3)}).count
        6
    """

    kind: ClassVar[str] = "delta"
    deltas: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", _checked(self.deltas, None, "delta"))

    @property
    def count(self) -> int:
        """How many entries of parameters it changes."""
        return sum(delta.numel() for delta in self.deltas.values())

    def names(self) -> tuple[str, ...]:
        """The parameters it writes to."""
        return tuple(self.deltas)

    def change(self, name: str) -> Write:
        """What becomes of one parameter."""
        return Write(None, self.deltas[name].reshape(-1), adds=True)


def check_fits(part: LowRankDelta | DenseDelta, name: str, shape: tuple[int, ...]) -> None:
    """Refuse factors or deltas that are not of a parameter's shape.

    Raises:
        EditError: Names the parameter, its shape and what was found.
    """
    if isinstance(part, DenseDelta):
        expected, found = tuple(shape), tuple(part.deltas[name].shape)
    else:
        expected = (shape[0] if shape else 1, torch.Size(shape[1:]).numel())
        found = (part.up[name].shape[0], part.down[name].shape[1])
    if expected != found:
        raise EditError(f"{name}: expected a change of shape {expected}, found {found}")


def _flat(part: LowRankDelta, name: str) -> Float[Tensor, " count"]:
    return part.product(name).reshape(-1)


def _checked(tensors: Mapping[str, Tensor], axes: int | None, what: str) -> dict[str, Tensor]:
    checked = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    for name, tensor in checked.items():
        if tensor.dtype not in FLOATS or not tensor.numel() or axes not in (None, tensor.ndim):
            found = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            raise EditError(f"{what}: {name}: expected float32, float16 or bfloat16 entries, found {found}")
        if not bool(torch.isfinite(tensor).all()):
            raise EditError(f"{what}: {name}: expected finite values, found NaN or infinity")
    return checked


def _is_finite(value: float) -> bool:
    return value - value == 0
