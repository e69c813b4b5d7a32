"""Adapters that rotate the inputs or outputs of a layer: OFT and BOFT of peft, Diag-OFT and BOFT of LyCORIS.

Papers: *Controlling Text-to-Image Diffusion by Orthogonal Finetuning* (arXiv:2306.07280), *Parameter-Efficient Orthogonal
Finetuning via Butterfly Factorization* (arXiv:2311.06243). What is added to a weight depends on its numbers, as with DoRA: it
holds for the very base. peft rotates inputs, LyCORIS outputs; LyCORIS' Diag-OFT multiplies with the transposed rotation, its BOFT
with the rotation itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import EditError
from photopic.edit.interop._lora_products import plain_base

PEFT_OFT, PEFT_BOFT, LYCORIS = ("oft_R",), ("boft_R", "boft_s"), ("oft_blocks", "rescale")
ROTATIONS = (*PEFT_OFT, *PEFT_BOFT, *LYCORIS)
OF_OUTPUTS = ("boft_s", *LYCORIS)  # what cannot be shared out over the weights of an original matrix


def rotation(
    file: str, weight: Tensor, parts: Mapping[str, Tensor], alpha: float, settings: Mapping[str, Any], name: str
) -> Float[Tensor, "..."]:
    """What is added to a weight so that it is the rotated one.

    Args:
        file: For messages.
        weight: The base's.
        parts: By role.
        alpha: Of a file of LyCORIS: the largest norm of what the rotation is made from, as a share of the outputs; 0: any.
        settings: Of peft.
        name: Of the weight.

    Raises:
        EditError: If the parts do not fit the weight, or are of a kind that is not read.

    Example:
        >>> parts = {"oft_blocks": torch.zeros(2, 2, 2)}
        >>> rotation("x", torch.eye(4), parts, 0.0, {}, "unet.x.weight").abs().max()
        tensor(0.)
    """
    plain_base(file, weight, name, "OFT")
    base = weight.float()
    if "oft_blocks" in parts:
        return _of_outputs(file, base, parts["oft_blocks"].float(), alpha, name, parts.get("rescale")) - base
    if base.ndim != 2:
        raise EditError(
            f"{file}: {name}: expected an OFT of a linear layer, found one of a convolution, which is not read"
        )
    if "oft_R" in parts:
        turns = _peft(file, parts["oft_R"].float(), base.shape[1], settings, name)
        return _of_inputs(base, turns) - base
    if "boft_R" not in parts or "boft_s" not in parts:
        raise EditError(f"{file}: {name}: expected boft_R and boft_s of a BOFT, found {', '.join(sorted(parts))}")
    blocks, scales = parts["boft_R"].float(), parts["boft_s"].float().reshape(-1, 1)
    if blocks.ndim != 4 or len(blocks) != 1:
        raise EditError(f"{file}: {name}: expected a BOFT with one factor, found {len(blocks)}; merge it with peft")
    if blocks.shape[1] * blocks.shape[2] != base.shape[1] or len(scales) != len(base):
        raise _misfit(file, name, base, blocks)
    return scales * _of_inputs(base, _cayley((blocks[0].mT - blocks[0]) / 2)) - base


def _of_inputs(base: Float[Tensor, "out in"], turns: Float[Tensor, "blocks b b"]) -> Float[Tensor, "out in"]:
    """W R^T: inputs are turned before the layer sees them."""
    return torch.einsum("okc,krc->okr", base.unflatten(1, turns.shape[:2]), turns).flatten(1)


def _cayley(skew: Float[Tensor, "*blocks b b"]) -> Float[Tensor, "*blocks b b"]:
    """(I + Q)(I - Q)^-1, a rotation for a skew-symmetric Q."""
    one = torch.eye(skew.shape[-1])
    return torch.linalg.solve(one - skew, one + skew, left=False)


def _peft(
    file: str, rows: Float[Tensor, "blocks n"], inputs: int, settings: Mapping[str, Any], name: str
) -> Float[Tensor, "all b b"]:
    """The rotations of peft's OFT from the upper triangles of their skew-symmetric matrices."""
    if rows.ndim != 2:
        raise EditError(
            f"{file}: {name}: expected the triangles of peft 0.16 and later, found {tuple(rows.shape)}; save it anew"
        )
    side = round((1 + (1 + 8 * rows.shape[1]) ** 0.5) / 2)
    repeated = inputs // side if settings.get("block_share") else 1
    if side * (side - 1) // 2 != rows.shape[1] or len(rows) * repeated * side != inputs:
        raise EditError(f"{file}: {name}: expected blocks that make up {inputs} inputs, found {len(rows)} of {side}")
    upper, lower = torch.triu_indices(side, side, 1)
    skew = torch.zeros(len(rows), side, side)
    skew[:, upper, lower] = rows
    skew = skew - skew.mT
    if settings.get("coft"):  # as peft: the norm of each block is held
        limit = float(settings.get("eps", 6e-5)) / len(rows) ** 0.5
        skew = skew * (limit / skew.norm(dim=(1, 2), keepdim=True).clamp(min=1e-30)).clamp(max=1)
    if settings.get("use_cayley_neumann", True):
        return _neumann(skew, int(settings.get("num_cayley_neumann_terms", 5))).repeat(repeated, 1, 1)
    return _cayley(-skew).repeat(repeated, 1, 1)  # peft's exact rotation turns the other way round than its series


