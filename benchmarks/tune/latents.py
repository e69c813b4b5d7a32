"""Do linked latents keep a region to themselves, and does extrapolation of one factor spare the others?

    python -m benchmarks linked-latents      # writes benchmarks/results/linked-latents.json
    python -m benchmarks extrapolation       # writes benchmarks/results/extrapolation.json

Generators fitted to the CORR faces, seeds 0 to 2 (``benchmarks/gan/_worlds.py``); intervals are Student's t over the generators.

Linking goes on training for 1,200 steps, against a discriminator that begins with nothing (weight 1) and to draw the fitted
pictures (weight 1): with the link (weight 1, every eighth step, eightfold), without (weight 0), and with two regions. Rate and
steps were set on the INDEP generator of seed 0. Moved pictures are those of z drawn anew, not of the fitted ones.

Extrapolation pushes the face's brightness, whose upper 20 % no generator saw, to one standard deviation beyond the brightest face
fitted. The knowledge and, apart from it, the judge of all factors are small networks of different seeds, trained on INDEP faces
of all brightnesses. Methods: ours; all style coordinates at once; the full gradient in w; control: a random direction of styles,
as long as ours. Drift of a factor is the mean absolute change that the judge sees, over pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from benchmarks.gan._worlds import SIDE, Fitted, World, errors, fitted, write_rows
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.core.fit import fit as steps_of
from photopic.data.gan_worlds import faces
from photopic.edit.reroll import rerolled
from photopic.metrics.intervals import student
from photopic.models.generator import Generator
from photopic.tune.latent.knowledge_extrapolation import descend
from photopic.tune.latent.linked_latents import Link, LinkedLatentsConfig, LinkTuning, moved

LINKED = (
    Claim("gan.linked.r", ">= 6", "R (change inside over outside, by area) of resampling the linked numbers; baseline before"),
    Claim("gan.linked.r_gain", ">= 10", "the same over that before"),
    Claim("gan.linked.leak", "<= 0.35", "change inside by the other numbers, over that before; control without a link"),
    Claim("gan.linked.inside_change", ">= 1", "change inside by the linked numbers, over that before: below 1 they went silent"),
    Claim("gan.linked.error_change", "<= 1.15", "error of the fitted pictures, over that of the same training without a link"),
    Claim("gan.linked.two_regions_*", ">= 4", "R of each of two regions linked at once"),
)  # fmt: skip
EXTRAPOLATION = (
    Claim("gan.extrapolation.reach", ">= 0.8", "share of pictures brought one standard deviation beyond the brightest face"),
    Claim("gan.extrapolation.drift_vs_w", "<= 0.5", "drift over the full gradient's in w: three of four factors are below"),
    Claim("gan.extrapolation.drift_vs_dense", "<= 1", "the same over that of all style coordinates at once"),
    Claim("gan.extrapolation.second_opinion", ">= 0.8", "correlation of the judge's brightness with the knowledge"),
    Claim("gan.extrapolation.coordinates", "", "style coordinates moved, mean over pictures; baseline all there are"),
    Claim("gan.extrapolation.drift_*", "", "drift of one factor, in its own standard deviations; baseline the full gradient in w"),
)  # fmt: skip
FACTORS = ("face", "background", "eyes", "mouth", "smile")  # the first is pushed, the four others are watched
METHODS = ("ours", "dense", "w", "random")


@dataclass(frozen=True)
class LatentsConfig(Config):
    """How much is measured."""

    seeds: Annotated[int, Ge(1)] = 3  # generators
    steps: Annotated[int, Ge(1)] = 2600  # of fitting each
    tuning: Annotated[int, Ge(1)] = 1200  # steps of linking
    samples: Annotated[int, Ge(2)] = 32  # pictures extrapolated


@dataclass(frozen=True)
class Case:
    """One training or extrapolation of one generator."""

    world: World
    kind: str
    size: int


def over_seeds(values: Sequence[float]) -> Any:
    """Mean and t interval over generators, or the value of one alone."""
    return student(list(values)) if len(values) > 1 else values[0]


def box(found: Fitted, region: str) -> Tensor:
    """The bounding box of where a region is in one scene of twenty or more."""
    often = found.scenes.masks[region].float().mean(0) > 0.05
    rows, columns = often.any(1).nonzero()[:, 0], often.any(0).nonzero()[:, 0]
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1] = True
    return mask


def linked_model(case: Case) -> tuple[LinkTuning, Fitted]:
    """A generator trained one way."""
    found = fitted(case.world)
    eyes, mouth = box(found, "eyes"), box(found, "mouth")
    mouth = mouth & ~eyes
    links = [Link(0, 16, eyes)] + ([Link(16, 16, mouth)] if case.kind == "two" else [])
    seed = case.world.seed
    config = LinkedLatentsConfig(steps=case.size, weight=0.0 if case.kind == "plain" else 1.0, seed=seed)
    wanted = found.scenes.pictures[found.used]

    def pairs(step: int) -> tuple[Tensor, Tensor]:
        places = torch.from_numpy(np.random.default_rng((seed, step)).integers(len(wanted), size=config.batch))
        return found.z[places], wanted[places]

    learner = LinkTuning(found.model, links, config, pairs)
    finished(steps_of(learner, config.steps))
    return learner, found


def linking(bench: Bench[LatentsConfig, Any], case: Case) -> dict[str, Any]:
    """Train one way; what moves where, before and after, and the error of the fitted pictures."""
    learner, found = linked_model(case)
    links, wanted, measured = learner.links, found.scenes.pictures[found.used], 77 + case.world.seed
    bench.array({"rerolls": case}, lambda: rerolls(learner.copy))
    return {
        "before": [moved(found.model, link, measured) for link in links],
        "after": [moved(learner.copy, link, measured) for link in links],
        "error": float(errors(learner.copy, found.z, wanted).mean()),
        "first_error": found.error,
        "spread": float(learner.spread.mean() / found.model.std_w.mean()),
    }


def linking_cases(config: LatentsConfig) -> list[Case]:
    """Every way of every generator."""
    return [
        Case(World(seed=seed, steps=config.steps), kind, config.tuning)
        for seed in range(config.seeds)
        for kind in ("linked", "plain", "two")
    ]


@torch.no_grad()
def rerolls(model: Generator) -> np.ndarray:
    """Three pictures, each with its linked numbers drawn again and then with all others drawn again: (6, 7, 3, h, w)."""
    w = model.map(model.sample_z(9, seed=500))
    strips = []
    for one in w[:3].split(1):
        for again in (rerolled(one.expand(6, -1), w[3:], 0, 16), rerolled(w[3:], one.expand(6, -1), 0, 16)):
            strips.append(model.synthesize(torch.cat([one, again])))
    return torch.stack(strips).numpy()


def linking_sheet(bench: Bench[LatentsConfig, Any], rows: Sequence[Row]) -> None:
    """docs/images/gan-linked.png: what ``rerolls`` kept of the first generator."""
    strips = torch.from_numpy(bench.array({"rerolls": linking_cases(bench.config)[0]}, lambda: np.zeros(0)))
    write_rows("gan-linked.png", list(zip(("eyes again", "the rest again") * 3, strips, strict=True)))


def linking_rows(bench: Bench[LatentsConfig, Any]) -> Iterator[Row]:
    """All claims of linked latents."""
    found: dict[str, list[Any]] = {}
    for case in linking_cases(bench.config):
        found.setdefault(case.kind, []).append(bench.found(case))
    linked, plain, two = found["linked"], found["plain"], found["two"]

    def r(one: Any, when: str = "after", link: int = 0) -> float:
        return float(one[when][link]["linked_inside"] / one[when][link]["linked_outside"])

    def change(one: Any, what: str) -> float:
        return float(one["after"][0][what] / one["before"][0][what])

    n = len(linked)
    spread = np.mean([one["spread"] for one in linked])
    base, without = float(np.mean([r(one, "before") for one in linked])), float(np.mean([r(one) for one in plain]))
    note = f"w's spread grew {spread:.2f} times"
    yield row("gan.linked.r", over_seeds([r(one) for one in linked]), n=n, baseline=base, control=without, note=note)
    control = float(np.mean([r(one) / r(one, "before") for one in plain]))
    yield row("gan.linked.r_gain", over_seeds([r(one) / r(one, "before") for one in linked]), n=n, control=control)
    for name, what in (("leak", "others_inside"), ("inside_change", "linked_inside")):
        control = float(np.mean([change(one, what) for one in plain]))
        yield row(f"gan.linked.{name}", over_seeds([change(one, what) for one in linked]), n=n, control=control)
    worse = [one["error"] / other["error"] for one, other in zip(linked, plain, strict=True)]
    note = f"error {np.mean([one['error'] for one in linked]):.4f}"
    yield row("gan.linked.error_change", over_seeds(worse), n=n, note=note)
    for link, name in enumerate(("eyes", "mouth")):
        beside = float(np.mean([r(one, "before", link) for one in two]))
        yield row(
            f"gan.linked.two_regions_{name}", over_seeds([r(one, "after", link) for one in two]), n=n, baseline=beside
        )


@cache
def reader(seed: int, steps: int = 700) -> nn.Module:
    """A network that reads the factors of pictures, trained on INDEP faces; different seeds see different faces."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(), nn.Conv2d(48, 64, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 16, 96), nn.ReLU(), nn.Linear(96, len(FACTORS)),
    )  # fmt: skip
    scenes = faces(3000, seed=5000 + seed, size=SIDE)
    truth, draw = true_factors(scenes.factors), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        places = torch.randint(len(truth), (64,), generator=draw)
        loss = (network(scenes.pictures[places]) - truth[places]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


def true_factors(factors: Any) -> Tensor:
    """(n, factors): brightness of colours, numbers as they are, each over its standard deviation."""
    columns = [factors[name] if factors[name].ndim == 1 else factors[name].mean(1) for name in FACTORS]
    scale = torch.tensor([0.3, 0.3, 0.22, 0.22, 0.087])  # uniform colours of -0.9 to 0.9, and their mixtures; smiles
    return torch.stack(columns, 1) / scale


def extrapolating(bench: Bench[LatentsConfig, Any], case: Case) -> dict[str, Any]:
    """Push the brightness of the face in pictures of one generator by every method."""
    found = fitted(case.world)
    model, seed = found.model, case.world.seed
    knows, judges = reader(0), reader(1)
    truth = true_factors(found.scenes.factors)[found.used][:, 0]
    target = float(truth.max() + truth.std())

    def knowledge(pictures: Tensor) -> Tensor:
        result: Tensor = knows(pictures)[:, 0]
        return result

    z = model.sample_z(512, seed=300 + seed)
    with torch.no_grad():
        w = model.map(z)
        styles = model.styles(w)
        below = (knowledge(model.synthesize(w)) <= float(truth.max())).nonzero()[: case.size, 0]
        before = model.synthesize(w[below])
    start, spreads = [each[below] for each in styles], [each.std(0) for each in styles]
    draw = model.synthesize_styles
    runs = {
        "ours": descend(knowledge, draw, start, spreads, target, most=32),
        "dense": descend(knowledge, draw, start, spreads, target, most=None),
        "w": descend(knowledge, lambda each: model.synthesize(each[0]), [w[below]], [model.std_w], target, most=None),
    }
    standard = torch.cat(spreads)
    any_way = torch.randn(runs["ours"].moved.shape, generator=torch.Generator().manual_seed(seed))
    lengths = (runs["ours"].moved / standard.clamp(min=1e-12)).norm(dim=1, keepdim=True)
    moves = {name: each.moved for name, each in runs.items()}
    moves["random"] = any_way / any_way.norm(dim=1, keepdim=True) * lengths * standard
    result: dict[str, Any] = {"target": target, "largest": float(truth.max()), "wide": len(standard)}
    with torch.no_grad():
        was, known = judges(before), knowledge(before)
        for name, move in moves.items():
            if name == "w":
                after = model.synthesize(w[below] + move)
            else:
                after = draw(
                    [a + b for a, b in zip(start, move.split([each.shape[1] for each in start], 1), strict=True)]
                )
            value, seen = knowledge(after), judges(after)
            result[name] = {
                "reach": float((value >= target - 1e-6).float().mean()),
                "value": float(value.mean()),
                "judged": float(seen[:, 0].mean()),
                "drift": dict(zip(FACTORS[1:], (seen - was).abs().mean(0)[1:].tolist(), strict=True)),
                "agreement": float(torch.corrcoef(torch.stack([torch.cat([known, value]), torch.cat([was, seen])[:, 0]]))[0, 1]),
            }  # fmt: skip
    result["coordinates"] = float((runs["ours"].moved != 0).sum(1).float().mean())
    return result


def extrapolation_cases(config: LatentsConfig) -> list[Case]:
    """Every generator."""
    return [Case(World(seed=seed, steps=config.steps), "extrapolation", config.samples) for seed in range(config.seeds)]


def extrapolation_rows(bench: Bench[LatentsConfig, Any]) -> Iterator[Row]:
    """All claims of extrapolation."""
    found = [bench.found(case) for case in extrapolation_cases(bench.config)]
    n = len(found) * bench.config.samples
    means = {name: np.mean([one[name]["reach"] for one in found]) for name in METHODS}
    target, brightest = (np.mean([one[name] for one in found]) for name in ("target", "largest"))
    note = f"target {target:.2f} standard deviations, brightest fitted {brightest:.2f}"
    reach = [one["ours"]["reach"] for one in found]
    yield row(
        "gan.extrapolation.reach",
        over_seeds(reach),
        baseline=float(means["w"]),
        control=float(means["random"]),
        n=n,
        note=note,
    )
    for name, other in (("w", "w"), ("dense", "dense")):
        ratios = [sorted(one["ours"]["drift"][f] / one[other]["drift"][f] for f in FACTORS[1:])[2] for one in found]
        each = ", ".join(
            f"{f} {np.mean([one['ours']['drift'][f] / one[other]['drift'][f] for one in found]):.2f}"
            for f in FACTORS[1:]
        )
        yield row(f"gan.extrapolation.drift_vs_{name}", over_seeds(ratios), n=n, note=each)
    second = [one["ours"]["agreement"] for one in found]
    seen, known = (np.mean([one["ours"][name] for one in found]) for name in ("judged", "value"))
    judged = f"judged {seen:.2f} of {known:.2f}"
    yield row("gan.extrapolation.second_opinion", over_seeds(second), n=n, note=judged)
    yield row(
        "gan.extrapolation.coordinates",
        over_seeds([one["coordinates"] for one in found]),
        baseline=found[0]["wide"],
        n=n,
    )
    for factor in FACTORS[1:]:
        values = [one["ours"]["drift"][factor] for one in found]
        in_w, at_random = (float(np.mean([one[name]["drift"][factor] for one in found])) for name in ("w", "random"))
        dense = np.mean([one["dense"]["drift"][factor] for one in found])
        note = f"all style coordinates {dense:.3f}"
        yield row(
            f"gan.extrapolation.drift_{factor}", over_seeds(values), n=n, baseline=in_w, control=at_random, note=note
        )


QUICK = LatentsConfig(1, 60, 8, 4)
BENCHMARKS = (
    Benchmark(
        "linked-latents", __doc__, LatentsConfig(), QUICK, LINKED, linking_rows, linking_cases, linking, seeds=(0, 1, 2),
        finish=linking_sheet,
    ),
    Benchmark(
        "extrapolation", __doc__, LatentsConfig(), QUICK, EXTRAPOLATION, extrapolation_rows, extrapolation_cases, extrapolating,
        seeds=(0, 1, 2),
    ),
)  # fmt: skip
