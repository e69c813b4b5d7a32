"""Linear guidance: where guidance can be foretold, say the unconditional prediction by a linear map of earlier ones.

The predictions of a run change smoothly, and at each step the unconditional one is nearly a weighted sum of the conditional one and
of those of the steps before. The weights, a number for each and a constant, are fitted once for a model, a sampler and a number of
steps; in the steps that are chosen the second half of the network call is then left out.

Paper: *Adaptive Guidance: Training-free Acceleration of Conditional Diffusion Models* (arXiv:2312.12487), its LinearAG. Changed: a
constant is fitted too; predictions are the network's outputs, whatever their type. Claims ``linear_guidance.*`` of
benchmarks/generate/linear_guidance.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config, Existing, Flags
from photopic.core.errors import DataError, ModelError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.sampling import Control, Sampling, Step
from photopic.core.view import Section, Table, View
from photopic.generate.guidance._common import read_rows
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.handle import TextToImage

# of step t: the constant, those of t + 1 conditional and of t unconditional predictions
Weights = Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class LinearGuidanceConfig(Config):
    """Which steps do without their unconditional half."""

    start: Annotated[float, Ge(0), Le(1)] = 0.5  # share of the steps that are guided in full at first; 1 spares nothing
    early: Annotated[int, Ge(0)] = 0  # of the steps before, each so-many-th is spared too, but for the first; 0 none
    late: Annotated[int, Ge(1)] = 1  # of those after, each so-many-th is spared; 1 all


@dataclass(frozen=True, kw_only=True)
class LinearFitConfig(Config):
    """What the weights are fitted on."""

    steps: Annotated[int, Ge(2)] = 30  # denoising steps, those that will be drawn with
    guidance: Annotated[float, Gt(1)] = 5.0  # how strongly the prompt is followed, as it will be
    scheduler: str | None = None  # sampler, as it will be; by default the model's own
    pictures: Annotated[int, Ge(1)] = 8  # drawn of each prompt
    ridge: Annotated[float, Ge(0)] = 1e-6  # share of the predictors' mean square that keeps weights small
    seed: Annotated[int, Ge(0)] = 0  # of the first picture


@method(
    paper="arXiv:2312.12487",
    claims="linear_guidance.",
    presets={"paper": LinearGuidanceConfig(early=2)},
    examples=("Example: photopic generate 'a bear' --control linear_guidance:weights=linear.json",),
)
class LinearGuidance(Control):
    """Draw with fewer network calls: the unconditional prediction of chosen steps is computed from earlier ones.

    Args:
        weights: What photopic measure linear-guidance --json printed.
        config: Which steps.

    Attributes:
        guided_steps: How many steps of the last run called the network with both halves.

    Raises:
        DataError: If the file holds no such weights.
        ModelError: In a run, if it has other timesteps than the weights were fitted for, or begins at a picture.

    Example:
        >>> model.generate("a bear", seeds=[0], controls=[LinearGuidance("linear.json")])  # doctest: +SKIP
    """

    def __init__(self, weights: Annotated[str, Existing()], *, config: LinearGuidanceConfig = LinearGuidanceConfig()):
        (self.weights, self.timesteps), self.config = read_weights(weights), config

    def start(self, sampling: Sampling) -> None:
        """Forget the last run's predictions."""
        self.sampling = sampling
        self.conditional: dict[int, Tensor] = {}  # by step
        self.unconditional: dict[int, Tensor] = {}
        self.guided_steps = 0

    def is_guided(self, step: Step) -> bool:
        """Whether this step keeps its second half."""
        found = self.timesteps
        expected = found[min(step.index, len(found) - 1)]
        if step.total != len(found) or abs(float(step.timestep) - expected) > 0.5:
            raise ModelError(
                f"linear guidance: expected {len(found)} steps, number {step.index + 1} of them at {expected:g}, as fitted, found "
                f"{step.total} with it at {float(step.timestep):g}; fit it again with these steps and this sampler"
            )
        begun = math.ceil(self.config.start * step.total)
        every = self.config.late if step.index >= begun else self.config.early
        spared = step.index > 0 and every > 0 and step.index % every == 0
        self.guided_steps += not spared
        return not spared

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float, step: Step) -> None:
        """Keep both predictions; what is made of them is classifier-free guidance, or another control's."""
        self.conditional[step.index], self.unconditional[step.index] = conditional, unconditional

    def prediction(self, prediction: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "batch c h w"]:
        """In a spared step, where the network gave the conditional prediction alone, guide it by the computed other one."""
        if not self.sampling.guided or step.guided:
            return prediction
        self.conditional[step.index] = prediction
        if not all(earlier in self.unconditional for earlier in range(step.index)):
            raise ModelError("linear guidance: another control guided before it; name linear_guidance first")
        own = self.weights[step.index]
        terms = [each[earlier] for each, count in ((self.conditional, step.index + 1), (self.unconditional, step.index))
                 for earlier in range(count)]  # fmt: skip
        said = torch.full_like(prediction, own[0])
        for weight, term in zip(own[1:], terms, strict=True):
            said = said + weight * term
        self.unconditional[step.index] = said
        scale = self.sampling.scale
        for control in self.sampling.controls:  # a transformer's family may guide in its own way
            found = None if control is self else control.guidance(prediction, said, scale, step)
            if found is not None:
                return found
        return said + scale * (prediction - said)  # classifier-free guidance


