"""Deep generative projection: a rough collage is drawn onto what a generator can make, three times with growing freedom.

Projection searches W+ for few steps, so that the collage's flaws are not copied; semantic search goes on with the piece as its
reference inside and the first result outside; pattern search keeps w and lets noise, late convolutions or to-RGB layers bring back
what no w says. What the last stage changed is an edit of the generator, which comes off again.

Paper: *Weakly Supervised High-Fidelity Clothing Model Generation* (DGP, CVPR 2022, arXiv:2112.07200), after its released
inference. Changed: the start is the nearest of random pictures in the place of an encoder, realism is the distance of w where there
is no discriminator, and there are no terms of VGG and clothing attributes; alignment is by thin plates, its code was never
released; kernels of masks are scaled to the size. Claims ``gan.projection.*`` of benchmarks/tune/projection.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from safetensors.torch import save as safetensors_bytes
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config, Flags
from photopic.core.edits import DenseDelta, Edit
from photopic.core.edits.file import save
from photopic.core.errors import DataError, DivergedError, ModelError
from photopic.core.events import Event, Steps
from photopic.core.files import write_atomically
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Note, Section, Table, View
from photopic.data.collage import Collage
from photopic.data.pictures import png_bytes
from photopic.data.pixels import to_pixels
from photopic.models.generator import Generator

STAGES = ("start", "projection", "semantic", "pattern")
OUTSIDE = 0.9  # weight of what is neither piece nor in front of it, as released
Realism = Callable[[Float[Tensor, "1 3 side side"]], Float[Tensor, " 1"]]


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig(Config):
    """How long each stage goes on, and with which freedom."""

    projection_steps: Annotated[int, Ge(0)] = 10  # steps of the first stage; many copy the collage's flaws
    semantic_steps: Annotated[int, Ge(0)] = 300  # steps of the second stage
    pattern_steps: Annotated[int, Ge(0)] = 300  # steps of the third stage
    # what the third stage changes: noise maps, convolutions of the two finest sizes with their to-RGB layers, or to-RGB layers
    pattern_params: Literal["noise", "late_convs", "torgb"] = "late_convs"
    lr: Annotated[float, Gt(0)] = 0.01  # size of a step of Adam, in each stage anew
    realism: Annotated[float, Ge(0)] = (
        0.01  # weight of how usual the picture is: a discriminator, or how far w is from its mean
    )
    draws: Annotated[int, Ge(1)] = 256  # random pictures of which the one nearest to the collage is the start
    seed: Annotated[int, Ge(0)] = 0  # seed of those


@dataclass(frozen=True, eq=False)
class Stages:
    """What each stage made.

    Attributes:
        pictures: By the names of ``STAGES``, in -1 to 1.
        w: W+ by the same names.
        changed: Tensors of the generator as pattern search left them, by name.
    """

    pictures: Mapping[str, Float[Tensor, "1 3 side side"]]
    w: Mapping[str, Float[Tensor, "1 layers width"]]
    changed: Mapping[str, Tensor]


def stages_view(report: Report) -> View:
    """The pictures beside each other, and the numbers of each stage."""
    header = ("stage", "error in the piece", "drift outside", "distance of w", "seam")
    keys = ("piece_error", "drift_outside", "w_distance", "seam")
    table = Table(header, [(row["stage"], *(f"{row[key]:.4f}" for key in keys)) for row in report.rows])
    folder = report.values["written"]
    note = Note(
        f"{folder}: stages.png has all beside each other; pattern.edit is what the last stage changed of the generator."
    )
    return View("Collage", [Section("", [table, note])])


PAPER = ProjectionConfig(semantic_steps=1000, pattern_steps=1500, pattern_params="noise", realism=1.0)


@method(
    paper="arXiv:2112.07200",
    claims="gan.projection.",
    presets={"paper": PAPER},
    command="tune collage",
    examples=(
        "Example: photopic tune collage collage.json --model emoji-gan -o out/",
        "Without pictures: photopic tune collage sprite-person:3 --model my-people -o out/",
    ),
    view=stages_view,
    page=False,
)
def projection(
    model: Annotated[Generator, Flags("--model", default="emoji-gan")],
    data: Annotated[Collage, Flags("COLLAGE")],
    *,
    output: Annotated[str, Flags("--output", "-o", "--out")],
    overwrite: bool = False,
    config: ProjectionConfig = ProjectionConfig(),
) -> Steps[Report]:
    """Make a rough collage whole by a generator: put this shirt on that figure (DGP).

    Args:
        model: A style-based generator of such pictures: a bundled name, or a folder.
        data: A picture with a piece laid on it.
        output: Folder for the pictures of all stages, the latents and the edit; made if missing.
        overwrite: Replace what is there.
        config: How long each stage goes on.

    Returns:
        Of each stage: error in the piece, drift outside since projection, distance of w from its mean, and the seam left.

    Raises:
        DataError: If something is there already.
        ModelError: If the collage is of another size than the generator's pictures, or nothing of it can be changed as asked.
        DivergedError: If a loss is no finite number.

    Example:
        >>> projection(model, collage, output="out").rows[-1]["stage"]  # doctest: +SKIP
        'pattern'
    """
    folder = Path(output)
    places = {name: folder / name for name in ("stages.png", "latents.safetensors", "pattern.edit")}
    for place in places.values():
        if place.exists() and not overwrite:
            raise DataError(
                f"{place}: expected a new name, found something there; choose another --output or add --overwrite"
            )
    found = yield from project(model, data, config)
    folder.mkdir(parents=True, exist_ok=True)
    shown = {"collage": data.pasted[None], **found.pictures}
    for name, picture in shown.items():
        write_atomically(folder / f"{name}.png", png_bytes(to_pixels(picture)[0]))
    write_atomically(
        places["stages.png"], png_bytes(np.concatenate(list(to_pixels(torch.cat(list(shown.values())))), 1))
    )
    write_atomically(
        places["latents.safetensors"], safetensors_bytes({key: each.cpu().clone() for key, each in found.w.items()})
    )
    if found.changed:
        save(edit_of(model, found), places["pattern.edit"])
    rows = tuple({"stage": name, **measured(model, data, found, name)} for name in STAGES)
    return Report("collage", {"written": str(folder), "inner_pixels": int(data.inner.sum())}, rows)


def project(
    model: Generator, collage: Collage, config: ProjectionConfig = ProjectionConfig(), *,
    start: Float[Tensor, "1 layers width"] | None = None, discriminator: Realism | None = None,
) -> Steps[Stages]:  # fmt: skip
    """The three stages.

    Args:
        model: The generator; it is never written to.
        collage: Of its size.
        config: How long each stage goes on.
        start: W+ to start from, such as an encoder's; None: of ``draws`` random pictures the nearest.
        discriminator: Logits of how real pictures look; None: realism is the distance of w from its mean.

    Raises:
        ModelError: If sizes differ, or the generator has nothing of what pattern search is to change.
        DivergedError: If a loss is no finite number.
    """
    side = model.resolution
    if collage.pasted.shape[-1] != side:
        raise ModelError(
            f"{model.name}: draws pictures of {side} pixels, found a collage of {collage.pasted.shape[-1]}; make it that size"
        )
    losses = Losses(model, collage, config, discriminator)
    names = pattern_names(model, config.pattern_params)
    w = start if start is not None else nearest(model, losses, config)
    w = w.detach().clone()
    found_w, pictures = {"start": w}, {"start": model.synthesize(w)}
    for stage, steps, loss in (
        ("projection", config.projection_steps, lambda w: losses.projection(model.synthesize(w), w)),
        ("semantic", config.semantic_steps, lambda w: losses.search(model.synthesize(w), w, pictures["projection"])),
    ):
        w = w.clone().requires_grad_()
        yield from _descended([w], partial_loss(loss, w), steps, config.lr, stage)
        w = w.detach()
        found_w[stage], pictures[stage] = w, model.synthesize(w)
    stored = model.parameters()
    weights = {name: stored[name].detach().clone().requires_grad_() for name in names}  # from what is stored, anew
    drawn = model.functional(weights)

    def of_patterns() -> Tensor:
        return losses.search(drawn(w), w, pictures["projection"])

    yield from _descended(list(weights.values()), of_patterns, config.pattern_steps, config.lr, "pattern")
    with torch.no_grad():
        pictures["pattern"], found_w["pattern"] = drawn(w), w
    changed = {name: each.detach() for name, each in weights.items() if not torch.equal(each, stored[name])}
    return Stages({name: each.detach() for name, each in pictures.items()}, found_w, changed)


def partial_loss(loss: Callable[[Tensor], Tensor], w: Tensor) -> Callable[[], Tensor]:
    """A loss at a w that changes in place."""
    return lambda: loss(w)


def _descended(tensors: list[Tensor], loss: Callable[[], Tensor], steps: int, lr: float, stage: str) -> Steps[None]:
    """Steps of a fresh Adam."""
    optimizer = torch.optim.Adam(tensors, lr=lr)
    for step in range(steps):
        value = loss()
        if not torch.isfinite(value):
            raise DivergedError(f"{stage} step {step + 1}: the loss is {value.item()}; lower lr")
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        yield Event(stage, step + 1, steps, {"loss": value.item()})


class Losses:
    """What the stages are led by. Means are over all pixels and channels, so that small regions weigh little, as released.

    Args:
        model: The generator.
        collage: What is wanted.
        config: Weights.
        discriminator: As ``project`` takes it.
    """

    def __init__(
        self, model: Generator, collage: Collage, config: ProjectionConfig, discriminator: Realism | None = None
    ):
        self.model, self.weight, self.discriminator = model, config.realism, discriminator
        self.wanted = collage.pasted[None].to(model.device, model.dtype)
        self.inner, self.front, residual = (
            each.to(self.wanted) for each in (collage.inner, collage.front, collage.residual)
        )
        self.keep = 1 - residual

    def terms(self, picture: Tensor, w: Tensor, first: Tensor | None = None) -> dict[str, Float[Tensor, ""]]:
        """Every term with its weight: of projection, or of the searches where its result is given."""
        found = {"realism": self.weight * self.realism(picture, w)}
        if first is None:
            return found | {"pixel": ((self.wanted - picture) * self.keep).square().mean()}
        inside, before = self.inner, self.front
        apart = (first - picture).square()
        return found | {
            "piece": (inside * (self.wanted - picture).square()).mean(),
            "outside": OUTSIDE * ((1 - before) * (1 - inside) * apart).mean(),
            "front": (before * apart).mean(),
        }

    def projection(self, picture: Tensor, w: Tensor) -> Float[Tensor, ""]:
        """Of the first stage: the collage, but for what has no valid target."""
        return sum(self.terms(picture, w).values(), picture.new_zeros(()))

    def search(self, picture: Tensor, w: Tensor, first: Tensor) -> Float[Tensor, ""]:
        """Of the second and third stage: the piece from the collage, all else from the first stage's picture."""
        return sum(self.terms(picture, w, first).values(), picture.new_zeros(()))

    def realism(self, picture: Tensor, w: Tensor) -> Float[Tensor, ""]:
        """softplus(-D(x)); without a discriminator the mean square of w in its standard deviations."""
        if self.discriminator is not None:
            return F.softplus(-self.discriminator(picture)).mean()
        return w_distance(self.model, w)


