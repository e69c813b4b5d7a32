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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError, ModelError
from photopic.core.method import method
from photopic.core.nn.attention import Place
from photopic.core.sampling import Control, Sampling, Step
from photopic.data.layout import Layout
from photopic.models.text_to_image.handle import TextToImage

OUTSIDE = -1e8  # w-: times any noise level above about 0.004 it leaves a probability of exactly 0 in float32
Positions = Sequence[Sequence[int]]  # for each region those of its words


@dataclass(frozen=True)
class LayoutGuidanceConfig(Config):
    """How strongly a layout is followed."""

    # how strongly a subject is drawn into its region, where the layout does not say: w+ of the paper
    strength: Annotated[float, Ge(0)] = 2.5
    # weight of the whole, 0 switches it off: eta of the paper, whose 0.08 moves too little in the bundled model
    weight: Annotated[float, Ge(0)] = 0.3
    repeats: Annotated[int, Ge(1)] = 1  # how often each step is done; the paper's code does 2, for twice the time
    layers: str = "*"  # name pattern of the cross-attention layers that are guided
    sigma_limit: Annotated[float, Ge(0)] = 14.6146  # higher noise levels count as this: where Stable Diffusion starts


@method(
    paper="arXiv:2305.19327",
    claims="layout.",
    examples=(
        "Example: photopic generate 'a cat and a guitar' --control layout_guidance:layout=layout.json,weight=0.3",
    ),
)
class LayoutGuidance(Control):
    """Draw each subject where a layout says: its words are read in its region, and nowhere else.

    Scores are changed before the softmax, of the conditional half only, by ``weight * w * log(1 + sigma^2) * std(scores)``.
    Inside a region that says a guidance of its own that scale counts in place of the run's.

    Args:
        layout: The regions.
        positions: For each region its token positions in the prompt, see ``subject_positions``; None: looked up when a run begins.
        config: How strongly.

    Raises:
        DataError: If positions and regions do not pair up; in a run, if a subject is not in its prompt, or two regions would share
            the only cell of a layer.

    Example:
        >>> from photopic.data.layout import Region
        >>> pair = Layout((Region("cat", (0.0, 0.0, 0.5, 1.0)), Region("guitar", (0.5, 0.0, 1.0, 1.0))))
        >>> guidance = LayoutGuidance(pair)
        >>> model.generate("a cat and a guitar on a red background", seeds=[0], controls=[guidance])  # doctest: +SKIP
    """

    def __init__(
        self,
        layout: Layout,
        positions: Annotated[Positions | None, Flags()] = None,
        config: LayoutGuidanceConfig = LayoutGuidanceConfig(),
    ):
        self.layout, self.given, self.config = layout, positions, config
        if positions is not None and (len(positions) != len(layout.regions) or not all(positions)):
            raise DataError(
                f"layout guidance: expected token positions for each of {len(layout.regions)} regions, found {positions}"
            )
        self.repeats = config.repeats
        self._begin([] if positions is None else [positions])

    def start(self, sampling: Sampling) -> None:
        """Find where each prompt of the batch says the words of the regions."""
        own = next((region for region in self.layout.regions if region.guidance is not None), None)
        if own is not None and not sampling.guided:
            raise DataError(
                f"layout: region {own.words!r} has a guidance of its own, and the run has none; draw with guidance above 1"
            )
        if self.given is not None:
            return self._begin([self.given])
        if sampling.positions is None:
            raise DataError(
                "layout guidance: this run knows no prompts; give positions=, as subject_positions finds them"
            )
        rows = [self._row(sampling.positions, index) for index in range(len(sampling.generators))]
        return self._begin(rows[:1] if all(row == rows[0] for row in rows) else rows)

    def _row(self, find: Callable[[str], Positions], index: int) -> list[list[int]]:
        """The positions in the prompt of one sample."""
        return _of_longest(self.layout, lambda words: find(words)[index], "of the batch")

    def _begin(self, rows: Sequence[Positions]) -> None:
        self.positions = rows  # one entry for all samples whose prompts say the words at the same places
        self._weights: dict[tuple[int, int, int, tuple[int, ...] | None], Tensor] = {}

    def attention(
        self, scores: Float[Tensor, "batch heads cells tokens"], place: Place, step: Step
    ) -> Float[Tensor, "batch heads cells tokens"]:
        """The scores with the layout's term added to the conditional half."""
        config = self.config
        level = math.log1p(min(step.sigma, config.sigma_limit) ** 2)  # log(1 + sigma^2): strong early, gone at the end
        if config.weight == 0 or level == 0 or not fnmatchcase(place.name, config.layers):
            return scores
        kept = len(scores) // 2 if step.guided else 0  # the unconditional half comes first and has no words
        conditional = scores[kept:]
        # The paper adds to Q K^T and divides by sqrt(d) after it; std is homogeneous, so the scores here may be divided already.
        spread = conditional.std(dim=(1, 2, 3), keepdim=True)  # (batch, 1, 1, 1)
        weights = self.weights(place.height, place.width, scores.shape[-1], place.rows).to(
            scores
        )  # (rows, cells, tokens)
        edited = conditional + config.weight * level * spread * weights[:, None]  # for all heads
        return torch.cat([scores[:kept], edited])

    def guidance(
        self,
        conditional: Float[Tensor, "batch *latents"],
        unconditional: Float[Tensor, "batch *latents"],
        scale: float,
        step: Step,
    ) -> Float[Tensor, "batch *latents"] | None:
        """Classifier-free guidance with a scale for each cell, where regions say one."""
        if all(region.guidance is None for region in self.layout.regions):
            return None
        if conditional.ndim != 4:
            raise ModelError("layout: guidance of a region needs a model with a UNet; leave it out of the layout")
        inside = torch.from_numpy(self.layout.cells(*conditional.shape[2:]))  # (regions, h, w)
        scales = torch.full(inside.shape[1:], scale)
        for region, own in zip(self.layout.regions, inside, strict=True):
            if region.guidance is not None:
                scales[own] = region.guidance
        return unconditional + scales.to(conditional) * (conditional - unconditional)

    def weights(
        self, height: int, width: int, tokens: int, rows: tuple[int, ...] | None = None
    ) -> Float[Tensor, "rows cells tokens"]:
        """The map W: each region's strength at its tokens inside, ``OUTSIDE`` where they are shut, 0 elsewhere.

        Args:
            height: Rows of the grid of cells.
            width: Columns of the grid.
            tokens: Length of the encoded prompt.
            rows: Which samples are wanted; None: all.

        Returns:
            One map for all samples, or one for each where their prompts differ.
        """
        said = self.positions if rows is None or len(self.positions) == 1 else [self.positions[row] for row in rows]
        if (key := (height, width, tokens, rows)) not in self._weights:
            inside = torch.from_numpy(self.layout.cells(height, width)).flatten(
                1
            )  # (regions, h, w) -> (regions, cells)
            weights = torch.zeros(len(said), height * width, tokens)
            anybody = inside.any(0)  # (cells,)
            for number, (region, own) in enumerate(zip(self.layout.regions, inside, strict=True)):
                # "shut": a word is read in its region only; "neutral": it is only kept out of the regions of others
                shut = ~own if self.layout.outside == "shut" else anybody & ~own
                strength = self.config.strength if region.strength is None else region.strength
                column = strength * own.float() + OUTSIDE * shut.float()
                for row, positions in zip(weights, said, strict=True):
                    row[:, positions[number]] = column[:, None]  # (cells,) -> (cells, positions)
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
    return _of_longest(layout, partial(model.token_positions, prompt), repr(prompt))


def _of_longest(layout: Layout, find: Callable[[str], Sequence[int]], prompt: str) -> list[list[int]]:
    found: dict[str, list[int]] = {}
    taken: set[int] = set()
    for words in sorted((region.words for region in layout.regions), key=len, reverse=True):
        try:
            positions = find(words)
        except ModelError as error:
            raise DataError(f"layout: region {words!r} is not a subject of the prompt {prompt} ({error})") from None
        found[words] = [position for position in positions if position not in taken]
        if not found[words]:
            raise DataError(
                f"layout: region {words!r} is in the prompt {prompt} only as part of another region's words; "
                "name it once more, or give it other words"
            )
        taken.update(positions)
    return [found[region.words] for region in layout.regions]
