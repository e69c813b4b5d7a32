"""Names of a network's weights in words: block, layer and projection."""

from __future__ import annotations

import re

_SIDES = {"down": 0, "mid": 1, "up": 2}  # as a UNet runs them
_UNET = re.compile(r"unet\.(down|mid|up)_blocks?\.?(\d*)\.(.*)")
_ATTENTION = re.compile(r"(.*)\.(attn[12])\.to_(\w+)")


def place(name: str) -> tuple[str, str, str]:
    """Block, layer and projection of a weight; component and name in it where it is in no block of a UNet.

    Example:
        >>> place("unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight")
        ('up 1', 'cross 0/0', 'k')
        >>> place("unet.mid_block.resnets.0.conv1.weight")
        ('mid', 'resnets.0.conv1.weight', '')
        >>> place("text_encoder.final_layer_norm.weight")
        ('text_encoder', 'final_layer_norm.weight', '')
    """
    found = _UNET.match(name)
    if not found:
        component, _, rest = name.partition(".")
        return component, rest, ""
    side, number, rest = found.groups()
    block = f"{side} {number}".strip()
    attention = _ATTENTION.match(rest)
    if not attention:
        return block, rest, ""
    inside, kind, projection = attention.groups()
    numbers = re.findall(r"attentions\.(\d+)\.transformer_blocks\.(\d+)", inside)
    layer = "/".join(numbers[0]) if numbers else inside
    return block, f"{'cross' if kind == 'attn2' else 'self'} {layer}", projection


def running_order(block: str) -> tuple[int, int, str]:
    """A key that sorts blocks in the order the network runs them; what is no block of a UNet comes last.

    Example:
        >>> sorted(["up 0", "mid", "down 10", "down 2", "text_encoder"], key=running_order)
        ['down 2', 'down 10', 'mid', 'up 0', 'text_encoder']
    """
    side, _, number = block.partition(" ")
    return _SIDES.get(side, len(_SIDES)), int(number) if number.isdigit() else 0, block