def _neumann(skew: Float[Tensor, "blocks b b"], terms: int) -> Float[Tensor, "blocks b b"]:
    """peft's series I + 2Q + 2Q^2 + ... + Q^last; with three terms it has as many as with four."""
    found, power, last = torch.eye(skew.shape[-1]).expand_as(skew), skew, max(terms - 1, 3)
    if terms < 3:
        return found + 2 * skew if terms == 2 else found
    for each in range(1, last + 1):
        found = found + (power if each == last else 2 * power)
        power = power @ skew
    return found


def _of_outputs(
    file: str, base: Float[Tensor, "out ..."], blocks: Tensor, alpha: float, name: str, rescale: Tensor | None
) -> Float[Tensor, "out ..."]:
    """LyCORIS: blocks of outputs are turned, in one stage (Diag-OFT) or in several that mix ever more of them (BOFT)."""
    if (
        blocks.ndim not in (3, 4)
        or blocks.shape[-3] * blocks.shape[-2] != len(base)
        or blocks.shape[-1] != blocks.shape[-2]
    ):
        raise _misfit(file, name, base, blocks)
    skew = blocks - blocks.mT
    limit, size = alpha * len(base), skew.norm() + 1e-8
    turns = _cayley(skew * limit / size if 0 < limit < size else skew)
    side, found = blocks.shape[-1], base
    if blocks.ndim == 3:
        found = torch.einsum("knm,kn...->km...", turns, base.unflatten(0, (-1, side))).flatten(0, 1)
    else:
        for stage, turn in enumerate(turns):
            apart = 2**stage * (side // 2)  # outputs that stand so far apart are brought together
            found = found.unflatten(0, (-1, 2, apart)).transpose(1, 2).flatten(0, 2).unflatten(0, (-1, side))
            found = torch.einsum("bij,bj...->bi...", turn, found).flatten(0, 1)
            found = found.unflatten(0, (-1, apart, 2)).transpose(1, 2).flatten(0, 2)
    if rescale is None:
        return found
    if rescale.numel() != len(base):
        raise _misfit(file, name, base, rescale)
    return rescale.float().reshape(-1, *[1] * (base.ndim - 1)) * found


def _misfit(file: str, name: str, base: Tensor, found: Tensor) -> EditError:
    return EditError(
        f"{file}: {name}: expected rotations of a weight of shape {tuple(base.shape)}, found {tuple(found.shape)}; "
        "it is for another model"
    )
