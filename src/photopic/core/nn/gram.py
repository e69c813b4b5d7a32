"""Gram matrices of a picture's Jacobian within regions, by forward mode in blocks of columns; the Jacobian is never stored.

Of a function from d numbers to a picture, ``J^T diag(mask) J`` of each mask. A block of columns is held while the others stream
past in chunks, so that at no time more than ``block + chunk`` of the d columns exist; each pair of columns meets once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import jvp, vmap

from photopic.core.errors import DataError
from photopic.core.nn.jacobians import load_forward_mode

Picture = Callable[[Float[Tensor, " d"]], Float[Tensor, "channels height width"]]


def gram_matrices(
    picture: Picture,
    at: Float[Tensor, " d"],
    masks: Bool[Tensor, "regions height width"],
    *,
    mean_channels: bool = False,
    block: int | None = None,
    chunk: int = 8,
) -> Float[Tensor, "regions d d"]:
    """Sums over the pixels of each region, and over channels, of products of derivatives; float64, exactly symmetric.

    Args:
        picture: One picture of one vector; its operations need derivatives in forward mode, and nothing random.
        at: Where the derivative is taken.
        masks: The regions; they may overlap.
        mean_channels: Whether the derivative is that of the mean over channels, as published, and not of each channel.
        block: Columns held; None: a quarter of them. More is faster, d is a single pass, and takes more memory.
        chunk: Columns pushed through at a time.

    Raises:
        DataError: If masks are not of the picture's size.

    Example:
        >>> a = torch.arange(12.0).reshape(4, 3)
        >>> top = torch.tensor([[[True, True], [False, False]]])
        >>> found = gram_matrices(lambda w: (a @ w).reshape(1, 2, 2), torch.ones(3), top)
        >>> torch.equal(found[0], (a[:2].T @ a[:2]).double())
        True
    """
    d, held = len(at), block or max(1, len(at) // 4)
    found = torch.zeros(len(masks), d, d, dtype=torch.float64)
    load_forward_mode()

    def pushed(start: int, stop: int) -> Float[Tensor, "columns channels pixels"]:
        directions = torch.eye(d, dtype=at.dtype, device=at.device)[start:stop]
        with torch.no_grad():  # forward mode needs no graph
            columns = vmap(lambda each: jvp(picture, (at,), (each,))[1], randomness="error")(directions)
        if columns.shape[-2:] != masks.shape[-2:]:
            shapes = "x".join(map(str, masks.shape[-2:])), "x".join(map(str, columns.shape[-2:]))
            raise DataError(f"region: expected {shapes[1]} as the picture, found {shapes[0]}")
        columns = columns.flatten(2)  # (columns, channels, height, width) -> (columns, channels, pixels)
        return columns.mean(1, keepdim=True) if mean_channels else columns

    inside = masks.flatten(1).to(at.device)  # (regions, pixels)
    for first in range(0, d, held):
        kept = torch.cat([
            pushed(start, min(start + chunk, first + held, d)) for start in range(first, min(first + held, d), chunk)
        ])  # fmt: skip
        last = first + len(kept)
        _add(found, kept, kept, first, first, inside)
        for start in range(last, d, chunk):
            _add(found, kept, pushed(start, min(start + chunk, d)), first, start, inside)
    return found.triu() + found.triu(1).mT


def _add(found: Tensor, one: Tensor, other: Tensor, row: int, column: int, inside: Tensor) -> None:
    """Put the products of two sets of columns where they belong."""
    for index, mask in enumerate(inside):  # (n, channels, inside) flat, in float64 for sums of many
        left, right = one[:, :, mask].flatten(1).double(), other[:, :, mask].flatten(1).double()
        found[index, row : row + len(one), column : column + len(other)] = (left @ right.mT).cpu()
