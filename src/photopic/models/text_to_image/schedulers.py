"""Samplers by name, with the noise schedule a model was trained on."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from photopic.core.errors import ModelError
from photopic.core.sampling.levels import is_straight
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


def check_steps(scheduler: Any, steps: int) -> None:
    """Refuse a number of steps that a scheduler cannot do, before a run begins.

    Args:
        scheduler: A diffusers scheduler; it is not changed.
        steps: Denoising steps.

    Raises:
        ModelError: Says why, and the nearest number that it can do.

    Example:
        >>> check_steps(diffusers.DDIMScheduler(steps_offset=1), 999)
    """
    problem = _problem(scheduler, steps)
    if problem:
        last = scheduler.config.num_train_timesteps
        nearest = [n for n in (*range(steps + 1, steps + 9), *range(min(steps - 1, last), 0, -1)) if n <= last]
        possible = next((n for n in nearest if not _problem(scheduler, n)), None)
        fix = "use another scheduler" if possible is None else f"{possible} would do"
        raise ModelError(f"steps: {type(scheduler).__name__} cannot do {steps}: {problem}; {fix}")


def _problem(scheduler: Any, steps: int) -> str:
    """Why a scheduler cannot do so many steps, or nothing."""
    trial = copy.deepcopy(scheduler)  # set_timesteps changes what it is called on
    last = trial.config.num_train_timesteps - 1
    if steps > last + 1:
        return f"the model was trained on {last + 1} timesteps"
    try:
        trial.set_timesteps(steps)
    except (
        ValueError,
        IndexError,
        ZeroDivisionError,
    ) as error:  # each scheduler refuses in its own words, or falls over
        return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    if len(trial.timesteps) == 0 or float(trial.timesteps.max()) > last:
        return f"its timesteps would leave those the model was trained on, 0 to {last}"
    return ""


FLOW_SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {  # for networks that predict velocity
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "lcm": ("FlowMatchLCMScheduler", {}),
}


def flow_scheduler(asked: Any, like: Any, steps: int, name: str) -> Any:
    """A scheduler for a network that predicts velocity: one asked for by name, with the shift of another, or itself.

    Args:
        asked: One of ``FLOW_SCHEDULERS``, or a diffusers scheduler.
        like: The scheduler of the pipeline.
        steps: Denoising steps.
        name: What messages call the model.

    Raises:
        ModelError: If there is none of that name, it does not mix noise in along a straight line, or it cannot do so many steps.

    Example:
        >>> own = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        >>> flow_scheduler("dpm++", own, 20, "mine").config.flow_shift
        3.0
    """
    if steps > like.config.num_train_timesteps:
        raise ModelError(
            f"steps: the model was trained on {like.config.num_train_timesteps} timesteps, found {steps}; use fewer"
        )
    if not isinstance(asked, str):
        if not is_straight(asked):
            raise ModelError(
                f"{name}: {type(asked).__name__} mixes noise in otherwise than this model learnt; use a scheduler of flow "
                f"matching ({', '.join(FLOW_SCHEDULERS)})"
            )
        return asked
    if asked not in FLOW_SCHEDULERS:
        raise ModelError(f"scheduler: expected one of {', '.join(FLOW_SCHEDULERS)} for {name}, found {asked!r}")
    kind, options = FLOW_SCHEDULERS[asked]
    if kind == "DPMSolverMultistepScheduler":
        options = options | {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    shift = like.config.get("shift", like.config.get("flow_shift", 1.0))
    return with_shift(_made(getattr(diffusers, kind), like.config, options), float(shift))


def with_shift(scheduler: Any, shift: float) -> Any:
    """The same scheduler with a fixed shift, under the name its class has for it.

    Example:
        >>> with_shift(diffusers.FlowMatchHeunDiscreteScheduler(), 3.0).config.shift
        3.0
    """
    key = "flow_shift" if "flow_shift" in scheduler.config else "shift"
    return _made(type(scheduler), scheduler.config, {key: shift})


def _made(kind: Any, config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """A scheduler of a class with what it knows of another's configuration, the rest of which it would warn of."""
    known = inspect.signature(kind.__init__).parameters
    return kind(**{name: value for name, value in config.items() if name in known} | dict(options))
