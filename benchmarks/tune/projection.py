"""Whether three stages of projection bring a garment into a picture that stays a picture, on sprite people with a known truth.

    python -m benchmarks projection          # writes benchmarks/results/projection.json

Protocol, written before the run. Three generators of 32 pixels, one a seed, are fitted to 256 sprite people each by latent
optimisation (1,000 steps of 16, no discriminator, so that realism is the distance of w). Each gets three collages: a figure that it
was not fitted to, with a garment of a style that no figure wore, laid on by key points over what the figure wore. 10 / 200 / 200
steps; pattern search on the late convolutions. Settings were chosen on seed 100. Student's t of the three seeds' means.

- ``gan.projection.pattern_vs_projection``: error in the piece after all three stages over that after the first;
  ``semantic_vs_projection`` and ``pattern_vs_semantic``: of the stages between; ``falls``: collages whose error falls every time.
- ``gan.projection.drift``: squared change outside since the first stage, over that in the piece.
- ``gan.projection.seam_copied``: a ring of the opposite colour is planted along the piece's outline; the step across the outline,
  in shares of the collage's, after 300 steps of the first stage less that after 10.
- ``gan.projection.truth_gain``: the same figure dressed by the renderer is the truth; its error in the pixels that neither picture
  nor piece tells (the old garment beside the new one), of the collage less that of the result; control: an untrained generator.
- ``gan.projection.skipped``: error to that truth there without the second stage, less that with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row, share
from benchmarks.harness.cache import ResultCache
from benchmarks.harness.code import code_of
from benchmarks.harness.ledger import ROOT
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.data.collage import Collage
from photopic.data.overlays import enlarged
from photopic.data.pixels import from_pixels, to_pixels
from photopic.data.sprite_people import SLEEVED, sprite_collage, sprite_people, sprite_person
from photopic.learning.few_shot_batches import cosine
from photopic.metrics.intervals import student
from photopic.models.generator import Generator, GeneratorConfig
from photopic.tune.latent.projection import STAGES, ProjectionConfig, measured, project, seam

SIDE = 32
NEW_STYLE = "fluent-modern"
CLAIMS = (
    Claim("gan.projection.pattern_vs_projection", "<= 0.35", "error in the piece after three stages over that after one"),
    Claim("gan.projection.semantic_vs_projection", "<= 0.8", "error in the piece after semantic search over projection's"),
    Claim("gan.projection.pattern_vs_semantic", "<= 0.35", "error in the piece after pattern search over semantic search's"),
    Claim("gan.projection.falls", "== 1", "share of collages whose error falls with every stage"),
    Claim("gan.projection.drift", "<= 0.1", "squared change outside since projection over that in the piece"),
    Claim("gan.projection.seam_copied", "low > 0", "planted seam kept by 300 steps of projection less that kept by 10"),
    Claim("gan.projection.truth_gain", "low > 0", "error to the truth where nothing tells it: collage less result"),
    Claim("gan.projection.skipped", "low > 0", "error to the truth there: without semantic search less with it"),
)  # fmt: skip


@dataclass(frozen=True)
class ProjectionBench(Config):
    """How much is measured."""

    seeds: tuple[int, ...] = (0, 1, 2)  # of generators, figures and starts
    collages: Annotated[int, Ge(1)] = 3  # of each seed
    people: Annotated[int, Ge(1)] = 256  # that a generator is fitted to
    fit: Annotated[int, Ge(1)] = 1000  # steps of fitting
    steps: Annotated[int, Ge(1)] = 200  # of the second and third stage
    long: Annotated[int, Ge(1)] = 300  # steps of a first stage that is long enough to copy flaws


@dataclass(frozen=True)
class Case:
    """One collage."""

    seed: int
    number: int
    bench: ProjectionBench


def cases(config: ProjectionBench) -> list[Case]:
    """Collage by collage, seed by seed."""
    return [Case(seed, number, replace(config, seeds=())) for seed in config.seeds for number in range(config.collages)]


class Fitted:
    """Generators by their seeds, each fitted once."""

    def __init__(self, config: ProjectionBench, cache: ResultCache):
        self.config, self.cache, self.models = config, cache, dict[int, Generator]()

    def of(self, seed: int) -> Generator:
        """The generator of a seed."""
        if seed not in self.models:
            model = untrained(seed)
            key = {
                "fitted": seed,
                "people": self.config.people,
                "steps": self.config.fit,
                "code": code_of(fit, sprite_people),
            }

            def make() -> np.ndarray:
                people = sprite_people(self.config.people, seed=seed, side=SIDE)
                fit(model, people, self.config.fit, seed)
                return torch.cat([each.detach().flatten() for each in model.parameters().values()]).numpy()

            values = torch.from_numpy(self.cache.array(key, make))
            for each in model.parameters().values():
                each.data.copy_(values[: each.numel()].reshape(each.shape))
                values = values[each.numel() :]
            model.__dict__.pop("_w_moments", None)
            self.models[seed] = model
        return self.models[seed]


def fit(model: Generator, people: Float[Tensor, "n 3 side side"], steps: int, seed: int) -> None:
    """Latent optimisation (GLO, arXiv:1707.05776): weights and a z for each picture, from its principal components."""
    apart = (people - people.mean(0)).flatten(1)
    components = torch.linalg.svd(apart, full_matrices=False)[0][:, : model.config.z_width]
    z = F.pad(components * len(people) ** 0.5, (0, model.config.z_width - components.shape[1])).requires_grad_()
    weights = [each.requires_grad_() for part in model.components.values() for each in part.parameters()]
    optimizer = torch.optim.Adam([{"params": weights}, {"params": [z]}], betas=(0.5, 0.99))
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, (0.01, 0.02), strict=True):
            group["lr"] = rate * (0.02 + 0.98 * cosine(step, steps))
        index = torch.randint(len(people), (16,), generator=draw)
        loss = (model.synthesize(model.map(z[index])) - people[index]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for each in weights:
        each.requires_grad_(False)
    print(f"fitted {seed}: {loss.item():.4f}", flush=True)


def untrained(seed: int) -> Generator:
    """The same networks before fitting."""
    return Generator.fresh(
        GeneratorConfig(resolution=SIDE, channels=(64, 64, 48, 32), mapping_layers=1, mapping_rate=1.0, seed=seed),
        f"people-{seed}",
    )


def figure_of(case: Case) -> tuple[int, int]:
    """One that no generator was fitted to."""
    return case.seed, 10_000 + case.number


def garment_of(case: Case) -> tuple[str, str]:
    """One after the other, in a style that nobody wore."""
    return list(SLEEVED)[case.number % len(SLEEVED)], NEW_STYLE


def collage_of(case: Case) -> Collage:
    """The figure with the garment laid on it."""
    return sprite_collage(figure_of(case), SIDE, garment=garment_of(case))


def config_of(case: Case) -> ProjectionConfig:
    """How long each stage goes on."""
    return ProjectionConfig(semantic_steps=case.bench.steps, pattern_steps=case.bench.steps, seed=case.seed)


def measure(bench: Bench[ProjectionBench, Fitted], case: Case) -> dict[str, float]:
    """All stages, and what the claims compare them with."""
    model, collage, config = bench.subject.of(case.seed), collage_of(case), config_of(case)
    truth = from_pixels(sprite_person(figure_of(case), SIDE, garment=garment_of(case)).picture[None])
    found = finished(project(model, collage, config))
    numbers = {
        f"{name}.{key}": value for name in STAGES for key, value in measured(model, collage, found, name).items()
    }
    first, last = found.pictures["projection"], found.pictures["pattern"]
    numbers["moved"] = float(((last - first).square().mean(1) * collage.inner).sum() / collage.inner.sum())

    def to_truth(picture: torch.Tensor) -> float:
        return float(
            ((picture - truth).square().mean(1) * collage.residual).sum() / collage.residual.sum().clamp_min(1)
        )

    numbers["residual"] = float(collage.residual.sum())
    numbers["truth.collage"], numbers["truth.pattern"] = to_truth(collage.pasted[None]), to_truth(last)
    short = finished(project(model, collage, replace(config, semantic_steps=0)))
    numbers["truth.skipped"] = to_truth(short.pictures["pattern"])
    control = finished(project(untrained(case.seed), collage, config))
    numbers["truth.untrained"] = to_truth(control.pictures["pattern"])
    flawed = with_seam(collage)
    for name, steps in (("short", 10), ("long", case.bench.long)):
        only = replace(config, projection_steps=steps, semantic_steps=0, pattern_steps=0)
        picture = finished(project(model, flawed, only)).pictures["projection"]
        numbers[f"seam.{name}"] = float(seam(picture, collage.inner) / seam(flawed.pasted[None], collage.inner))
    print(case.seed, case.number, {key: round(value, 4) for key, value in numbers.items()}, flush=True)
    return numbers


def with_seam(collage: Collage) -> Collage:
    """A collage with a ring of the opposite colour along the inside of its piece's outline."""
    inner = collage.inner.numpy()
    ring = torch.from_numpy(inner & ~binary_erosion(inner))
    outline = torch.from_numpy(binary_dilation(ring.numpy()) & inner)
    mean = collage.pasted[:, outline].mean(1)
    return replace(collage, pasted=torch.where(ring, -mean.sign()[:, None, None], collage.pasted))


