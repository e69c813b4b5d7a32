"""Adapters that are other products than that of two factors: LoHa and LoKr, and DoRA, which rescales what comes of any of them.

Papers: *FedPara* (arXiv:2108.06098) for the Hadamard product of two low-rank matrices, *Navigating Text-To-Image Customization*
(arXiv:2309.14859) for both in LyCORIS, *DoRA: Weight-Decomposed Low-Rank Adaptation* (arXiv:2402.09353).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import EditError

LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
LOKR = tuple(f"lokr_{each}" for each in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b"))
DORA = ("magnitude", "dora_scale")
ROWS = "rows"  # first and last row of a weight in the matrix that a file has in its place


def hadamard(file: str, parts: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """LoHa, (w1_a w1_b) * (w2_a w2_b), as one product of two factors, whose rank is that of both multiplied.

    Args:
        file: For messages.
        parts: The four factors by role: (out, rank) and (rank, in).
        name: Of the weight.

    Returns:
        (out, rank^2) and (rank^2, in).

    Raises:
        EditError: If one is missing or they do not fit each other.

    Example:
        >>> row = torch.tensor([[1.0, 2.0]])
        >>> up, down = hadamard("x", dict(zip(LOHA, (row.T, row, row.T, row))), "unet.x.weight")
        >>> up @ down
        tensor([[ 1.,  4.],
                [ 4., 16.]])
    """
    if lost := [role for role in LOHA if role not in parts]:
        raise EditError(f"{file}: {name}: expected the four factors of a LoHa, found no {lost[0]}")
    a1, b1, a2, b2 = (parts[role].flatten(1).float() for role in LOHA)
    if len(a1) != len(a2) or b1.shape[1] != b2.shape[1] or a1.shape[1] != len(b1) or a2.shape[1] != len(b2):
        found = ", ".join(str(tuple(parts[role].shape)) for role in LOHA)
        raise EditError(f"{file}: {name}: expected factors of a LoHa that fit each other, found {found}")
    up = (a1[:, :, None] * a2[:, None, :]).flatten(1)  # (out, rank, rank) -> (out, rank^2)
    return up, (b1[:, None] * b2[None]).flatten(0, 1)  # (rank, rank, in) -> (rank^2, in)


def kronecker(file: str, parts: Mapping[str, Tensor], name: str) -> Float[Tensor, "out inner"]:
    """LoKr: the Kronecker product of two matrices, each whole or as two factors.

    Args:
        file: For messages.
        parts: By role; the second may have the kernel of a convolution behind.
        name: Of the weight.

    Raises:
        EditError: If a part is missing.

    Example:
        >>> parts = {"lokr_w1": torch.eye(2), "lokr_w2_a": torch.ones(2, 1), "lokr_w2_b": torch.ones(1, 1)}
        >>> kronecker("x", parts, "unet.x.weight").shape
        torch.Size([4, 2])
    """
    first, second = (_whole(file, parts, f"lokr_{each}", name) for each in ("w1", "w2"))
    second = second if second.ndim > 2 else second[..., None]  # (c, d, kernel)
    found = torch.einsum("ab,cdk->acbdk", first, second.flatten(2))
    return found.reshape(len(first) * len(second), -1)  # (a c, b d kernel), as the weight is laid out


def rank_of(parts: Mapping[str, Tensor]) -> int | None:
    """The rank that an alpha is divided by; None for a LoKr of two whole matrices, which has none."""
    return next((len(parts[role]) for role in ("hada_w1_b", "lokr_w1_b", "lokr_w2_b") if role in parts), None)


def rescaled(
    file: str, weight: Tensor, delta: Float[Tensor, "..."], parts: Mapping[str, Tensor], name: str
) -> Float[Tensor, "..."]:
    """DoRA: what is added to a weight so that the norms of its outputs, or of its inputs, become those of the file.

    Args:
        file: For messages.
        weight: The base's.
        delta: What the factors come to, of the same shape.
        parts: The ``magnitude`` of peft, a norm an output; or the ``dora_scale`` of LyCORIS, (out, 1) or, of inputs, (1, in).
        name: Of the weight.

    Raises:
        EditError: If the norms are neither as many as outputs nor as inputs, or the base holds no plain numbers.

    Example:
        >>> rescaled("x", torch.eye(2), torch.eye(2), {"magnitude": torch.tensor([3.0, 4.0])}, "unet.x.weight")
        tensor([[2., 0.],
                [0., 3.]])
    """
    plain_base(file, weight, name, "DoRA")
    role = min(parts)
    norms = parts[role].float()
    axis = int(role == "dora_scale" and norms.shape[:1] == (1,) and len(weight) != 1)  # 0: outputs, 1: inputs
    if norms.numel() != weight.shape[axis]:
        raise EditError(
            f"{file}: {name}: expected {len(weight)} norms, one an output, or 1 x {weight.shape[1]}, found {tuple(norms.shape)}"
        )
    changed = weight.float() + delta
    others = [each for each in range(weight.ndim) if each != axis]
    found = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
    return changed * (norms.reshape(found.shape) / found) - weight.float()


def plain_base(file: str, weight: Tensor, name: str, kind: str) -> None:
    """Refuse a base whose numbers a change would be computed from, but which has none.

    Raises:
        EditError: If it is quantised.
    """
    if not weight.is_floating_point():
        raise EditError(
            f"{file}: {name}: {kind} needs a base of plain numbers, found {weight.dtype}; load it unquantised"
        )


def fitted(file: str, found: Tensor, shape: tuple[int, ...], name: str, rows: Tensor | None) -> Tensor:
    """A product in the shape of the weight, or of its rows where a file has several weights in one matrix.

    Raises:
        EditError: If it has another size.
    """
    found = found if rows is None else found[int(rows[0]) : int(rows[1])]
    if len(found) != shape[0] or found.numel() != prod(shape):
        raise EditError(
            f"{file}: {name}: expected a change of shape {shape}, found {tuple(found.shape)}; it is for another model"
        )
    return found.reshape(shape)


def _whole(file: str, parts: Mapping[str, Tensor], role: str, name: str) -> Tensor:
    if role in parts:
        return parts[role].float()
    if f"{role}_a" not in parts or f"{role}_b" not in parts:
        raise EditError(f"{file}: {name}: expected {role}, or its factors {role}_a and {role}_b, found neither")
    first, second = (parts[f"{role}_{each}"].float() for each in "ab")
    return (first @ second.flatten(1)).reshape(len(first), *second.shape[1:])
