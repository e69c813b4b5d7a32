"""The cross-attention key and value matrices of Stable Diffusion 1.5 and XL with random weights: no download."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Shapes:
    """Of one UNet.

    Attributes:
        columns: Width of the text states.
        blocks: Of each block its width, its attentions and the transformer blocks in each of them.
    """

    columns: int
    blocks: dict[str, tuple[int, int, int]]


SD15 = Shapes(  # 32 matrices, 19.2 million weights
    768,
    {
        **{f"down_blocks.{block}": (width, 2, 1) for block, width in enumerate((320, 640, 1280))},
        "mid_block": (1280, 1, 1),
        **{f"up_blocks.{block}": (width, 3, 1) for block, width in ((1, 1280), (2, 640), (3, 320))},
    },
)
SDXL = Shapes(  # 140 matrices, 341 million weights
    2048,
    {
        "down_blocks.1": (640, 2, 2),
        "down_blocks.2": (1280, 2, 10),
        "mid_block": (1280, 1, 10),
        "up_blocks.0": (1280, 3, 10),
        "up_blocks.1": (640, 3, 2),
    },
)


def key_value_matrices(dtype: torch.dtype = torch.float32, shapes: Shapes = SD15) -> nn.Module:
    """A module whose parameters have the names and shapes they have in the UNet."""
    unet = nn.Module()
    for at, (width, attentions, depth) in shapes.blocks.items():
        for path in (
            f"{at}.attentions.{a}.transformer_blocks.{b}.attn2" for a in range(attentions) for b in range(depth)
        ):
            for matrix in ("to_k", "to_v"):
                _add(unet, f"{path}.{matrix}".split("."), nn.Linear(shapes.columns, width, bias=False, dtype=dtype))
    return unet


def _add(module: nn.Module, path: list[str], leaf: nn.Module) -> None:
    for name in path[:-1]:
        if name not in module._modules:
            module.add_module(name, nn.Module())
        module = module.get_submodule(name)
    module.add_module(path[-1], leaf)
