"""What a stock pipeline tells its transformer and its scheduler, taken down while the pipeline itself runs.

The transformer's ``forward`` is a recorder for the length of a call, which ends at the first ``scheduler.step``. Encoding, padding,
templates, sizes, start noise and the shift of the schedule are thereby the pipeline's own, whatever its class.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.models.files import first_line

GUIDERS = ("guider", "ocr_guider")  # parts that would call the transformer twice; without them it is not guided
SCHEDULED = ("sigmas", "mu", "timesteps")  # what a pipeline may tell its scheduler beside the number of steps


@dataclass(frozen=True, eq=False)
class Call:
    """One call of the transformer: its arguments by name, and what the recorder returned."""

    arguments: Mapping[str, Any]
    returned: Any


@dataclass(eq=False)
class Recorded:
    """A pipeline's run up to its last recorded step.

    Attributes:
        calls: Of the transformer, in order; ``calls_of[i]`` of them came before step i.
        outputs: What ``scheduler.step`` was given as prediction, a step.
        timesteps: And as timestep.
        samples: And as sample.
        schedule: Further arguments of ``scheduler.set_timesteps``.
    """

    calls: list[Call] = field(default_factory=list)
    calls_of: list[int] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    timesteps: list[Any] = field(default_factory=list)
    samples: list[Tensor] = field(default_factory=list)
    schedule: dict[str, Any] = field(default_factory=dict)


class _Enough(Exception):
    """Ends the pipeline's call."""


def record(
    pipeline: Any,
    arguments: Mapping[str, Any],
    *,
    steps: int = 1,
    answer: Callable[[Mapping[str, Any]], Any],
    scheduler: Any = None,
    networks: Sequence[str] = ("transformer",),
) -> Recorded:
    """Call a pipeline and take down its first steps; it is left as it was.

    Args:
        pipeline: A diffusers pipeline with a ``transformer``.
        arguments: Of its call, by name.
        steps: How many steps are wanted.
        answer: What the transformer returns in place of a prediction, from its arguments by name.
        scheduler: One to use in the place of the pipeline's.
        networks: Names of those that are not to compute.

    Raises:
        ModelError: If the pipeline refuses the call, in its own words.
    """
    found = Recorded()
    spy = copy.deepcopy(scheduler or pipeline.scheduler)
    _watch_schedule(spy, found)
    take_step = spy.step

    def step(output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        found.outputs.append(output)
        found.timesteps.append(timestep)
        found.samples.append(sample)
        found.calls_of.append(len(found.calls))
        if len(found.outputs) == steps:
            raise _Enough
        return take_step(output, timestep, sample, *args, **kwargs)

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = by_name(pipeline.transformer, args, kwargs)
        found.calls.append(Call(given, answer(given)))
        return (found.calls[-1].returned,)

    spy.step = step
    kind = type(pipeline).__name__
    others = {"scheduler": spy} | {name: None for name in GUIDERS if getattr(pipeline, name, None) is not None}
    with _in_place(pipeline, others, [getattr(pipeline, name) for name in networks], forward):
        try:
            pipeline(**arguments)
        except _Enough:
            return found
        except Exception as error:  # pipelines raise whatever they like
            raise ModelError(f"{kind}: cannot be called: {type(error).__name__}: {first_line(error)}") from error
    raise ModelError(f"{kind}: expected {steps} steps of its scheduler, found {len(found.outputs)}")


def by_name(transformer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a transformer call by name, without ``return_dict``."""
    names = list(inspect.signature(type(transformer).forward).parameters)[1:]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    given.pop("return_dict", None)
    return given


def _watch_schedule(spy: Any, found: Recorded) -> None:
    """Take down what the scheduler is told, and hand on what its class takes."""
    stock, taken = spy.set_timesteps, taken_by(spy)

    # a class that takes fewer arguments (Heun) is told what it takes: pipelines look at the signature before they call
    def set_timesteps(
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        told = {"sigmas": sigmas, "mu": mu, "timesteps": timesteps}
        found.schedule = {name: value for name, value in told.items() if value is not None}
        count = num_inference_steps or len(sigmas if sigmas is not None else timesteps)
        stock(count, device=device, **{name: value for name, value in found.schedule.items() if name in taken})

    spy.set_timesteps = set_timesteps


def taken_by(scheduler: Any) -> set[str]:
    """What of ``SCHEDULED`` a scheduler can be told beside the number of steps.

    Example:
        >>> sorted(taken_by(diffusers.DPMSolverMultistepScheduler(use_dynamic_shifting=True)))  # doctest: +SKIP
        ['mu']
    """
    names = set(SCHEDULED) & set(inspect.signature(scheduler.set_timesteps).parameters)
    if "sigmas" not in names:  # DPM-Solver takes timesteps in the place of their number alone
        names.discard("timesteps")
    config = scheduler.config
    if "flow_shift" in config and not (
        config.get("use_dynamic_shifting", False) and config.time_shift_type == "exponential"
    ):
        names.discard("mu")  # likewise
    return names


@contextmanager
def _in_place(
    pipeline: Any, others: Mapping[str, Any], networks: Sequence[Any], forward: Callable[..., Any]
) -> Iterator[None]:
    """A block in which parts of the pipeline and its networks' forward are others, and no bar is shown."""
    plain = [getattr(network, "_orig_mod", network) for network in networks]
    kept, bars = {name: getattr(pipeline, name) for name in others}, getattr(pipeline, "_progress_bar_config", None)
    own = [vars(network).get("forward") for network in plain]  # offloading has one of its own there
    for name, part in others.items():
        setattr(pipeline, name, part)
    for network in plain:
        network.forward = forward
    pipeline.set_progress_bar_config(disable=True)
    try:
        with torch.no_grad():
            yield
    finally:
        for name, part in kept.items():
            setattr(pipeline, name, part)
        for network, first in zip(plain, own, strict=True):
            del network.forward
            if first is not None:
                network.forward = first
        if bars is not None:
            pipeline._progress_bar_config = bars
        pipeline.maybe_free_model_hooks()
