"""The attention layers and blocks of a UNet by name, and the grid of latent cells each of them sees in a running call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import nn

from photopic.core.errors import ModelError

Kind = Literal["cross", "self"]
KINDS: tuple[Kind, ...] = ("cross", "self")


def attention_layers(unet: nn.Module, kinds: tuple[Kind, ...] = ("cross",), layers: str = "*") -> dict[str, Attention]:
    """Attention layers by name, in the order of the network.

    Args:
        unet: A diffusers UNet, compiled or not.
        kinds: ``cross``: those that read the prompt; ``self``: those in which cells read cells.
        layers: Name pattern of those wanted, such as ``"mid_block.*"`` or ``"*attn2"``.

    Raises:
        ModelError: If there is no such layer, or its projections are fused.
    """
    named = "- or ".join(kinds)
    found = {
        name: part
        for name, part in plain(unet).named_modules()
        if isinstance(part, Attention) and kind_of(part) in kinds
    }
    if not found:
        raise ModelError(f"{type(unet).__name__} has no {named}-attention layer to read; give the UNet of a pipeline")
    fused = next((name for name, part in found.items() if "Fused" in type(part.processor).__name__), None)
    if fused:
        raise ModelError(f"{fused}: its projections are fused; call pipeline.unfuse_qkv_projections() first")
    chosen = {name: part for name, part in found.items() if fnmatchcase(name, layers)}
    if not chosen:
        raise ModelError(f"{layers!r} matches no {named}-attention layer; names look like {next(iter(found))!r}")
    return chosen


def kind_of(layer: Attention) -> Kind:
    """Whether a layer reads the prompt or the picture."""
    return "cross" if layer.is_cross_attention else "self"


def cross_attention(unet: nn.Module, layers: str = "*") -> dict[str, Attention]:
    """Cross-attention layers by name; takes the arguments of ``attention_layers``."""
    return attention_layers(unet, ("cross",), layers)


def transformer_blocks(unet: nn.Module) -> dict[str, BasicTransformerBlock]:
    """The blocks of attention layers and feed-forward by name, such as ``mid_block.attentions.0.transformer_blocks.0``.

    Raises:
        ModelError: If there is none.
    """
    found = {name: part for name, part in plain(unet).named_modules() if isinstance(part, BasicTransformerBlock)}
    if not found:
        raise ModelError(f"{type(unet).__name__} has no transformer block; give the UNet of a pipeline")
    return found


def plain(module: nn.Module) -> nn.Module:
    """The module itself under the wrapper that ``torch.compile`` puts around it."""
    return getattr(module, "_orig_mod", module)


@contextmanager
def uncompiled(unet: nn.Module) -> Iterator[None]:
    """Run compiled modules as plain ones inside, because compiled code passes by hooks and processors that come later."""
    wrapped = [module for module in unet.modules() if hasattr(module, "_orig_mod") or module._compiled_call_impl]
    with ExitStack() as stack:
        if wrapped:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


class Grid:
    """Height and width of the latents of the running UNet call; a forward pre-hook."""

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember the size of the ``sample`` of a call."""
        self.size = (args[0] if args else kwargs["sample"]).shape[-2:]

    def of(self, name: str, cells: int) -> tuple[int, int]:
        """Height and width of a layer with that many cells: the latents halved, rounding up, until they fit."""
        if self.size is None:
            raise ModelError(f"{name}: was called by itself, so its grid is unknown; call the whole UNet")
        height, width = self.size
        while height * width > cells:
            height, width = -(-height // 2), -(-width // 2)
        return height, width

    @contextmanager
    def watching(self, unet: nn.Module) -> Iterator[None]:
        """Follow the calls of a UNet inside."""
        with ExitStack() as stack:
            stack.callback(plain(unet).register_forward_pre_hook(self, with_kwargs=True).remove)
            yield