def rows(bench: Bench[ProjectionBench, Fitted]) -> Iterator[Row]:
    """The claims."""
    found = [bench.found(case) for case in bench.cases]
    groups = [case.seed for case in bench.cases]

    def of(key: str) -> np.ndarray:
        return np.array([each[key] for each in found])

    def one(claim: str, values: np.ndarray, note: str = "", **beside: float) -> Row:
        return row(f"gan.projection.{claim}", interval(values, groups), n=len(values), note=note, **beside)  # type: ignore[arg-type]

    error = {name: of(f"{name}.piece_error") for name in STAGES}
    means = ", ".join(f"{name} {values.mean():.4f}" for name, values in error.items())
    falls = np.all([error[before] > error[after] for before, after in pairwise(STAGES)], 0)
    yield one("pattern_vs_projection", error["pattern"] / error["projection"], f"errors: {means}", baseline=1.0)
    yield one("semantic_vs_projection", error["semantic"] / error["projection"], baseline=1.0)
    yield one("pattern_vs_semantic", error["pattern"] / error["semantic"], baseline=1.0)
    yield share("gan.projection.falls", falls)
    yield one("drift", of("pattern.drift_outside") / of("moved"))
    kept = f"10 steps keep {of('seam.short').mean():.3f} of it, {bench.config.long} keep {of('seam.long').mean():.3f}"
    yield one("seam_copied", of("seam.long") - of("seam.short"), kept)
    some = of("residual") > 0
    groups = [group for group, has in zip(groups, some, strict=True) if has]
    truths = ", ".join(
        f"{name} {of(f'truth.{name}')[some].mean():.4f}" for name in ("collage", "pattern", "skipped", "untrained")
    )
    yield one("truth_gain", (of("truth.collage") - of("truth.pattern"))[some], f"errors: {truths}",
              control=float((of("truth.collage") - of("truth.untrained"))[some].mean()))  # fmt: skip
    yield one("skipped", (of("truth.skipped") - of("truth.pattern"))[some])


