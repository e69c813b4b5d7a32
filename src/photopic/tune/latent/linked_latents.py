"""Tie some numbers of a generator's w to a region of its picture: moving them changes the region alone, moving the others spares
it.

A regulariser every few steps moves the linked numbers, then all others, and penalises what changes on the wrong side. A
discriminator learns meanwhile to tell real pictures from the generator's, those with moved numbers among them.

Paper: *LinkGAN: Linking GAN Latents to Pixels for Controllable Image Synthesis* (ICCV 2023, arXiv:2301.04604). Changed: the
pictures of the base generator are the real ones, so no data is needed, and those of the same latents are kept by mean squares
beside the adversarial loss; the perturbation follows the running standard deviation of each number of w, because with a fixed one
w grows until the perturbation is nothing; losses are means by area. The paper's own weights were in a supplement that was not at
hand. Claims ``gan.linked.*`` of benchmarks/tune/latents.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config, Flags
from photopic.core.edits import Edit
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.core.view import Section, Table, View
from photopic.data.picture_region import region_mask
from photopic.learning.trained_weights import learnt_edit
from photopic.metrics.locality import Change, change_within
from photopic.models.generator import Generator
from photopic.models.style_critics import Discriminator

MOMENTUM = 0.95  # of the running standard deviation of w
R1_EVERY = 16  # steps from one look at the gradient at real pictures to the next; it counts so many times
CRITIC_RATE = 2e-3  # size of a step of the discriminator
MEASURED = 64  # pictures that are measured before and after
Pairs = Callable[[int], tuple[Float[Tensor, "batch z"], Float[Tensor, "batch channels rows columns"]]]


@dataclass(frozen=True, kw_only=True)
class LinkedLatentsConfig(Config):
    """How to learn."""

    axes: Annotated[int, Ge(1)] = 16  # numbers of w linked to each region, the first to the first region and so on
    weight: Annotated[float, Ge(0)] = 1.0  # of the link; 0 goes on training without a link
    adversary: Annotated[float, Ge(0)] = 1.0  # of the adversarial loss; 0 learns without a discriminator
    likeness: Annotated[float, Ge(0)] = 1.0  # of mean squares to what the base draws of the same latents
    reach: Annotated[float, Ge(0)] = (
        1.0  # how far w is moved to see what changes, in standard deviations of each number
    )
    every: Annotated[int, Ge(1)] = 8  # steps from one look at the link to the next; its gradient counts so many times
    steps: Annotated[int, Ge(1)] = 1200  # steps of learning
    batch: Annotated[int, Ge(2)] = 16  # pictures a step
    lr: Annotated[float, Gt(0)] = 1.5e-2  # size of the first step of Adam; it falls along a half cosine
    r1: Annotated[float, Ge(0)] = 10.0  # weight of the squared gradient of the discriminator at real pictures
    warm: Annotated[int, Ge(1)] = 100  # steps over which the adversarial loss rises, while the discriminator learns
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


@dataclass(frozen=True, eq=False)
class Link:
    """Numbers of w and the pixels they are for.

    Attributes:
        first: The first of the numbers.
        count: How many.
        mask: The pixels.
    """

    first: int
    count: int
    mask: Bool[Tensor, "rows columns"]

    def axes(self, width: int) -> Bool[Tensor, "latent"]:
        """Which numbers are linked."""
        places = torch.arange(width, device=self.mask.device)
        return (places >= self.first) & (places < self.first + self.count)


def linked_view(edit: Edit) -> View:
    """What moved where, before and after."""
    rows = [
        [each["region"], f"{each['first']} to {each['first'] + each['count'] - 1}", when,
         *(f"{each[when][name]:.4f}" for name in ("linked_inside", "linked_outside", "others_inside", "others_outside"))]
        for each in edit.provenance["links"] for when in ("before", "after")
    ]  # fmt: skip
    head = ["region", "numbers of w", "", "linked: inside", "linked: outside", "others: inside", "others: outside"]
    return View(
        "Linked latents",
        [Section("", [Table(head, rows, "Mean squared change by area, a group taken from another sample")])],
    )


@method(
    paper="arXiv:2301.04604",
    claims="gan.linked.",
    command="tune linked",
    examples=(
        "Example: photopic tune linked --region 0.2,0.3,0.8,0.5 -o linked.edit",
        "Two regions: photopic tune linked --region 0,0,0.5,0.5 --region 0.5,0.5,1,1 -o corners.edit",
    ),
    view=linked_view,
    after=("next: photopic edit reroll {output} -o rerolled.html",),
)
def linked_latents(
    model: Generator,
    *,
    regions: Annotated[Sequence[str], Flags("--region")],
    config: LinkedLatentsConfig = LinkedLatentsConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Teach a generator to keep the first numbers of w for a region, so that the region alone can be drawn again.

    Args:
        model: A generator: a bundled name, or a folder. Its noise is the stored one.
        regions: left,top,right,bottom as fractions of the picture, or a mask picture that is light inside; several that are
            disjoint.
        config: How to learn.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        What was added to the weights; provenance holds ``links`` with the numbers of w of each region, and what moved before and
        after.

    Raises:
        DataError: If a region is empty or the whole picture, two overlap, or w has too few numbers.

    Example:
        >>> linked_latents(model, regions=["0,0,0.5,0.5"]).provenance["links"][0]["count"]  # doctest: +SKIP
        16
    """
    links = links_of(model, regions, config.axes)
    before = [moved(model, link, config.seed) for link in links]

    def pairs(step: int) -> tuple[Tensor, Tensor]:
        z = model.sample_z(config.batch, config.seed, start=MEASURED + step * config.batch)
        with torch.no_grad():
            return z, model.synthesize(model.map(z))

    learner = LinkTuning(model, links, config, pairs)
    yield from fit(learner, config.steps, run=run)
    after = [moved(learner.copy, link, config.seed) for link in links]
    found = []
    for region, link, *both in zip(regions, links, before, after, strict=True):
        found.append({"region": region, "first": link.first, "count": link.count, "before": both[0], "after": both[1]})
        if both[1]["linked_inside"] < both[0]["linked_inside"] / 2:
            yield Event(
                "measuring",
                warning=f"region {region}: its numbers of w went silent: they move it less than half of before",
            )
    return learnt_edit(model, learner.tensors, {"links": found, "likeness": learner.likeness})


