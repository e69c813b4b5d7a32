"""The 32 cross-attention key and value matrices of Stable Diffusion 1.5 with random weights: 19.2 million, no download."""

from __future__ import annotations

import torch
from torch import nn

COLUMNS = 768  # width of the text states
OUTPUTS = {"down_blocks": (320, 640, 1280), "mid_block": (1280,), "up_blocks": (None, 1280, 640, 320)}
LAYERS = {"down_blocks": 2, "mid_block": 1, "up_blocks": 3}  # attentions in a block


def key_value_matrices(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A module whose parameters have the names and shapes they have in the UNet."""
    unet = nn.Module()
    for stage, outputs in OUTPUTS.items():
        for block, width in enumerate(outputs):
            for layer in range(LAYERS[stage] if width else 0):
                at = "mid_block" if stage == "mid_block" else f"{stage}.{block}"
                for matrix in ("to_k", "to_v"):
                    path = f"{at}.attentions.{layer}.transformer_blocks.0.attn2.{matrix}".split(".")
                    _add(unet, path, nn.Linear(COLUMNS, width or 0, bias=False, dtype=dtype))
    return unet


def _add(module: nn.Module, path: list[str], leaf: nn.Module) -> None:
    for name in path[:-1]:
        if name not in module._modules:
            module.add_module(name, nn.Module())
        module = module.get_submodule(name)
    module.add_module(path[-1], leaf)
