"""How far the cross-attention of words lies from the masks of their things: the map losses of several-subject learning.

Papers: Break-A-Scene (arXiv:2305.16311), equation 4: the mean square of a word's map, over its own maximum, minus its mask;
TokenCompose (arXiv:2312.03626), equation 3: the squared share of a word's attention that lies outside its mask, which leaves open
how it lies inside, so that a box or half a picture will do for a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.nn.attention import Place, rewrite_attention
from photopic.data.layout import Layout, Region

FINEST = 16  # cells a side of the finest maps that are asked: as in the paper; larger grids are of texture
Said = Sequence[tuple[Sequence[int], Region]]  # of one sample's things their token positions, and where each is
Probabilities = list[tuple[Place, Float[Tensor, "batch heads cells tokens"]]]


@contextmanager
def watched_attention(unet: Any) -> Iterator[Probabilities]:
    """Cross-attention of the UNet calls in a block, with gradients; of grids of at most ``FINEST`` cells a side, the finest."""
    seen: Probabilities = []

    def keep(scores: Tensor, place: Place) -> Tensor:
        if max(place.height, place.width) <= FINEST:
            if seen and place.height * place.width > seen[0][0].height * seen[0][0].width:
                seen.clear()
            if not seen or scores.shape[2] == seen[0][1].shape[2]:
                seen.append((place, scores.softmax(-1)))
        return scores

    with rewrite_attention(unet, keep):
        yield seen


def attention_mask_loss(
    seen: Probabilities, layout: Layout, rows: Sequence[Mapping[int, Sequence[int]]]
) -> Float[Tensor, ""]:
    """Mean over rows of the sum over their things of ``mean((map / max(map) - mask)^2)``.

    Args:
        seen: What ``watched_attention`` saw of one call.
        layout: The masks.
        rows: For each of the first rows of the batch the token positions of each thing it names, by region.

    Example:
        >>> from photopic.data.layout import Region
        >>> half = Layout((Region("a", (0.0, 0.0, 0.5, 1.0)),))
        >>> shares = torch.tensor([[0.4, 0.0, 0.4, 0.0]]).reshape(1, 1, 4, 1)  # as its mask is: left, right, left, right
        >>> attention_mask_loss([(Place("attn2", 2, 2, 1), shares)], half, [{0: [0]}]).item()
        0.0
    """
    place = seen[0][0]
    # over heads, then layers: (layers, batch, cells, tokens) -> (batch, cells, tokens)
    maps = torch.stack([shares.mean(1) for _, shares in seen]).mean(0)
    masks = torch.from_numpy(layout.cells(place.height, place.width)).flatten(1).to(maps)  # (regions, cells)
    losses = []
    for shares, said in zip(maps, rows, strict=False):
        for region, positions in said.items():
            own = shares[:, list(positions)].mean(-1)  # (cells,)
            losses.append((own / own.max() - masks[region]).square().mean())
    return torch.stack(losses).sum() / len(rows)


def attention_outside(seen: Probabilities, rows: Sequence[Said]) -> Float[Tensor, " rows"]:
    """For each row the mean over its things of ``(share of the attention outside its region)^2``; 0 where no thing is placed.

    Args:
        seen: What ``watched_attention`` saw of one call.
        rows: What each of the first rows of the batch says of its things.

    Example:
        >>> shares = torch.tensor([[0.3, 0.1, 0.3, 0.1]]).reshape(1, 1, 4, 1)  # a quarter of it lies on the right
        >>> left = Region("a", (0.0, 0.0, 0.5, 1.0))
        >>> attention_outside([(Place("attn2", 2, 2, 1), shares)], [[([0], left)], []])
        tensor([0.0625, 0.0000])
    """
    place = seen[0][0]
    # (layers, batch, cells, tokens), the mean over heads: each layer has a share of its own, as in the paper
    maps = torch.stack([shares.mean(1) for _, shares in seen])
    found = []
    for row, said in enumerate(rows):
        losses = []
        for positions, region in said:
            own = maps[:, row][..., list(positions)].sum(-1)  # (layers, cells)
            inside = torch.from_numpy(region.coverage(place.height, place.width)).flatten().to(own)  # (cells,), 0 to 1
            losses.append((1 - (own * inside).sum(-1) / own.sum(-1)).square().mean())
        found.append(torch.stack(losses).mean() if losses else maps.new_zeros(()))
    return torch.stack(found)
