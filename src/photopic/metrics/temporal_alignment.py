"""How far two videos are from each other: by ordered temporal alignment of their frames, or by their mean frames.

OTAM is a shortest path through the matrix of frame distances that keeps the order of time and may begin and end anywhere in the
columns (Cao et al., Few-Shot Video Classification via Temporal Alignment, arXiv 1906.11415); its minimum is softened, so that
gradients flow. With lambda = 0 it is the hard minimum, a dynamic program. Softened distances can be negative and depend on which
video gives the rows, so both directions are added. The mean of frames knows no order and is the control.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.errors import DataError

COSINE_EPSILON = 0.01  # beside the product of both lengths, as CLIP-FSAR's code has it


def frame_distances(
    a: Float[Tensor, "*#batch t dim"], b: Float[Tensor, "*#batch s dim"]
) -> Float[Tensor, "*#batch t s"]:
    """1 - cosine of every frame of one video with every frame of another; x.y / (|x| |y| + 0.01).

    Args:
        a: Features of frames.
        b: Features of frames; leading axes broadcast.

    Example:
        >>> frame_distances(torch.eye(2) * 100, torch.eye(2) * 100).round(decimals=3)
        tensor([[0., 1.],
                [1., 0.]])
    """
    lengths = a.norm(dim=-1)[..., :, None] * b.norm(dim=-1)[..., None, :]  # (*batch, t, s)
    return 1 - a @ b.mT / (lengths + COSINE_EPSILON)


def alignment_cost(distances: Float[Tensor, "*batch t s"], softness: float = 0.5) -> Float[Tensor, "*batch"]:
    """Cost of the cheapest ordered path through a matrix of frame distances, in one direction.

    Args:
        distances: Rows are frames of one video, columns of the other.
        softness: lambda of softmin(s) = -lambda log sum exp(-s / lambda); 0 takes the hard minimum.

    Raises:
        DataError: If ``softness`` is negative or there is no frame.

    Example:
        >>> alignment_cost(1 - torch.eye(8), 0.0).item(), round(alignment_cost(1 - torch.eye(8), 0.5).item(), 2)
        (0.0, -0.37)
    """
    if softness < 0 or 0 in distances.shape[-2:]:
        raise DataError(
            f"alignment: expected frames and lambda >= 0, found {tuple(distances.shape[-2:])} and {softness}"
        )
    padded = F.pad(distances, (1, 1))  # a column of zeros on each side: a path may begin and end anywhere
    rows, columns = padded.shape[-2:]
    cells = padded.unbind(-2)
    above = list(cells[0].cumsum(-1).unbind(-1))  # the first row is a running sum
    for row in range(1, rows):
        here = [torch.zeros_like(above[0])]  # the first column is 0
        for column in range(1, columns):
            before = [above[column - 1], here[column - 1]]
            if column in (1, columns - 1):  # beside the zeros, time may also pass without a step
                before.append(above[column])
            here.append(cells[row][..., column] + _softmin(before, softness))
        above = here
    return above[-1]


def alignment_distance(distances: Float[Tensor, "*batch t s"], softness: float = 0.5) -> Float[Tensor, "*batch"]:
    """``alignment_cost`` in both directions, added; arguments and errors as there.

    Example:
        >>> alignment_distance(torch.ones(8, 8), 0.0).item()
        16.0
    """
    return alignment_cost(distances, softness) + alignment_cost(distances.mT, softness)


def mean_distance(a: Float[Tensor, "*#batch t dim"], b: Float[Tensor, "*#batch s dim"]) -> Float[Tensor, "*#batch"]:
    """1 - cosine of the mean frames of two videos, blind to the order of frames; leading axes broadcast.

    Example:
        >>> round(mean_distance(torch.eye(2) * 100, torch.eye(2).flip(0) * 100).item(), 4)
        0.0
    """
    return frame_distances(a.mean(-2, keepdim=True), b.mean(-2, keepdim=True))[..., 0, 0]


def _softmin(values: list[Tensor], softness: float) -> Tensor:
    stacked = torch.stack(values)
    return stacked.amin(0) if softness == 0 else -softness * (stacked / -softness).logsumexp(0)
