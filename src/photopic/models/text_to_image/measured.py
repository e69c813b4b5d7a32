"""A pipeline's time and sign, measured by two recorded steps and compared with what the table of families says of its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.models.text_to_image.capture import Recorded, record
from photopic.models.text_to_image.families import Family

TOLERANCE = 0.5  # of t; pipelines differ by 1 at least where they differ


def ones_like_prediction(family: Family, value: float = 1.0) -> Any:
    """An answer for ``record``: a prediction of ones in the shape that the family's transformer returns."""

    def answer(arguments: Mapping[str, Any]) -> Any:
        latents = next(iter(arguments.values())) if "hidden_states" not in arguments else arguments["hidden_states"]
        if isinstance(latents, list):
            return [torch.full_like(each, value) for each in latents]
        made = torch.full_like(latents, value)
        return torch.cat([made, made], dim=1) if family.halved else made  # (batch, c, h, w) -> (batch, 2 c, h, w)

    return answer


def check_measured(pipeline: Any, family: Family, arguments: Mapping[str, Any], name: str) -> None:
    """Refuse a pipeline that does not tell its transformer the time, or does not read its output, as its row says.

    Args:
        pipeline: Of a class in the table.
        family: Its row.
        arguments: Of a call without guidance, of two steps.
        name: What messages call the model.

    Raises:
        ModelError: Says what was expected and what was found.
    """
    found = record(pipeline, arguments, steps=2, answer=ones_like_prediction(family), networks=family.networks)
    sign, scale = measured_sign(found), float(getattr(pipeline.transformer.config, "timestep_scale", 1.0))
    times = [(float(t), told) for t, told in zip(found.timesteps, told_times(found), strict=True)]
    if sign == family.sign and all(_agrees(told, family, t, scale) for t, told in times):
        return
    slope, start = measured_time(found)
    raise ModelError(
        f"{name}: {type(pipeline).__name__} was expected to tell its transformer {_line(*family.time)} and to take "
        f"{_word(family.sign)}, found {_line(slope / scale, start / scale)} and {_word(sign)}; it is another version than the "
        "one photopic knows"
    )


def _agrees(told: Tensor, family: Family, timestep: float, scale: float) -> bool:
    """Whether a time is on the row's line, as far as its number format tells."""
    slope, start = family.time
    wanted = (slope * timestep + start) * scale
    rounding = 2 * torch.finfo(told.dtype).eps * 1000 * abs(slope) * scale if told.is_floating_point() else 0.0
    return abs(float(told) - wanted) <= max(rounding, TOLERANCE * abs(slope) * scale)


def measured_time(found: Recorded) -> tuple[float, float]:
    """(a, b) of ``a * t + b``, through the first calls of two steps."""
    times = [float(each) for each in told_times(found)]
    first, second = (float(each) for each in found.timesteps[:2])
    slope = (times[0] - times[1]) / (first - second)
    return slope, times[0] - slope * first


def measured_sign(found: Recorded) -> int:
    """1 where a prediction of ones reached the scheduler as it was, -1 where it was negated, 0 for anything else."""
    output = found.outputs[0]
    ones = torch.ones_like(output)
    return next((sign for sign in (1, -1) if torch.equal(output, sign * ones)), 0)


def told_times(found: Recorded) -> list[Tensor]:
    """What the transformer was told as time in the first call of each of two steps, a number each."""
    calls = [found.calls[index].arguments for index in (0, found.calls_of[0])]
    return [(given["t"] if "t" in given else given["timestep"]).flatten()[0] for given in calls]


def _line(slope: float, start: float) -> str:
    """``1 - t/1000`` and the like."""
    part = "t" if abs(abs(slope) - 1) < TOLERANCE else f"{abs(slope) * 1000:.4g}*t/1000".removeprefix("1*")
    offset = round(start, 3) + 0.0
    return f"{offset:g} - {part}" if slope < 0 else part + (f" + {offset:g}" if offset else "")


def _word(sign: int) -> str:
    return {1: "its output as it is", -1: "its negated output", 0: "something else than its output"}[sign]
