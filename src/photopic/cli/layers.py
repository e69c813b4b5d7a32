"""Names of a UNet's weights in words, and what an edit changes in each block."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from photopic.core.describe import Description

ORDER = {"down": 0, "mid": 1, "up": 2}  # as the network runs them


def place(name: str) -> tuple[str, str, str]:
    """Block, layer and projection of a weight; component and plain name where it is no attention projection.

    Example:
        >>> place("unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight")
        ('up 1', 'cross 0/0', 'k')
    """
    found = re.match(r"unet\.(down|mid|up)_blocks?\.?(\d*)\.(.*)\.(attn[12])\.to_(\w+)", name)
    if not found:
        return name.split(".")[0], name, ""
    side, number, inside, attention, projection = found.groups()
    numbers = re.findall(r"attentions\.(\d+)\.transformer_blocks\.(\d+)", inside)
    layer = "/".join(numbers[0]) if numbers else inside
    return f"{side} {number}".strip(), f"{'cross' if attention == 'attn2' else 'self'} {layer}", projection


def by_block(description: Description) -> dict[str, tuple[int, int]]:
    """(entries changed, entries of the touched tensors) of every block, in the order the network runs them."""
    sums: dict[str, tuple[int, int]] = {}
    for row in description.tensors:
        if row.kind != "token":
            block = place(row.name)[0]
            changed, entries = sums.get(block, (0, 0))
            sums[block] = (changed + row.count, entries + math.prod(row.shape))
    return dict(sorted(sums.items(), key=lambda item: (ORDER.get(item[0].split()[0], 3), item[0])))
