"""How pictures are drawn: settings that ``TextToImage.generate``, ``photopic generate`` and methods that draw hand on whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from photopic.core.config import Config


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(Config):
    """How to draw; prompts, seeds, pictures to start from and controls stand beside it.

    Example:
        >>> GenerateConfig(steps=20).guidance
        5.0
    """

    steps: Annotated[int, Ge(1)] = 30  # denoising steps: more is finer and slower
    guidance: Annotated[float, Ge(0)] = (
        5.0  # how strongly the prompt is followed; 1 or less is not at all beyond the model's own
    )
    batch: Annotated[int, Ge(1)] = 16  # pictures drawn together; lower it when memory is short
    # what the pictures should lead away from, one for all or one for each prompt; by default what the pipeline uses
    negative_prompt: str | Sequence[str] | None = None
    scheduler: Any = (
        None  # a name of models.text_to_image.schedulers or a diffusers scheduler; by default the pipeline's
    )
    # share of the steps done from an image, above 0, which keeps it, to 1; by default 0.8, or 1 with a mask
    strength: Annotated[float | None, Gt(0), Le(1)] = None
    width: Annotated[int | None, Ge(1)] = None  # of the pictures in pixels; by default the model's own
    height: Annotated[int | None, Ge(1)] = None  # the same