def links_of(model: Generator, regions: Sequence[str], axes: int) -> list[Link]:
    """Consecutive numbers of w for each region.

    Raises:
        DataError: As ``linked_latents``.
    """
    masks = [torch.from_numpy(region_mask(each, model.resolution)).to(model.device) for each in regions]
    if not masks or torch.stack(masks).sum(0).max() > 1:
        what = "regions that share pixels; move them apart" if masks else "none"
        raise DataError(f"--region: expected one or several apart from each other, found {what}")
    if axes * len(masks) >= model.config.w_width:
        raise DataError(
            f"axes: expected fewer than {model.config.w_width} numbers of w, found {axes} for each of {len(masks)}; lower axes"
        )
    return [Link(index * axes, axes, mask) for index, mask in enumerate(masks)]


def perturbed(
    synthesize: Callable[[Tensor], Tensor],
    w: Float[Tensor, "batch latent"],
    link: Link,
    shift: Float[Tensor, "batch latent"],
) -> tuple[Float[Tensor, "batch channels rows columns"], Float[Tensor, "batch channels rows columns"]]:
    """Pictures where the linked numbers alone, and where all others alone, are moved by a shift."""
    axes = link.axes(w.shape[1])
    return synthesize(w + shift * axes), synthesize(w + shift * ~axes)


