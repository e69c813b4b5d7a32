"""Push one property of a generator's pictures beyond all it draws, and leave the others: descent along few style coordinates.

The styles of all layers are moved along the gradient of the property, only in the coordinates with the largest standardised
entries; it begins with one and takes one more whenever it stalls.

Our formulation, after *Principled Knowledge Extrapolation with GANs* (ICML 2022, arXiv:2205.13444): of the paper only the
abstract is public, and no code. The game whose discriminator has a closed form is ``core.numerics.knowledge_game``. Claims
``gan.extrapolation.*`` of benchmarks/tune/latents.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.config import Config, Flags
from photopic.core.edits import Edit, SteeringVector
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.numerics.knowledge_game import discriminator, extrapolated
from photopic.core.view import Section, Table, View
from photopic.data.picture_region import region_mask
from photopic.metrics.measurements import Property, measurement
from photopic.models.generator import Generator

SAMPLES = 256  # pictures whose values say what the generator draws
STALLED = (
    0.25  # of the distance to the target that a step of the first would go, below which one coordinate more is taken
)
EVERY = 5  # steps between looks whether the descent stalls
Knowledge = Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, " n"]]


@dataclass(frozen=True, kw_only=True)
class KnowledgeExtrapolationConfig(Config):
    """How far, and by how many coordinates."""

    beyond: Annotated[float, Ge(0)] = (
        1.0  # how far beyond the largest value drawn, in standard deviations of the property
    )
    fewer: bool = False  # push the property down, below the smallest value drawn
    coordinates: Annotated[int, Ge(1)] = 32  # style coordinates that may be moved at most; it begins with one
    dense: bool = False  # move all coordinates from the start: the baseline
    samples: Annotated[int, Ge(1)] = 16  # pictures that share the edit
    steps: Annotated[int, Ge(1)] = 200  # steps of the descent at most
    step: Annotated[float, Gt(0)] = 0.1  # size of a step, in standard deviations of the coordinates moved
    seed: Annotated[int, Ge(0)] = 0  # seed of the pictures


class Descent(NamedTuple):
    """How a descent ended.

    Attributes:
        moved: What was added to each coordinate, (rows, coordinates); one row where all pictures share it.
        value: The property of each picture at the end.
        reached: Which came to the target.
        steps: Steps done.
        most: Coordinates that a picture's row moves, at most.
    """

    moved: Float[Tensor, "rows coordinates"]
    value: Float[Tensor, " n"]
    reached: Bool[Tensor, " n"]
    steps: int
    most: int


def extrapolation_view(edit: Edit) -> View:
    """What was reached, and what the pictures really show."""
    names = ("target", "before", "after", "shown", "reached", "coordinates", "separation")
    rows = [[name, edit.provenance[name]] for name in names]
    return View(f"{edit.provenance['property']}, extrapolated", [Section("", [Table(["", ""], rows)])])


@method(
    paper="arXiv:2205.13444",
    claims="gan.extrapolation.",
    command="tune extrapolate",
    examples=("Example: photopic tune extrapolate --property brightness --region 0.2,0.2,0.8,0.8 -o bright.edit",),
    view=extrapolation_view,
    after=("next: photopic measure locality {output} --region ... -o locality.html",),
)
def knowledge_extrapolation(
    model: Generator,
    *,
    property: Annotated[Property, Flags("--property")] = "brightness",
    region: Annotated[str, Flags("--region")] = "",
    config: KnowledgeExtrapolationConfig = KnowledgeExtrapolationConfig(),
) -> Steps[Edit]:
    """Find one edit of a generator's styles that brings a property of its pictures beyond all that it draws.

    Args:
        model: A generator: a bundled name, or a folder. Its noise is the stored one.
        property: What is pushed: brightness, red, green, blue, colourfulness, contrast or sharpness.
        region: Where it is measured: left,top,right,bottom as fractions, or a mask picture; the whole picture by default.
        config: How far, and by how many coordinates.

    Returns:
        A steering vector of styles. Provenance: ``target``, means ``before``, ``after`` and ``shown`` (a second opinion: of the
        pictures as they are saved, cut to what a pixel holds), the share ``reached``, ``coordinates``, and ``separation``: how
        well the closed-form discriminator tells edited pictures from drawn ones by the property alone, 0.5 to 1.

    Raises:
        DataError: If the region is empty or the whole picture, or nothing moves the property.

    Example:
        >>> knowledge_extrapolation(model).provenance["coordinates"]  # doctest: +SKIP
        3
    """
    mask = torch.from_numpy(region_mask(region, model.resolution)).to(model.device) if region else None
    sign, plain = (-1.0 if config.fewer else 1.0), measurement(property, mask)
    with torch.no_grad():
        styles = model.styles(model.map(model.sample_z(SAMPLES, config.seed)))
        drawn = sign * _in_parts(lambda part: plain(model.synthesize_styles(part)), styles)
    target = float(drawn.max() + config.beyond * drawn.std())
    yield Event("descending")
    start = [each[: config.samples] for each in styles]
    found = descend(
        lambda pictures: sign * plain(pictures),
        lambda each: model.synthesize_styles(each),
        start,
        [each.std(0) for each in styles],
        target,
        most=None if config.dense else config.coordinates,
        steps=config.steps,
        step=config.step,
        shared=True,
    )
    moves = found.moved[0].split([each.shape[1] for each in styles])
    vectors = {name: each for name, each in zip(model.style_names, moves, strict=True) if bool(each.any())}
    if not vectors:
        raise DataError(f"property: expected one that styles move, found that nothing moves {property} there")
    with torch.no_grad():
        edited = model.synthesize_styles([each + move for each, move in zip(start, moves, strict=True)])
        shown = plain(edited.clamp(-1, 1))
    facts = {
        "property": property,
        "target": round(sign * target, 4),
        "before": round(sign * float(drawn[: config.samples].mean()), 4),
        "after": round(sign * float(found.value.mean()), 4),
        "shown": round(float(shown.mean()), 4),
        "reached": round(float(found.reached.float().mean()), 4),
        "coordinates": found.most,
        "separation": round(separation(drawn.double().cpu().numpy(), found.value.double().cpu().numpy()), 4),
    }
    return Edit((SteeringVector(vectors),), model.fingerprint(), facts)


def descend(
    knowledge: Knowledge,
    synthesize: Callable[[list[Tensor]], Tensor],
    start: Sequence[Float[Tensor, "n _"]],
    spreads: Sequence[Float[Tensor, "_"]],
    target: float,
    *,
    most: int | None,
    steps: int = 200,
    step: float = 0.1,
    shared: bool = False,
    adaptive: bool = True,
) -> Descent:
    """Move latents up the gradient of a property, along the largest standardised entries, until each picture is at the target.

    Args:
        knowledge: The property of pictures, differentiable.
        synthesize: Pictures of latents: a list of blocks, such as the styles of all layers, or w alone.
        start: The blocks, one row a picture.
        spreads: Standard deviation of each coordinate of each block.
        target: Where to stop.
        most: Coordinates moved at most; None: all, which is normalised gradient ascent.
        steps: At most.
        step: Its length, in standardised coordinates.
        shared: One move for all pictures, up the mean gradient, until their mean is at the target.
        adaptive: Begin with one coordinate and take one more (twice as many from four on) where it stalls; else ``most`` from the
            start.
    """
    widths = [each.shape[1] for each in start]
    at, spread = torch.cat(list(start), 1), torch.cat(list(spreads))
    rows = 1 if shared else len(at)
    moved = torch.zeros_like(at[:rows])
    allowed = torch.full((rows,), at.shape[1] if most is None else 1 if adaptive else most, device=at.device)
    used = torch.zeros_like(moved, dtype=torch.bool)
    first_rate, look = torch.zeros(rows), torch.full((rows,), -torch.inf)
    done = 0
    for done in range(steps + 1):
        here = moved.detach().requires_grad_()
        value = knowledge(synthesize(list((at + here).split(widths, 1))))  # (n,)
        aim = value.mean()[None] if shared else value
        going = (aim < target).detach().cpu()
        if not going.any() or done == steps:
            break
        (gradient,) = torch.autograd.grad((value.mean() if shared else value.sum()), here)
        standard = spread * gradient
        if most is not None:
            if adaptive and done and done % EVERY == 0:
                rate = aim.detach().cpu() - look
                first_rate = torch.where(first_rate == 0, rate, first_rate)
                stalls = going & (rate < STALLED * first_rate)
                allowed = torch.where(
                    stalls.to(allowed.device), (allowed + allowed.div(4, rounding_mode="floor").clamp(min=1)), allowed
                )
                allowed = allowed.clamp(max=most)
            if done % EVERY == 0:
                look = aim.detach().cpu()
            standard = standard * _largest(standard, used, allowed)
        used = used | (standard != 0) & going[:, None].to(used.device)
        standard = standard / standard.norm(dim=1, keepdim=True).clamp(min=1e-30)
        moved = moved + step * spread * standard * going[:, None].to(moved)
    return Descent(moved.detach(), value.detach(), (value >= target).detach(), done, int(used.sum(1).max()))


def _largest(standard: Tensor, used: Tensor, allowed: Tensor) -> Tensor:
    """Ones at the coordinates that may move: those moved before, then the largest others, as many as are allowed in all."""
    size = standard.abs() + used * standard.abs().amax(1, keepdim=True)  # those moved before come first
    places = size.argsort(1, descending=True).argsort(1)  # rank of each coordinate
    return (places < allowed[:, None]).to(standard)


def separation(drawn: Float[np.ndarray, " n"], edited: Float[np.ndarray, " m"]) -> float:
    """Accuracy of the closed-form discriminator of drawn and edited, at the strength that brings the mean nearest to the edited."""
    p = np.full(len(drawn), 1 / len(drawn))
    strengths = np.geomspace(0.01, 100, 81) * max(drawn.std(), 1e-12)
    found = [extrapolated(p, drawn, each) for each in strengths]
    best = int(np.argmin([abs(q @ drawn - edited.mean()) for q, _ in found]))
    real, fake = (discriminator(each, strengths[best], found[best][1]) for each in (drawn, edited))
    return float(((real > 0.5).mean() + (fake <= 0.5).mean()) / 2)


def _in_parts(function: Callable[[list[Tensor]], Tensor], blocks: Sequence[Tensor], size: int = 64) -> Tensor:
    parts = zip(*(each.split(size) for each in blocks), strict=True)
    return torch.cat([function(list(part)) for part in parts])
