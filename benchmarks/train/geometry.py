"""Whether a geometry-aware discriminator gives a 3D-aware generator better shapes, judged by a reader of depth that trains nothing.

    python -m benchmarks geometry            # writes benchmarks/results/geometry.json

Protocol, written before the run. 2,000 heads of 32 pixels, rendered with their depth. Each seed fits a generator to 256 of them
by latent optimisation (300 steps of 16); from there all arms of the seed go on for the same 120 steps against a discriminator, with
the same draws: ``plain`` without geometry, ``geometry`` with normals of the learnt branch, ``random`` with those of an untrained
one, ``flat`` with those of a plane, which smooths and knows no shape (added after ``random`` was seen to help). Weight and steps
were set on seed 100 by the agreement with the branch itself. The judge is another network of the branch's kind, other weights,
learnt on 4,000 other heads; no arm ever sees it. Each arm is judged on 256 random codes at random angles, the same for all arms of
a seed; seeds are the unit, Student's t of paired differences.

- ``gan.geometry.side_change``: scale-invariant depth error of the generator's depth against the judge's reading of its
  pictures, as a share of the plain arm's. ``gan.geometry.mad_change``: the same of normals, in degrees, as a difference.
- The control is the same with an untrained branch, which must not help: ``gan.geometry.random_side_change``.
- ``gan.geometry.side_vs_flat`` and ``mad_vs_flat``: the first two against the arm pulled to a plane: what is more than smoothing.
- ``gan.geometry.reprojection_change``: of five views over +-0.4 radians each is warped onto the next by the generator's own depth;
  mean absolute difference where valid. ``gan.geometry.distance_change``: Fréchet distance of the judge's inner features to 2,000
  heads that nobody saw, as a share of the plain arm's; this is no FID.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from photopic.core.config import Config
from photopic.core.numerics.pinhole import normals, warped
from photopic.data.rendered_shapes import YAW, DepthPictures, rendered_shapes
from photopic.learning.geometry_branch import GeometryBranch
from photopic.metrics.depth import depth_error, eroded, normal_error
from photopic.metrics.frechet import frechet_distance
from photopic.metrics.intervals import student
from photopic.models.volume_generator import VolumeGenerator
from photopic.train.adversarial.geometry_discriminator import GeometryConfig, GeometryLearner, seeded

ARMS = ("plain", "geometry", "random", "flat")
CLAIMS = (
    Claim("gan.geometry.side_change", "<= -0.15", "depth error (SIDE) with geometry over that without, less 1"),
    Claim("gan.geometry.mad_change", "<= -2", "mean angle of normals (MAD) with geometry minus without", "degrees"),
    Claim("gan.geometry.random_side_change", "high >= 0", "the same of an untrained branch, which must not help"),
    Claim(
        "gan.geometry.side_vs_flat", "high < 0", "depth error with geometry over that with a plane in its place, less 1"
    ),
    Claim("gan.geometry.mad_vs_flat", "high < 0", "mean angle of normals, with geometry minus with a plane", "degrees"),
    Claim("gan.geometry.reprojection_change", "<= 0", "reprojection error with geometry over that without, less 1"),
    Claim(
        "gan.geometry.distance_change", "<= 0.1", "Fréchet distance of the judge's features, with over without, less 1"
    ),
)


@dataclass(frozen=True)
class GeometryBench(Config):
    """How much is measured."""

    seeds: tuple[int, ...] = (0, 1, 2)  # of weights, draws and what is judged
    fit: Annotated[int, Ge(1)] = 300  # steps that a seed's arms share
    steps: Annotated[int, Ge(1)] = 120  # steps of each arm after them
    heads: Annotated[int, Ge(2)] = 2000  # to learn from
    judged: Annotated[int, Ge(5)] = 256  # codes that an arm is judged on
    judge_steps: Annotated[int, Ge(1)] = 600  # steps of the judge, of 32 heads


@dataclass(frozen=True)
class Case:
    """All arms of a seed, which share their start."""

    seed: int
    bench: GeometryBench


def cases(config: GeometryBench) -> list[Case]:
    """One a seed; which seeds there are decides nothing of one."""
    return [Case(seed, replace(config, seeds=())) for seed in config.seeds]


def config_of(arm: str, case: Case) -> GeometryConfig:
    """How an arm is trained."""
    weight = 0.0 if arm == "plain" else WEIGHT
    branch: Any = arm if arm in ("random", "flat") else "learnt"
    return GeometryConfig(
        weight=weight, branch=branch, fit=case.bench.fit, steps=case.bench.fit + case.bench.steps, seed=case.seed
    )


WEIGHT = GeometryConfig().weight


@dataclass
class Judge:
    """A reader of depth, and heads that nobody learns from."""

    network: GeometryBranch
    heads: DepthPictures

    def features(self, pictures: torch.Tensor) -> np.ndarray:
        """(n, 64): means and spreads of the innermost layer."""
        kept: list[torch.Tensor] = []
        hook = self.network.norms[-1].register_forward_hook(lambda *args: kept.append(args[2]))
        with torch.no_grad():
            for part in pictures.split(256):
                self.network(part)
        hook.remove()
        return torch.cat(kept).mean((2, 3)).numpy()


def open_judge(config: GeometryBench, cache: ResultCache) -> Judge:
    """The judge, learnt once."""
    heads = rendered_shapes(max(8, 2 * config.heads), seed=501)
    network = GeometryBranch(heads.camera, seed=502)

    def learn() -> np.ndarray:
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for step in range(config.judge_steps):
            optimizer.param_groups[0]["lr"] = 2e-3 * (1 - 0.95 * step / config.judge_steps)
            index = torch.randint(len(heads.images), (32,), generator=seeded(503, step))
            loss = network.loss(heads.images[index], heads.depth[index], heads.mask[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return torch.cat([each.detach().flatten() for each in network.parameters()]).numpy()

    key = {"judge": [config.judge_steps, config.heads]}
    torch.nn.utils.vector_to_parameters(torch.from_numpy(cache.array(key, learn)), network.parameters())
    network.requires_grad_(False)
    return Judge(network, rendered_shapes(config.heads, seed=504))


def measure(bench: Bench[GeometryBench, Judge], case: Case) -> dict[str, dict[str, float]]:
    """Fit, then each arm from there."""
    data = rendered_shapes(case.bench.heads, seed=1)
    first = GeometryLearner(data, config_of("geometry", case))  # which lets its branch learn meanwhile
    for step in range(case.bench.fit):
        first.step(step)
    start, found = first.state(), {"start": judged(bench.subject, first.averaged, case)}
    for arm in ARMS:
        learner = GeometryLearner(data, config_of(arm, case))
        own = (
            {key: each for key, each in learner.state().items() if key.startswith("branch.")} if arm == "random" else {}
        )
        learner.restore({key: each.clone() for key, each in start.items()} | own)
        numbers = {}
        for step in range(case.bench.fit, case.bench.fit + case.bench.steps):
            numbers = dict(learner.step(step))
        found[arm] = judged(bench.subject, learner.averaged, case) | {"branch": numbers.get("normals", 0.0)}
        print(case.seed, arm, {key: round(value, 4) for key, value in found[arm].items()}, flush=True)
    return found


@torch.no_grad()
def judged(judge: Judge, model: VolumeGenerator, case: Case) -> dict[str, float]:
    """Everything that is said of a generator."""
    codes, camera = model.draw(case.bench.judged, seed=9000 + case.seed), model.camera
    yaw = YAW * (2 * torch.rand(len(codes), generator=seeded(case.seed, 9000)) - 1)
    seen = [model.render(*part) for part in zip(codes.split(64), yaw.split(64), strict=True)]
    pictures, depth, alpha = (torch.cat(each) for each in zip(*seen, strict=True))
    read, mask = (torch.cat(each) for each in zip(*map(judge.network, pictures.split(64)), strict=True))
    both = eroded((mask > 0) & (alpha > 0.5))
    turned = normal_error(normals(depth, camera), normals(read, camera), both)
    apart, valid = 0.0, 0.0
    some, angles = codes[:64], torch.linspace(-0.4, 0.4, 5)
    views = [model.render(some, angle.expand(len(some))) for angle in angles]
    for one, other in pairwise(views):
        step = (angles[1] - angles[0]).expand(len(some))
        found, seen_too = warped(one.pictures, one.depth, other.depth, step, camera)
        seen_too = seen_too & (other.alpha > 0.5)
        apart += float(((found - other.pictures).abs().mean(1) * seen_too).sum())
        valid += float(seen_too.sum())
    distance = frechet_distance(judge.features(pictures), judge.features(judge.heads.images))
    return {
        "side": float(depth_error(depth, read, both).mean()), "mad": float(turned.mean()), "reprojection": apart / max(valid, 1.0),
        "distance": distance, "contrast": float(pictures.std((2, 3)).mean()), "covered": float(both.float().mean()),
    }  # fmt: skip


def rows(bench: Bench[GeometryBench, Judge]) -> Iterator[Row]:
    """The claims."""

    def of(arm: str, what: str) -> np.ndarray:
        return np.array([bench.found(case)[arm][what] for case in bench.cases])

    def share_of(arm: str, what: str) -> np.ndarray:
        return (of(arm, what) - of("plain", what)) / np.maximum(of("plain", what), 1e-9)

    def each(what: str) -> str:
        return ", ".join(f"{arm} {of(arm, what).mean():.4f}" for arm in ("start", *ARMS))

    own = bench.value({"judge": "own errors", "config": bench.config}, lambda: own_errors(bench.subject))

    def one(claim: str, values: np.ndarray, control: np.ndarray | None = None, note: str = "") -> Row:
        beside = None if control is None else float(control.mean())
        return row(f"gan.geometry.{claim}", interval(values), n=len(values), baseline=0.0, control=beside, note=note)

    turned = [of(arm, "mad") - of("plain", "mad") for arm in ("geometry", "random")]
    yield one("side_change", share_of("geometry", "side"), share_of("random", "side"),
              f"SIDE {each('side')}; the judge's own on heads that nobody saw {own['side']:.4f}")  # fmt: skip
    yield one("mad_change", turned[0], turned[1], f"MAD {each('mad')}; the judge's own {own['mad']:.2f}")
    yield one("random_side_change", share_of("random", "side"))
    yield one(
        "side_vs_flat", of("geometry", "side") / of("flat", "side") - 1, of("random", "side") / of("flat", "side") - 1
    )
    yield one("mad_vs_flat", of("geometry", "mad") - of("flat", "mad"), of("random", "mad") - of("flat", "mad"))
    yield one("reprojection_change", share_of("geometry", "reprojection"), share_of("random", "reprojection"),
              f"error {each('reprojection')}")  # fmt: skip
    yield one("distance_change", share_of("geometry", "distance"), share_of("random", "distance"),
              f"distance {each('distance')}; two sets of real heads {own['floor']:.4f}; contrast {each('contrast')}")  # fmt: skip


@torch.no_grad()
def own_errors(judge: Judge) -> dict[str, float]:
    """What the judge gets wrong itself, and how far two sets of real heads are from each other."""
    heads = judge.heads
    read = torch.cat([judge.network(part)[0] for part in heads.images.split(256)])
    mask = eroded(heads.mask)
    angle = normal_error(normals(read, heads.camera), normals(heads.depth, heads.camera), mask)
    other = rendered_shapes(len(heads.images), seed=505)
    floor = frechet_distance(judge.features(other.images), judge.features(heads.images))
    return {"side": float(depth_error(read, heads.depth, mask).mean()), "mad": float(angle.mean()), "floor": floor}


def interval(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean and Student's interval; of one seed the mean alone."""
    return (float(values[0]), None, None) if len(values) == 1 else tuple(student(values.tolist()))  # type: ignore[return-value]


FULL = GeometryBench()
QUICK = replace(FULL, seeds=(0,), fit=2, steps=2, heads=80, judged=8, judge_steps=2)
BENCHMARKS = (Benchmark("geometry", __doc__, FULL, QUICK, CLAIMS, rows, cases, measure, open_judge, seeds=FULL.seeds),)