def interval(values: np.ndarray, groups: Sequence[int]) -> tuple[float, float | None, float | None]:
    """Mean of the seeds' means with Student's interval; of one seed the mean alone."""
    means = [float(values[np.array(groups) == group].mean()) for group in sorted(set(groups))]
    return (means[0], None, None) if len(means) == 1 else tuple(student(means))  # type: ignore[return-value]


def draw_pictures(bench: Bench[ProjectionBench, Fitted], _: Sequence[Row]) -> None:
    """docs/images/projection.png: collage, start and stages of the first seed's collages."""
    lines = []
    for case in [case for case in bench.cases if case.seed == bench.cases[0].seed]:
        collage = collage_of(case)
        found = finished(project(bench.subject.of(case.seed), collage, config_of(case)))
        pictures = torch.cat([collage.pasted[None], *found.pictures.values()])
        lines.append(np.concatenate([enlarged(each, 4 * SIDE) for each in to_pixels(pictures)], 1))
    Image.fromarray(np.concatenate(lines)).save(ROOT / "docs/images/projection.png", optimize=True)


FULL = ProjectionBench()
QUICK = replace(FULL, seeds=(0,), collages=1, people=8, fit=2, steps=2, long=2)
BENCHMARKS = (
    Benchmark(
        "projection", __doc__, FULL, QUICK, CLAIMS, rows, cases, measure, Fitted, seeds=FULL.seeds, finish=draw_pictures
    ),
)