def link_losses(
    pictures: Float[Tensor, "batch channels rows columns"],
    by_linked: Float[Tensor, "batch channels rows columns"],
    by_others: Float[Tensor, "batch channels rows columns"],
    mask: Bool[Tensor, "rows columns"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean squares of what moves on the wrong side: the region by the others' shift, the rest by that of the linked numbers.

    Args:
        pictures: Before.
        by_linked: With the linked numbers moved.
        by_others: With all others moved.
        mask: The region.

    Example:
        >>> before, mask = torch.zeros(1, 3, 2, 2), torch.tensor([[True, False], [False, False]])
        >>> [part.item() for part in link_losses(before, before + mask, before + ~mask, mask)]
        [0.0, 0.0]
    """
    channels = pictures.shape[0] * pictures.shape[1]
    inner = ((by_others - pictures).square() * mask).sum() / (mask.sum() * channels)  # L_i
    outer = ((by_linked - pictures).square() * ~mask).sum() / ((~mask).sum() * channels)  # L_i^c
    return inner, outer


class LinkTuning(OptimizedTensors):
    """A learner of both networks of a generator, against a discriminator: the generator's own, or a new one.

    Args:
        model: Stays as it is; a copy is learnt.
        links: What is linked.
        config: How.
        pairs: Latents, and real pictures that they shall draw, of a step.
    """

    def __init__(self, model: Generator, links: Sequence[Link], config: LinkedLatentsConfig, pairs: Pairs):
        self.links, self.config, self.pairs, self.looks, self.likeness = links, config, pairs, 0, 0.0
        self.copy = replace(model, mapping=deepcopy(model.mapping), synthesis=deepcopy(model.synthesis))
        tensors = {
            f"{part}.{name}": each.requires_grad_()
            for part, network in self.copy.components.items()
            for name, each in network.named_parameters()
        }
        self.spread = model.std_w.clone()  # running standard deviation of each number of w
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            critic = deepcopy(model.discriminator) or Discriminator(model.config)
        self.critic = critic.to(model.device).requires_grad_()
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), CRITIC_RATE, (0.0, 0.99))
        optimizer = torch.optim.Adam(tensors.values(), config.lr, (0.0, 0.99))
        super().__init__(tensors, optimizer, lambda step: config.lr * (1 + math.cos(math.pi * step / config.steps)) / 2)

    def step(self, step: int) -> Mapping[str, float]:
        """One step towards the pictures and against the discriminator, every few of them towards the links; then the latter's."""
        config = self.config
        z, wanted = self.pairs(step)
        w = self.copy.map(z)
        pictures = self.copy.synthesize(w)
        likeness, fakes = (pictures - wanted).square().mean(), [pictures]
        self.spread = MOMENTUM * self.spread + (1 - MOMENTUM) * w.detach().std(0)
        loss, numbers = config.likeness * likeness, {"likeness": likeness.item()}
        if (step + 1) % config.every == 0 and config.weight:
            parts, moved_pictures = self.link_parts(w, pictures, step)
            fakes += moved_pictures
            loss = loss + config.every * config.weight * torch.stack([part for each in parts for part in each]).sum()
            numbers |= {
                "leak_in": parts[0][0].item(),
                "leak_out": parts[0][1].item(),
                "spread": self.spread.mean().item(),
            }
            self.looks += 1
        if config.adversary:
            self.critic.requires_grad_(False)
            fooled = F.softplus(-self.critic(torch.cat(fakes))).mean()
            self.critic.requires_grad_()
            loss = loss + config.adversary * min(1.0, (step + 1) / config.warm) * fooled
            numbers["fooled"] = fooled.item()
        self.update(loss, step=step)
        if config.adversary:
            numbers["discriminator"] = self.judge(wanted, torch.cat(fakes).detach(), step)
        self.likeness = likeness.item()
        self.copy.__dict__.pop("_w_moments", None)  # of other weights now
        return {"loss": loss.item()} | numbers

    def judge(self, real: Tensor, fakes: Tensor, step: int) -> float:
        """One step of the discriminator, with the squared gradient at real pictures (R1) every few of them."""
        lazy = step % R1_EVERY == 0 and self.config.r1 > 0
        real = real.detach().requires_grad_(lazy)
        said = self.critic(real)
        loss = told = F.softplus(-said).mean() + F.softplus(self.critic(fakes)).mean()
        if lazy:
            (slope,) = torch.autograd.grad(said.sum(), real, create_graph=True)
            loss = told + R1_EVERY * self.config.r1 / 2 * slope.square().sum((1, 2, 3)).mean()
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()
        return told.item()

    def link_parts(self, w: Tensor, pictures: Tensor, step: int) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """The two losses of each link, and the pictures with moved numbers."""
        draw = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        losses, seen = [], []  # type: list[tuple[Tensor, Tensor]], list[Tensor]
        for link in self.links:
            shift = torch.randn(w.shape, generator=draw).to(w) * self.spread * self.config.reach
            both = perturbed(self.copy.synthesize, w, link, shift)
            losses.append(link_losses(pictures, *both, link.mask))
            seen += both
        return losses, seen

    def state(self) -> dict[str, Tensor]:
        critic = {f"critic.{name}": each for name, each in self.critic.state_dict().items()}
        return (
            super().state() | critic | optimizer_tensors(self.critic_optimizer, "of_critic.") | {"spread": self.spread}
        )

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.critic.load_state_dict({name: state[f"critic.{name}"] for name in self.critic.state_dict()})
        load_optimizer(self.critic_optimizer, state, "of_critic.")
        self.spread = state["spread"].to(self.spread)


@torch.no_grad()
def moved(model: Generator, link: Link, seed: int, count: int = MEASURED) -> dict[str, float]:
    """Mean squared changes by area where the linked numbers, or all others, are taken from another sample."""
    w = model.map(model.sample_z(2 * count, seed))
    one, other = w[:count], w[count:]
    axes, before = link.axes(w.shape[1]), model.synthesize(one)
    found: dict[str, Change] = {
        "linked": change_within(before, model.synthesize(torch.where(axes, other, one)), link.mask),
        "others": change_within(before, model.synthesize(torch.where(axes, one, other)), link.mask),
    }
    return {f"{name}_{side}": getattr(each, side) for name, each in found.items() for side in ("inside", "outside")}
