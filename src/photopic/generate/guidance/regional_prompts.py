"""One prompt for each region: inside a region every cross-attention layer reads its sentence, elsewhere the whole prompt.

A sentence about one thing is easier for a model than one about four, so each thing is drawn from a sentence of its own, and self-
attention fits them together. Region-wise mixing of prompts as in Mix-of-Show (arXiv:2305.18292) and MultiDiffusion
(arXiv:2302.08113), in the conditional half only, one more cross-attention a region and layer. Exact: regions whose prompt is the
whole prompt change nothing, and a layer's output outside all regions is as without; both are tests. What it gains is measured
with ``bacon.redraw_*`` (benchmarks/knowledge/bacon_redraw.py) and ``composition.*`` (benchmarks/generate/composition.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import DataError
from photopic.core.nn.attention import Grid, cross_attention, is_doubled, uncompiled
from photopic.core.sampling import Control
from photopic.data.layout import Layout
from photopic.generate.guidance._own_prompts import reading, with_own_prompt
from photopic.models.text_to_image.handle import TextToImage


class RegionalPrompts(Control):
    """Draw each region that has a prompt of its own from it.

    Put it before ``RegionalEdits`` among the controls: they read the prompts of the regions of their edits themselves.

    Args:
        layout: The regions with their prompts; where they overlap the later one counts.

    Raises:
        DataError: If no region has a prompt of its own.

    Example:
        >>> from photopic.data.layout import Region
        >>> cat = Region("cat", (0.0, 0.0, 0.5, 1.0), prompt="a cat on a red background")
        >>> prompts = RegionalPrompts(Layout((cat,)))
        >>> model.generate("a cat left of a guitar on a red background", seeds=[0], controls=[prompts])  # doctest: +SKIP
    """

    def __init__(self, layout: Layout):
        if not any(region.prompt for region in layout.regions):
            raise DataError("layout: expected a region with a prompt of its own, found none")
        self.layout = layout

    @contextmanager
    def applied(self, model: TextToImage) -> Iterator[None]:
        """In force around a batch: the prompts are encoded with the edits in force, and the layers watched."""
        model.check_unet("a prompt for each region")
        told = {
            i: model.encode_prompts([each.prompt]).hidden for i, each in enumerate(self.layout.regions) if each.prompt
        }
        grid = Grid()
        with ExitStack() as stack:
            stack.enter_context(uncompiled(model.unet))
            stack.enter_context(grid.watching(model.unet))
            for name, layer in cross_attention(model.unet).items():
                hook = self._hook(name, grid, told)
                stack.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
            yield

    def _hook(self, name: str, grid: Grid, told: dict[int, Float[Tensor, "1 tokens dim"]]) -> Callable[..., Tensor]:
        def read(layer: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
            # (regions, h, w) -> (regions, cells): each layer has a grid of its own
            inside = torch.from_numpy(self.layout.cells(*grid.of(name, output.shape[1]))).flatten(1).to(output.device)
            plain = reading(layer)  # layout guidance, which counts words of the whole prompt, is not in it
            found = output
            for region, words in told.items():
                own = with_own_prompt(plain, args[0], words, output, doubled=is_doubled())
                found = torch.where(inside[region, :, None], own, found)
            return found

        return read
