"""Samplers by name, with the noise schedule a model was trained on."""

from __future__ import annotations

from typing import Any

import diffusers

from photopic.core.errors import ModelError
from photopic.models.text_to_image.checks import prediction_type

UNCLIPPED = {"clip_sample": False}  # clipping is for pixels; the default of these classes is wrong for latents
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", UNCLIPPED),
    "ddpm": ("DDPMScheduler", UNCLIPPED),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
}
WITHOUT_SAMPLE = ("euler-ancestral", "heun")  # diffusers has no way here from a predicted sample


def scheduler_named(name: str, like: Any) -> Any:
    """A scheduler of that name with the training schedule and prediction type of another.

    Args:
        name: One of ``SCHEDULERS``.
        like: The scheduler of a pipeline.

    Raises:
        ModelError: If there is none of that name, or it cannot be used with what the model predicts.

    Example:
        >>> type(scheduler_named("euler", diffusers.DDIMScheduler())).__name__
        'EulerDiscreteScheduler'
    """
    if name not in SCHEDULERS:
        raise ModelError(f"scheduler: expected one of {', '.join(SCHEDULERS)}, found {name!r}")
    if name in WITHOUT_SAMPLE and prediction_type(like) == "sample":
        raise ModelError(f"scheduler: {name} does not work with a model that predicts samples; use ddim or dpm++")
    kind, options = SCHEDULERS[name]
    try:
        return getattr(diffusers, kind).from_config(like.config, **options)
    except ImportError as error:  # LMS integrates with SciPy
        raise ModelError(f"scheduler: {name} needs SciPy; pip install scipy, or use another") from error