def w_distance(model: Generator, w: Float[Tensor, "n layers width"]) -> Float[Tensor, ""]:
    """Mean square of w less its mean, in standard deviations of each of its numbers: about 1 for what the mapping makes."""
    return ((w - model.mean_w) / model.std_w.clamp_min(1e-6)).square().mean()


@torch.no_grad()
def nearest(model: Generator, losses: Losses, config: ProjectionConfig) -> Float[Tensor, "1 layers width"]:
    """W+ of the random picture that is nearest to the collage where it says something: what an encoder would guess better."""
    w = model.map(model.sample_z(config.draws, config.seed))
    errors = torch.cat([
        ((losses.wanted - model.synthesize(part)) * losses.keep).square().mean((1, 2, 3)) for part in w.split(64)
    ])  # fmt: skip
    return model.in_layers(w[errors.argmin()][None]).clone()


def pattern_names(model: Generator, params: str) -> list[str]:
    """Tensors of the generator that pattern search changes.

    Raises:
        ModelError: If the generator has none.
    """
    layers = len(model.synthesis.convs)
    late = [
        f"synthesis.convs.{layer}.{part}" for layer in range(max(0, layers - 4), layers) for part in ("weight", "bias")
    ]
    colours = ["synthesis.to_rgb.*.weight", "synthesis.to_rgb.*.bias"]
    patterns = {"noise": ["synthesis.convs.*.noise"], "late_convs": late + colours, "torgb": colours}[params]
    found = [name for name in model.parameters() if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not found:
        raise ModelError(f"{model.name}: has no {params} to search patterns in; choose another pattern_params")
    return found


def edit_of(model: Generator, found: Stages) -> Edit:
    """What pattern search changed, as an edit that draws the last picture from the last w."""
    stored = model.parameters()
    return Edit(
        (DenseDelta({name: each - stored[name] for name, each in found.changed.items()}),),
        model.fingerprint(*found.changed),
    )


@torch.no_grad()
def measured(model: Generator, collage: Collage, found: Stages, stage: str) -> dict[str, float]:
    """Numbers of a stage: mean squared error in the piece, drift outside since projection, distance of w, and the seam.

    The seam is the mean step across the piece's outline, of the picture over that of the collage.
    """
    picture, wanted = found.pictures[stage].cpu(), collage.pasted[None].to(found.pictures[stage].dtype)
    inner, outside = collage.inner, ~(collage.inner | collage.front | collage.residual)
    first = found.pictures["projection"].cpu()
    drift = ((picture - first).square().mean(1) * outside).sum() / outside.sum().clamp_min(1)
    return {
        "piece_error": float(((picture - wanted).square().mean(1) * inner).sum() / inner.sum()),
        "drift_outside": float(drift),
        "w_distance": float(w_distance(model, found.w[stage])),
        "seam": float(seam(picture, inner) / seam(wanted, inner).clamp_min(1e-6)),
    }


def seam(picture: Float[Tensor, "n 3 side side"], inner: Tensor) -> Float[Tensor, ""]:
    """Mean absolute step between neighbours of which one lies inside a mask and the other does not.

    Example:
        >>> half = torch.arange(4) < 2
        >>> seam(half.float().expand(1, 3, 4, 4), half.expand(4, 4)).item()
        1.0
    """
    total, count = picture.new_zeros(()), 0
    for axis in (-2, -1):
        steps = picture.diff(dim=axis).abs().mean(1)  # (n, side - 1, side) or (n, side, side - 1)
        crosses = inner.int().diff(dim=axis) != 0
        total, count = total + (steps * crosses).sum() / len(picture), count + int(crosses.sum())
    return total / max(count, 1)