def read_weights(path: str) -> tuple[Weights, list[float]]:
    """The weights of a fit, and the timesteps it is for.

    Raises:
        DataError: Names the file and what is wrong with it.
    """
    rows = read_rows(path, "measure linear-guidance")
    try:
        weights, timesteps = (
            [list(map(float, row["weights"])) for row in rows],
            [float(row["timestep"]) for row in rows],
        )
        held = all(map(math.isfinite, [*timesteps, *chain.from_iterable(weights)]))
    except (KeyError, TypeError, ValueError):
        held, weights, timesteps = False, [], []
    if not held or [len(each) for each in weights] != [2 * step + 2 for step in range(len(rows))]:
        raise DataError(f"{Path(path).name}: expected 2 t + 2 finite weights of step t, found others; fit them again")
    return weights, timesteps


def linear_view(report: Report) -> View:
    """How well each step is foretold."""
    rows = [[row["step"], f"{row['timestep']:g}", f"{row['explained']:.3f}"] for row in report.rows]
    lead = "Share of what parts the two predictions that earlier ones explain; spare steps where it is near 1."
    return View("Linear guidance", [Section("", [Table(["step", "timestep", "explained"], rows)])], lead)


@method(
    paper="arXiv:2312.12487",
    claims="linear_guidance.",
    command="measure linear-guidance",
    examples=(
        "Example: photopic measure linear-guidance --prompt 'a bear' --prompt 'a mug' --json > linear.json",
        "Then: photopic generate 'a fox' --control linear_guidance:weights=linear.json",
    ),
    view=linear_view,
    allow_edits=True,
)
def fit_linear_guidance(
    model: Annotated[TextToImage, Flags("--model", default="emoji-diffusion")],
    *,
    prompts: Annotated[Sequence[str], Flags("--prompt")],
    config: LinearFitConfig = LinearFitConfig(),
) -> Steps[Report]:
    """Fit the linear map by which --control linear_guidance spares network calls, on pictures of a few prompts.

    Args:
        model: A text-to-image model, with or without edits in force.
        prompts: What is drawn, given several times.
        config: How, which is how it will be drawn.

    Returns:
        A row a step: ``step`` from 0, ``timestep``, ``explained``, the share of what parts the unconditional prediction from the
        conditional one that is explained, and ``weights``: the constant, those of the conditional predictions of steps 0 to t, and
        those of the unconditional ones of steps 0 to t - 1.

    Raises:
        DataError: If there is no prompt.
        ModelError: If the model has no unconditional half.

    Example:
        >>> fit_linear_guidance(model, prompts=["a bear", "a mug"]).rows[9]["explained"]  # doctest: +SKIP
        0.98
    """
    if not prompts:
        raise DataError("--prompt: expected one or more, found none")
    taken = _Sums()
    drawn = GenerateConfig(steps=config.steps, guidance=config.guidance, scheduler=config.scheduler)
    said = [prompt for prompt in prompts for _ in range(config.pictures)]
    for event in model.drawing(said, range(config.seed, config.seed + len(said)), drawn, [taken]):
        yield Event("drawing", event.done, event.total)
    if not taken.products:
        raise ModelError(
            f"{model.name}: is guided by a number told to its network and has no second half to spare; draw as it is"
        )
    return taken.fitted(config.ridge)


class _Sums(Control):
    """Sums of products of the predictions of a run, enough for least squares at every step."""

    def __init__(self) -> None:
        self.products: list[Tensor] = []  # of step t over all pictures and entries, (2 t + 3, 2 t + 3)
        self.timesteps: list[float] = []

    def start(self, sampling: Sampling) -> None:
        self.conditional: list[Tensor] = []
        self.unconditional: list[Tensor] = []

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float, step: Step) -> None:
        self.conditional.append(conditional.double().flatten())
        predictors = torch.stack([torch.ones_like(self.conditional[0]), *self.conditional, *self.unconditional])
        self.unconditional.append(unconditional.double().flatten())
        rows = torch.cat([predictors, self.unconditional[-1][None]])  # (2 t + 3, entries), what is sought last
        if step.index == len(self.products):
            self.products.append(torch.zeros(len(rows), len(rows), dtype=torch.float64))
            self.timesteps.append(float(step.timestep))
        self.products[step.index] += (rows @ rows.T).cpu()

    def fitted(self, ridge: float) -> Report:
        """Weights by least squares, and how much of what separates the two predictions they explain."""
        rows = []
        for step, (products, timestep) in enumerate(zip(self.products, self.timesteps, strict=True)):
            known, sought = products[:-1, :-1], products[:-1, -1]
            held = known + ridge * known.diagonal().mean() * torch.eye(len(known), dtype=known.dtype)
            found = torch.linalg.solve(held, sought)
            left = products[-1, -1] - 2 * found @ sought + found @ known @ found
            own = step + 1  # the conditional prediction of this step
            apart = products[-1, -1] - 2 * products[own, -1] + products[own, own]
            explained = float(1 - left / apart) if apart > 0 else 1.0
            rows.append({"step": step, "timestep": timestep, "explained": explained, "weights": found.tolist()})
        return Report("measure linear-guidance", {"steps": len(rows)}, tuple(rows))
