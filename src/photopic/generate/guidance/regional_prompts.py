"""One prompt for each region: inside a region every cross-attention layer reads its sentence, elsewhere the whole prompt.

A sentence about one thing is easier for a model than one about four, so each thing is drawn from a sentence of its own, and self-
attention fits them together. Region-wise mixing of prompts as in Mix-of-Show (arXiv:2305.18292) and MultiDiffusion
(arXiv:2302.08113), in the conditional half only, one more cross-attention a region and layer. Exact: regions whose prompt is the
whole prompt change nothing, and a layer's output outside all regions is as without; both are tests. What it gains is measured
with ``bacon.redraw_*`` (benchmarks/knowledge/bacon_redraw.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import DataError
from photopic.core.nn.attention import Grid, cross_attention, uncompiled
from photopic.core.sampling import Control, Step
from photopic.data.layout import Layout
from photopic.models.text_to_image.handle import TextToImage


class RegionalPrompts(Control):
    """Draw each region from a prompt of its own.

    Put it before ``RegionalEdits`` among the controls, whose regions then read the whole prompt with their edits.

    Args:
        layout: The regions; where they overlap the later one counts.
        prompts: One a region.

    Raises:
        DataError: If there is not one prompt a region.

    Example:
        >>> prompts = ["a cat on a red background", "a guitar on a red background"]
        >>> model.generate(whole, seeds=[0], controls=[RegionalPrompts(layout, prompts)])  # doctest: +SKIP
    """

    def __init__(self, layout: Layout, prompts: Sequence[str]):
        if len(prompts) != len(layout.regions):
            raise DataError(f"prompts: expected one for each of {len(layout.regions)} regions, found {len(prompts)}")
        self.layout, self.prompts = layout, tuple(prompts)
        self._guided = False

    def model_input(self, latents: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "batch c h w"]:
        """Remember whether the call that follows is doubled; the latents stay."""
        self._guided = step.guided
        return latents

    @contextmanager
    def applied(self, model: TextToImage) -> Iterator[None]:
        """In force around a batch: the prompts are encoded with the edits in force, and the layers watched."""
        model.check_unet("a prompt for each region")
        hidden = model.encode_prompts(list(self.prompts)).hidden  # (regions, tokens, dim)
        grid = Grid()
        with ExitStack() as stack:
            stack.enter_context(uncompiled(model.unet))
            stack.enter_context(grid.watching(model.unet))
            for name, layer in cross_attention(model.unet).items():
                hook = self._hook(name, grid, hidden)
                stack.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
            yield

    def _hook(self, name: str, grid: Grid, hidden: Float[Tensor, "regions tokens dim"]) -> Callable[..., Tensor]:
        def read(layer: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
            # (regions, h, w) -> (regions, cells): each layer has a grid of its own
            inside = torch.from_numpy(self.layout.cells(*grid.of(name, output.shape[1]))).flatten(1).to(output.device)
            kept = len(output) // 2 if self._guided else 0  # the unconditional half comes first and has no words
            asked = args[0][kept:]  # (rows, cells, dim)
            twin = copy.copy(
                layer
            )  # shares the weights; layout guidance, which counts words of the whole prompt, is not in it
            twin.processor = AttnProcessor2_0()
            found = output[kept:]
            for region, own in zip(hidden, inside, strict=True):
                words = region.expand(len(asked), *region.shape).to(asked)  # (rows, tokens, dim)
                found = torch.where(own[:, None], twin.forward(asked, encoder_hidden_states=words), found)
            return torch.cat([output[:kept], found])

        return read
