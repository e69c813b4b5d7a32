"""Put each subject where a layout says: its words attend to its region, and nowhere else, while a picture is drawn.

Paper: *Cones 2: Customizable Image Synthesis with Multiple Subjects* (arXiv:2305.19327), its layout guidance. Changed against the
published code: regions are pooled by area, so that a small one keeps a cell on every grid; the spread of the scores is taken for
each sample, so that a picture does not depend on its batch; token positions come from the tokenizer; ground outside all regions
can really be left alone (``Layout.outside``); a model with zero terminal signal-to-noise ratio, whose first noise level is
infinite, is guided as at ``sigma_limit`` there. Claims ``layout.*``: the attention of a subject's words lies in its region, and
its box in the picture comes closer to the region's; exact checks are in the tests, measurements in
``benchmarks/generate/layout.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.core.sampling import Control, Step
from photopic.data.layout import Layout

if TYPE_CHECKING:
    from photopic.core.nn.attention import Place
    from photopic.models.text_to_image.handle import TextToImage

OUTSIDE = -1e8  # w-: times any noise level above about 0.004 it leaves a probability of exactly 0 in float32


@dataclass(frozen=True)
class LayoutGuidanceConfig:
    """How strongly a layout is followed."""

    strength: float = 2.5  # w+ of the paper: inside a region that names no strength of its own
    weight: float = (
        0.3  # eta of the whole edit, 0 switches it off; the paper's 0.08 moves too little in the bundled model
    )
    repeats: int = 1  # how often each step is done (self-recurrence); the paper's code does 2, for twice the time
    layers: str = "*"  # name pattern of the cross-attention layers that are guided
    sigma_limit: float = 14.6146  # noise levels above it count as this one: where Stable Diffusion's schedule starts

    def __post_init__(self) -> None:
        for name in ("strength", "weight", "sigma_limit"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise DataError(f"layout guidance: {name}: expected 0 or more, found {value}")
        if self.repeats < 1:
            raise DataError(f"layout guidance: repeats: expected 1 or more, found {self.repeats}")


class LayoutGuidance(Control):
    """Raises the attention scores of each subject's tokens in its region and shuts them outside, at high noise most.

    Scores are changed before the softmax, of the conditional half only, by ``weight * w * log(1 + sigma^2) * std(scores)``.

    Args:
        layout: The regions.
        positions: For each region its token positions in the prompt, see ``subject_positions``.
        config: How strongly.

    Raises:
        DataError: If positions and regions do not pair up; in a run, if two regions would share the only cell of a layer.

    Example:
        >>> from photopic.data.layout import Region
        >>> pair = Layout((Region("cat", (0.0, 0.0, 0.5, 1.0)), Region("guitar", (0.5, 0.0, 1.0, 1.0))))
        >>> prompt = "a cat and a guitar on a red background"
        >>> guidance = LayoutGuidance(pair, subject_positions(model, prompt, pair))  # doctest: +SKIP
        >>> model.generate(prompt, seeds=[0], controls=[guidance])  # doctest: +SKIP
    """

    def __init__(self, layout: Layout, positions: Sequence[Sequence[int]], config: LayoutGuidanceConfig | None = None):
        if len(positions) != len(layout.regions) or not all(positions):
            raise DataError(
                f"layout guidance: expected token positions for each of {len(layout.regions)} regions, found {positions}"
            )
        self.layout, self.positions = layout, [list(each) for each in positions]
        self.config = config or LayoutGuidanceConfig()
        self.repeats = self.config.repeats
        self._weights: dict[tuple[int, int, int], Tensor] = {}

    def attention(
        self, scores: Float[Tensor, "batch heads cells tokens"], place: Place, step: Step
    ) -> Float[Tensor, "batch heads cells tokens"]:
        """The scores with the layout's term added to the conditional half."""
        config = self.config
        level = math.log1p(min(step.sigma, config.sigma_limit) ** 2)
        if config.weight == 0 or level == 0 or not fnmatchcase(place.name, config.layers):
            return scores
        kept = len(scores) // 2 if step.guided else 0
        conditional = scores[kept:]
        # The paper adds to Q K^T and divides by sqrt(d) after it; std is homogeneous, so the scores here may be divided already.
        spread = conditional.std(dim=(1, 2, 3), keepdim=True)  # (batch, 1, 1, 1)
        weights = self.weights(place.height, place.width, scores.shape[-1]).to(scores)  # (cells, tokens)
        edited = conditional + config.weight * level * spread * weights
        return torch.cat([scores[:kept], edited])

    def weights(self, height: int, width: int, tokens: int) -> Float[Tensor, "cells tokens"]:
        """The map W: each region's strength at its tokens inside, ``OUTSIDE`` where they are shut, 0 elsewhere.

        Args:
            height: Rows of the grid of cells.
            width: Columns of the grid.
            tokens: Length of the encoded prompt.
        """
        if (key := (height, width, tokens)) not in self._weights:
            weights = torch.zeros(height * width, tokens)
            inside = torch.from_numpy(self.layout.cells(height, width)).flatten(
                1
            )  # (regions, h, w) -> (regions, cells)
            anybody = inside.any(0)
            for region, own, positions in zip(self.layout.regions, inside, self.positions, strict=True):
                shut = ~own if self.layout.outside == "shut" else anybody & ~own
                strength = self.config.strength if region.strength is None else region.strength
                column = strength * own.float() + OUTSIDE * shut.float()
                weights[:, positions] = column[:, None]  # (cells,) -> (cells, positions)
            self._weights[key] = weights
        return self._weights[key]


def subject_positions(model: TextToImage, prompt: str, layout: Layout) -> list[list[int]]:
    """For each region the positions of its words in the prompt, every occurrence.

    Where the words of one region are part of another's ("cat" and "<mine> cat"), tokens belong to the longer ones.

    Args:
        model: Whose tokenizer reads the prompt, with the edits of the subjects in force.
        prompt: The prompt that will be drawn.
        layout: Names the subjects.

    Raises:
        DataError: If a subject is not in the prompt, or only as part of another.

    Example:
        >>> subject_positions(model, "a cat and a guitar", pair)  # doctest: +SKIP
        [[2], [5]]
    """
    found: dict[str, list[int]] = {}
    taken: set[int] = set()
    for words in sorted((region.words for region in layout.regions), key=len, reverse=True):
        try:
            positions = model.token_positions(prompt, words)
        except ModelError:
            raise DataError(
                f"layout: region {words!r} is not a subject of the prompt {prompt!r}; write its words as they stand there"
            ) from None
        found[words] = [position for position in positions if position not in taken]
        if not found[words]:
            raise DataError(
                f"layout: region {words!r} is in the prompt {prompt!r} only as part of another region's words; "
                "name it once more, or give it other words"
            )
        taken.update(positions)
    return [found[region.words] for region in layout.regions]
