"""Find the latents that draw a picture of one's own, and then the small change of the generator that draws the rest of it.

The search is in W+, from what an encoder reads off the picture, or from the mean; pivotal tuning then keeps the latents and changes
the synthesis's weights, while pictures of other latents are held where they were. Both come back as one edit: with it in force the
generator's mean picture (truncation 0) is the given one, directions go on from there, and taking it off gives every byte back.

Papers: *Image2StyleGAN* (arXiv:1904.03189) for W+, *Pivotal Tuning for Latent-based Editing of Real Images* (arXiv:2106.05744).
Changed: differences at four sizes in the place of LPIPS; pictures between the found one and random ones are held, at half the way.
Claims ``gan.inversion.*`` of benchmarks/models/generator.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config, Existing, Flags
from photopic.core.edits import DenseDelta, Edit, SteeringVector
from photopic.core.errors import DivergedError, ModelError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.view import Section, Table, View
from photopic.data.folder import load_picture
from photopic.models.generator import Generator

TUNED = ("synthesis.convs.*.weight", "synthesis.convs.*.bias", "synthesis.to_rgb.*.weight", "synthesis.to_rgb.*.bias")
SEEN = 64  # pictures of other latents, on which drift is measured


@dataclass(frozen=True, kw_only=True)
class InversionConfig(Config):
    """How long to search, and how freely."""

    start: Literal["encoder", "mean"] = "encoder"  # what an encoder reads, where the model has one; else the mean of w
    steps: Annotated[int, Ge(0)] = 300  # steps of the search for latents
    lr: Annotated[float, Gt(0)] = 0.1  # size of its steps, in standard deviations of w
    usual: Annotated[float, Ge(0)] = 0.001  # weight of how far latents lie from the mean, in squared deviations
    tuning_steps: Annotated[int, Ge(0)] = 150  # steps of pivotal tuning; 0 leaves the generator as it is
    tuning_lr: Annotated[float, Gt(0)] = 3e-3  # size of its steps
    held: Annotated[float, Ge(0)] = 1.0  # weight of how much pictures of other latents change while tuning
    seed: Annotated[int, Ge(0)] = 0  # seed of those pictures


class Inverted(NamedTuple):
    """What was found.

    Attributes:
        w: The latents of each picture, one for each layer.
        deltas: What tuning adds to the weights, by name.
        errors: Mean squared errors of the pictures, -1 to 1, at the ``start``, after the ``search`` and after ``tuning``; and
            ``drift``, the mean squared change of other pictures by the tuning.
    """

    w: Float[Tensor, "n layers d"]
    deltas: dict[str, Tensor]
    errors: dict[str, float]


def inverted(model: Generator, target: Float[Tensor, "n 3 side side"], config: InversionConfig) -> Steps[Inverted]:
    """Search for each picture, then tune for all of them; events carry the error so far.

    Raises:
        DivergedError: If a loss is no number.
        ModelError: If the picture is not of the generator's size.
    """
    if target.shape[1:] != (3, model.resolution, model.resolution):
        raise ModelError(
            f"{model.name}: expected pictures of (n, 3, {model.resolution}, {model.resolution}), found {tuple(target.shape)}"
        )
    target, scale = target.to(model.device, model.dtype), model.std_w.clamp_min(1e-6)
    with torch.no_grad():
        read = config.start == "encoder" and model.encoder is not None
        start = (
            model.map(model.encoder(target)[0])
            if read and model.encoder is not None
            else model.mean_w.expand(len(target), -1)
        )
        start = model.in_layers(start).clone()
        errors = {"start": float(F.mse_loss(model.synthesize(start), target))}
    moved = torch.zeros_like(start).requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=config.lr)
    for step in range(config.steps):
        w = start + moved * scale
        drawn = model.synthesize(w)
        loss = at_sizes(drawn - target) + config.usual * ((w - model.mean_w) / scale).square().mean()
        _descend(optimizer, loss, config.lr, step, config.steps)
        yield Event("searching", step + 1, config.steps, {"loss": loss.item(), "error": _mse(drawn, target)})
    w = (start + moved * scale).detach()
    with torch.no_grad():
        errors["search"] = _mse(model.synthesize(w), target)
    deltas = yield from _tuned(model, w, target, config)
    with torch.no_grad():
        tuned = model.functional({name: value + deltas[name] for name, value in model.parameters(*deltas).items()})
        errors["tuning"] = _mse(tuned(w), target)
        others = model.in_layers(model.map(model.sample_z(SEEN, config.seed + 1)))
        errors["drift"] = _mse(tuned(others), model.synthesize(others))
    return Inverted(w, deltas, errors)


def _tuned(model: Generator, w: Tensor, target: Tensor, config: InversionConfig) -> Steps[dict[str, Tensor]]:
    """What is added to the weights."""
    base = {name: value.detach() for name, value in model.parameters(*TUNED).items()}
    added = {name: torch.zeros_like(value).requires_grad_() for name, value in base.items()}
    optimizer = torch.optim.Adam(added.values(), lr=config.tuning_lr)
    for step in range(config.tuning_steps):
        draw = model.functional({name: value + added[name] for name, value in base.items()})
        other = torch.lerp(
            w[step % len(w), None], model.in_layers(model.map(model.sample_z(1, config.seed, start=step))), 0.5
        )
        with torch.no_grad():
            before = model.synthesize(other)
        both = draw(torch.cat([w, other]))
        loss = at_sizes(both[:-1] - target) + config.held * at_sizes(both[-1:] - before)
        _descend(optimizer, loss, config.tuning_lr, step, config.tuning_steps)
        yield Event("tuning", step + 1, config.tuning_steps, {"loss": loss.item(), "error": _mse(both[:-1], target)})
    return {name: value.detach() for name, value in added.items()}


def at_sizes(off: Float[Tensor, "n 3 side side"]) -> Float[Tensor, ""]:
    """Mean squared differences of pictures, and of their means over 2, 4 and 8 pixels, summed."""
    sizes = [k for k in (1, 2, 4, 8) if k <= off.shape[-1]]
    return torch.stack([F.avg_pool2d(off, k).square().mean() for k in sizes]).sum()


def _mse(one: Tensor, other: Tensor) -> float:
    return float(F.mse_loss(one.detach(), other))


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float, step: int, steps: int) -> None:
    """One step; the rate falls over the last half."""
    if not torch.isfinite(loss):
        raise DivergedError(f"step {step + 1}: the loss is {loss.item()}; lower the rate")
    optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (steps - step) / steps)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def inversion_view(edit: Edit) -> View:
    """How near it came."""
    errors = edit.provenance["errors"]
    words = {"start": "at the start", "search": "after the search for latents", "tuning": "after tuning the generator"}
    rows = [[said, f"{errors[name]:.4f}"] for name, said in words.items()]
    rows.append(["change of other pictures by the tuning", f"{errors['drift']:.4f}"])
    return View("A picture's latents", [Section("", [Table(["mean squared error, of -1 to 1", ""], rows)])])


@method(
    paper="arXiv:2106.05744",
    claims="gan.inversion.",
    command="tune invert",
    view=inversion_view,
    examples=("Example: photopic tune invert face.png -o face.edit",),
    after=(
        "Draw it: photopic generate --model {model} --with {output} --truncation 0 -o out/; 0.3 draws others like it",
    ),
)
def inversion(
    model: Generator,
    picture: Annotated[str, Flags("PICTURE"), Existing()],
    *,
    config: InversionConfig = InversionConfig(),
) -> Steps[Edit]:
    """Find the latents of a picture, and what the generator lacks to draw it, as one edit of its mean picture.

    Args:
        model: A style-based generator.
        picture: A picture; its central square is used at the generator's size.
        config: How long to search, and how freely.

    Returns:
        An edit after which truncation 0 draws the picture; its provenance has the errors.

    Raises:
        DataError: If the picture cannot be read.
        DivergedError: If a loss is no number.

    Example:
        >>> edit = inversion(model, "face.png")  # doctest: +SKIP
        >>> with model.edits.applied(edit):  # doctest: +SKIP
        ...     model.generate(1, truncation=0.0)
    """
    pixels = torch.tensor(load_picture(picture, model.resolution)).permute(2, 0, 1)[None].float() / 127.5 - 1
    found = yield from inverted(model, pixels, config)
    offsets = {f"synthesis.style.{layer}": (row - model.mean_w).cpu() for layer, row in enumerate(found.w[0])}
    deltas = {name: value.cpu() for name, value in found.deltas.items()} if config.tuning_steps else {}
    parts = (SteeringVector(offsets), *((DenseDelta(deltas),) if deltas else ()))
    return Edit(parts, model.fingerprint(*deltas), {"errors": {name: round(e, 6) for name, e in found.errors.items()}})
