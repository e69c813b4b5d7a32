"""Rewrite what the transformer blocks of a UNet hand on; see `rewrite_blocks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.nn.attention.layers import Grid, transformer_blocks, uncompiled
from photopic.core.nn.attention.rewrite import Place, checked_shape

RewriteBlock: TypeAlias = Callable[[Float[Tensor, "batch cells dim"], Place], Float[Tensor, "batch cells dim"]]


@contextmanager
def rewrite_blocks(unet: nn.Module, rewrite: RewriteBlock) -> Iterator[None]:
    """Let a function rewrite what each transformer block hands on, in every UNet call inside the ``with`` block.

    Args:
        unet: A diffusers UNet.
        rewrite: Gets a block's output of the whole batch (both halves under guidance) and where it is from; returns the output to
            use, of the same shape.

    Yields:
        Nothing; the hooks are gone when the block ends, also when it raises.

    Raises:
        ModelError: If there is no transformer block, or, in a call, the rewrite returns another shape.

    Example:
        >>> with rewrite_blocks(model.unet, lambda output, place: 0.9 * output):  # doctest: +SKIP
        ...     model.generate("a bear", seeds=[0])
    """
    grid = Grid()
    with ExitStack() as stack:
        stack.enter_context(uncompiled(unet))
        stack.enter_context(grid.watching(unet))
        for name, block in transformer_blocks(unet).items():
            stack.callback(block.register_forward_hook(_hook(rewrite, name, block.attn1.heads, grid)).remove)
        yield


def _hook(rewrite: RewriteBlock, name: str, heads: int, grid: Grid) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def hook(block: nn.Module, args: Any, output: Tensor) -> Tensor:
        place = Place(name, *grid.of(name, output.shape[1]), heads=heads, kind="block")
        return checked_shape(name, "an output", rewrite(output, place), output)

    return hook
