"""Do directions found for a region change it and spare the rest, on the picture they were found on and on others?

    python -m benchmarks low-rank            # writes benchmarks/results/low-rank.json
    python -m benchmarks gan-costs           # Jacobians against a loop of reverse mode, robust PCA against the released iteration

Generators fitted to the procedural faces (``benchmarks/gan/_worlds.py``); the region is the true eyes' bounding box over 64
scenes. On each of ``analysed`` fitted faces directions are found by each way and moved by 0.25 of the length of w's standard
deviations, there and on 16 other faces. R is the change by area inside over outside. The control is the same with the pixels of the
mask shuffled. Settings (fitted faces, split, weight, step) were chosen on the generator of seed 100; measured are seeds 0 to 2 in
CORR, and the same seeds in INDEP; an interval is Student's t over the seeds' means.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.gan._worlds import SIDE, Fitted, World, fitted, write_rows
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.timing import median_interval
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.core.nn.gram import gram_matrices
from photopic.core.numerics.robust_pca import robust_pca
from photopic.locate.latent._common import Directions, Grams, grams_at, linear_ratio
from photopic.locate.latent.global_directions import found_directions
from photopic.locate.latent.low_rank import PAPER, LowRankConfig, subspaces
from photopic.locate.latent.region_factorization import factorized
from photopic.metrics.intervals import student
from photopic.metrics.locality import change_within
from photopic.models.generator import Generator, GeneratorConfig

STEPS, OTHERS = (0.25, 0.5, 1.0), 16  # in lengths of w's standard deviations; samples beside the analysed one
SEEDS = (0, 1, 2)
WAYS = ("low_rank", "fixed", "released", "refactored", "unprojected", "ganspace", "sefa", "random")
SMALL = {"block": 8, "chunk": 1}  # columns held, and pushed through at a time, where memory is short
CLAIMS = (
    Claim("gan.low_rank.r_self", ">= 20", "CORR, eyes: R on the analysed picture; baseline unprojected, control random"),
    Claim("gan.low_rank.r_self_vs_unprojected", ">= 2", "the same over that of the unprojected direction"),
    Claim("gan.low_rank.r_transfer", ">= 7", "CORR, eyes: R on 16 other samples; baseline unprojected, control random"),
    Claim("gan.low_rank.r_transfer_vs_unprojected", ">= 1.4", "the same over that of the unprojected direction"),
    Claim("gan.low_rank.shuffled_keep", "< 0.2", "what is left of the strongest direction, the mask's pixels shuffled"),
    Claim("gan.low_rank.shuffled_r", "< 3", "linear ratio of that direction"),
    Claim("gan.low_rank.inside_share", ">= 0.25", "change inside over that of the unprojected direction at the same step"),
    Claim("gan.low_rank.random_ratio", "< 2", "median linear ratio of 200 random directions, CORR; baseline INDEP"),
    Claim("gan.low_rank.r_*", "", "CORR, eyes: R on the analysed picture, or on others, of another way or step"),
    Claim("gan.low_rank.indep_*", "", "the same in INDEP"),
)  # fmt: skip
COSTS = (
    Claim("gan.jacobian_vs_reverse", ">= 10", "Gram matrices, 64 px, 64 numbers: time of reverse mode pixel by pixel over ours"),
    Claim("gan.jacobian_memory", "<= 0.1", "most bytes alive, ours over theirs, which keep the Jacobians of five pictures"),
    Claim("gan.rpca_vs_released", ">= 5", "robust PCA of 512 x 512: time of the released iteration over ours, same objective"),
)  # fmt: skip


@dataclass(frozen=True)
class DirectionsConfig(Config):
    """How much is measured."""

    seeds: Annotated[int, Ge(1)] = 3  # generators of CORR
    independent: Annotated[int, Ge(0)] = 3  # of INDEP
    analysed: Annotated[int, Ge(1)] = 4  # pictures that directions are found on, of each
    steps: Annotated[int, Ge(1)] = 2600  # of fitting a generator


@dataclass(frozen=True)
class Case:
    """One generator."""

    world: World
    analysed: int


def eyes_box(found: Fitted) -> np.ndarray:
    """The bounding box of the eyes, over the middle 80 % of the scenes, as a mask."""
    inside = found.scenes.masks["eyes"][:64].float().mean(0) > 0.05
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
    mask = np.zeros((SIDE, SIDE), bool)
    mask[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1] = True
    return mask


def ways(model: Generator, grams: Grams, released: Grams, seed: int) -> dict[str, Directions]:
    """The directions of every way at one picture."""
    low_rank = subspaces(grams, LowRankConfig())
    values, vectors = np.linalg.eigh(grams.inside)
    top = Directions(vectors.T[::-1].copy(), np.ones(len(values)))
    found = {"low_rank": low_rank.directions, "fixed": subspaces(grams, LowRankConfig(split="fixed")).directions}
    found |= {"released": subspaces(released, PAPER).directions, "refactored": factorized(grams), "unprojected": top}
    return found | {kind: found_directions(model, kind, seed) for kind in ("ganspace", "sefa", "random")}


@torch.no_grad()
def change(model: Generator, w: torch.Tensor, direction: np.ndarray, step: float, mask: np.ndarray) -> dict[str, float]:
    """Changes of pictures under a step, both ways along the direction."""
    move = step * float(model.std_w.norm()) * torch.from_numpy(direction.copy()).to(w)
    before = model.synthesize(w)
    both = [change_within(before, model.synthesize(w + sign * move), torch.from_numpy(mask)) for sign in (-1, 1)]
    return {side: float(np.mean([getattr(each, side) for each in both])) for side in ("inside", "outside")}


def measure(bench: Bench[DirectionsConfig, Any], case: Case) -> dict[str, Any]:
    """Of each picture and way: R there and on others, at every step; and the shuffled mask."""
    found = fitted(case.world)
    model, mask = found.model, eyes_box(found)
    w = model.map(found.z[: case.analysed + OTHERS])  # of fitted faces: those of other z are less like any
    shuffled = np.random.default_rng(case.world.seed).permutation(mask.ravel()).reshape(mask.shape)
    pictures = []
    for index in range(case.analysed):
        at = w[index : index + 1]
        grams = finished(grams_at(model, at, mask))
        paper = finished(grams_at(model, at, mask, mean_channels=True))
        control = finished(grams_at(model, at, shuffled))
        of_ways: dict[str, Any] = {}
        for way, directions in ways(model, grams, paper, index).items():
            if not len(directions.keep):
                of_ways[way] = None
                continue
            direction = directions.vectors[0]
            of_ways[way] = {
                "keep": float(directions.keep[0]),
                "linear": linear_ratio(direction, grams),
                "self": [change(model, at, direction, step, mask) for step in STEPS],
                "others": [change(model, w[case.analysed :], direction, step, mask) for step in STEPS],
            }
        mixed = subspaces(control, negligible=1e-9).directions  # the strongest, whatever the projection leaves of it
        random = np.random.default_rng(index).normal(size=(200, len(grams.inside)))
        pictures.append({
            "ways": of_ways,
            "shuffled_keep": float(mixed.keep[0]),
            "shuffled_linear": linear_ratio(mixed.vectors[0], control),
            "random": [linear_ratio(each, grams) for each in random],
        })  # fmt: skip
    return {"error": found.error, "region": float(mask.mean()), "pictures": pictures}


def cases(config: DirectionsConfig) -> list[Case]:
    """Every generator."""
    return [
        Case(World(correlated=correlated, seed=seed, steps=config.steps), config.analysed)
        for correlated, count in ((True, config.seeds), (False, config.independent))
        for seed in range(count)
    ]


def ratio(changes: Sequence[dict[str, float]]) -> float:
    """R of several pictures: of the means of their changes."""
    return float(np.mean([each["inside"] for each in changes]) / np.mean([each["outside"] for each in changes]))


def over_seeds(values: Sequence[float]) -> Any:
    """Mean and t interval over generators, or the value of one alone."""
    return student(list(values)) if len(values) > 1 else values[0]


def rows(bench: Bench[DirectionsConfig, Any]) -> Iterator[Row]:
    """All claims; of each generator the mean over its pictures, then the interval over generators."""
    all_cases = cases(bench.config)
    found = {flag: [bench.found(case) for case in all_cases if case.world.correlated == flag] for flag in (True, False)}
    corr, indep = found[True], found[False]

    def r(generators: Sequence[Any], way: str, where: str, step: int = 0) -> list[float]:
        return [
            ratio([each["ways"][way][where][step] for each in one["pictures"] if each["ways"][way] is not None])
            for one in generators
            if any(each["ways"][way] is not None for each in one["pictures"])
        ]

    n = len(corr) * bench.config.analysed
    error = np.mean([one["error"] for one in corr])
    note = f"{len(corr)} generators, error {error:.4f}, {bench.config.analysed} pictures each"
    for where, name in (("self", "r_self"), ("others", "r_transfer")):
        ours, plain, any_way = (r(corr, way, where) for way in ("low_rank", "unprojected", "random"))
        baseline, control = float(np.mean(plain)), float(np.mean(any_way))
        yield row(f"gan.low_rank.{name}", over_seeds(ours), n=n, note=note, baseline=baseline, control=control)
        yield row(
            f"gan.low_rank.{name}_vs_unprojected", over_seeds([a / b for a, b in zip(ours, plain, strict=True)]), n=n
        )
        for way in WAYS[1:]:
            values = r(corr, way, where)
            if values:
                yield row(f"gan.low_rank.{name}_{way}", over_seeds(values), n=len(values) * bench.config.analysed)
        for step in (1, 2):
            yield row(f"gan.low_rank.{name}_step_{STEPS[step]:g}", over_seeds(r(corr, "low_rank", where, step)), n=n)
        for way in ("low_rank", "unprojected", "refactored") if indep else ():
            yield row(f"gan.low_rank.indep_{name}_{way}", over_seeds(r(indep, way, where)), n=n)
    yield row("gan.low_rank.shuffled_keep", over_seeds(_means(corr, "shuffled_keep")), baseline=_keep(corr), n=n)
    yield row("gan.low_rank.shuffled_r", over_seeds(_means(corr, "shuffled_linear")), n=n)
    shares = [
        np.mean([p["ways"]["low_rank"]["self"][0]["inside"] / p["ways"]["unprojected"]["self"][0]["inside"]
                 for p in one["pictures"] if p["ways"]["low_rank"]])
        for one in corr
    ]  # fmt: skip
    yield row("gan.low_rank.inside_share", over_seeds([float(each) for each in shares]), n=n)
    random = [float(np.median([p["random"] for p in one["pictures"]])) for one in corr]
    other = float(np.mean([np.median([p["random"] for p in one["pictures"]]) for one in indep])) if indep else None
    yield row("gan.low_rank.random_ratio", over_seeds(random), baseline=other, n=200 * n)


def _means(generators: Sequence[Any], name: str) -> list[float]:
    return [float(np.mean([each[name] for each in one["pictures"]])) for one in generators]


def _keep(generators: Sequence[Any]) -> float:
    return float(
        np.mean([p["ways"]["low_rank"]["keep"] for one in generators for p in one["pictures"] if p["ways"]["low_rank"]])
    )


@torch.no_grad()
def sheet(bench: Bench[DirectionsConfig, Any], rows: Sequence[Row]) -> None:
    """docs/images/gan-directions.png: one picture of the first CORR generator along the first direction of four ways."""
    case = cases(bench.config)[0]
    found = fitted(case.world)
    model, mask = found.model, eyes_box(found)
    at = model.map(found.z[:1])
    grams = finished(grams_at(model, at, mask))
    steps = torch.linspace(-1, 1, 7)[:, None] * model.std_w.norm()
    strips = []
    for way, directions in ways(model, grams, grams, 0).items():
        if way in ("low_rank", "refactored", "unprojected", "random") and len(directions.keep):
            row = torch.from_numpy(directions.vectors[0].copy()).float()
            strips.append((way.replace("_", " "), model.synthesize(at + steps * row)))
    write_rows("gan-directions.png", strips)


@dataclass(frozen=True)
class CostsConfig(Config):
    """How much is measured."""

    seeds: Annotated[int, Ge(1)] = 3  # generators, and matrices
    pixels: Annotated[int, Ge(16)] = 512  # of the 4,096, that reverse mode is timed on; all others take as long
    size: Annotated[int, Ge(16)] = 512  # of the matrices that are split


@dataclass(frozen=True)
class CostCase:
    """One kind of cost, of one seed."""

    kind: str
    seed: int
    pixels: int
    size: int


def cost_cases(config: CostsConfig) -> list[CostCase]:
    """Both kinds of every seed."""
    return [
        CostCase(kind, seed, config.pixels, config.size)
        for kind in ("jacobian", "rpca")
        for seed in range(config.seeds)
    ]


def measure_cost(bench: Bench[CostsConfig, Any], case: CostCase) -> dict[str, float]:
    """Seconds, and bytes of Jacobians."""
    return _jacobian(case) if case.kind == "jacobian" else _rpca(case)


def _jacobian(case: CostCase) -> dict[str, float]:
    """Both Gram matrices of one picture: ours, and a loop of reverse mode over grey pixels that keeps their gradients."""
    model = Generator.fresh(GeneratorConfig(seed=case.seed))
    at, masks = model.map(model.sample_z(1, case.seed))[0], torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 20:30, 12:52] = True
    masks[1] = ~masks[0]

    def picture(w: torch.Tensor) -> torch.Tensor:
        return model.synthesize(w[None])[0]

    gram_matrices(picture, at, masks[:1], mean_channels=True)  # what is compiled on first use
    ours, seconds = _timed(lambda: gram_matrices(picture, at, masks, mean_channels=True))
    places = np.random.default_rng(case.seed).choice(64 * 64, case.pixels, replace=False)

    def loop(count: int = case.pixels) -> torch.Tensor:
        w = at.clone().requires_grad_()
        grey = picture(w).mean(0).flatten()
        kept = torch.zeros(64 * 64, len(at))
        for place in places[:count].tolist():
            kept[place] = torch.autograd.grad(grey[place], w, retain_graph=True)[0]
        return kept

    kept, looped = _timed(loop)
    largest = (ours[0] + ours[1]).abs().max()
    assert case.pixels < 64 * 64 or float(
        (kept.double().T @ kept.double() - ours[0] - ours[1]).abs().max()
    ) < 1e-3 * float(largest)
    most_ours = _most_bytes(lambda: gram_matrices(picture, at, masks, mean_channels=True, **SMALL))
    most_theirs = (
        _most_bytes(lambda: loop(8)) + 4 * kept.numel() * 4
    )  # the Jacobians of the four pictures before are kept as well
    _, slow = _timed(lambda: gram_matrices(picture, at, masks, mean_channels=True, **SMALL))
    return {
        "ours": seconds,
        "loop": looped * 64 * 64 / case.pixels,
        "bytes": most_ours,
        "loop_bytes": most_theirs,
        "small": slow,
    }


def _most_bytes(call: Callable[[], object]) -> float:
    """Most bytes of tensors made by a call that are alive at once, as torch's profiler sees them made and freed."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    alive, most, profiler = 0, 0, cast(Any, seen.profiler)
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)
    return float(most)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()  # of this process alone: others share the machine
    found = call()
    return found, time.process_time() - began


def _rpca(case: CostCase) -> dict[str, float]:
    """A symmetric matrix of rank 5 % with 5 % gross errors: seconds until the objective is within 1e-5 of the optimum.

    The released loop goes on past its own stop until its objective is that of ours, so that both times are to the same answer.
    """
    rng, d = np.random.default_rng(case.seed), case.size
    factor = rng.normal(size=(d, d // 20))
    wrong = np.triu((rng.random((d, d)) < 0.05) * rng.choice([-10.0, 10.0], (d, d)), 1)
    matrix = factor @ factor.T + wrong + wrong.T
    ours, seconds = _timed(lambda: robust_pca(matrix))
    found, released = _timed(lambda: released_iteration(matrix, ours.objective))
    return {"ours": seconds, "released": released, "objective": ours.objective, "iterations": ours.iterations,
            "rank": ours.rank} | found  # fmt: skip


def released_iteration(matrix: np.ndarray, wanted: float) -> dict[str, float]:
    """The published loop, an SVD an iteration and the large penalty, until it has an objective too; and where it stops itself."""
    d = len(matrix)
    weight, mu = 1 / np.sqrt(d), d * d / (4 * np.abs(matrix).sum(0).max())
    sparse, dual = np.zeros_like(matrix), np.zeros_like(matrix)
    own: dict[str, float] = {}
    for iteration in range(1, 10_001):
        left, values, right = np.linalg.svd(matrix - sparse - dual / mu, full_matrices=False)
        shrunk = np.maximum(values - 1 / mu, 0)
        low_rank = (left * shrunk) @ right
        moved = matrix - low_rank - dual / mu
        sparse = np.sign(moved) * np.maximum(np.abs(moved) - weight / mu, 0)
        dual = dual + mu * (low_rank + sparse - matrix)
        if np.linalg.norm(low_rank + sparse - matrix) <= 1e-7 * np.linalg.norm(matrix):
            objective = float(shrunk.sum() + weight * np.abs(sparse).sum())
            own = own or {"own_objective": objective, "own_iterations": iteration}
            if abs(objective / wanted - 1) <= 1e-5:
                break
    return own | {"released_objective": objective, "released_iterations": iteration}


def cost_rows(bench: Bench[CostsConfig, Any]) -> Iterator[Row]:
    """All claims."""
    kinds = {
        kind: [bench.found(each) for each in cost_cases(bench.config) if each.kind == kind]
        for kind in ("jacobian", "rpca")
    }
    jacobian, rpca = kinds["jacobian"], kinds["rpca"]
    speed = median_interval([each["loop"] / each["ours"] for each in jacobian])
    seconds = np.median([each["ours"] for each in jacobian])
    small = np.median([each["loop"] / each["small"] for each in jacobian])
    note = f"ours {seconds:.2f} s; processor time; {bench.config.pixels} of 4,096 pixels timed; range of the seeds"
    yield row("gan.jacobian_vs_reverse", speed, n=len(jacobian), note=note)
    memory = median_interval([each["bytes"] / each["loop_bytes"] for each in jacobian])
    most = np.median([each["bytes"] for each in jacobian]) / 2**20
    what = f"ours {most:.1f} MiB, {SMALL['block']} columns held and one pushed through at a time; {small:.1f} times as fast then"
    yield row("gan.jacobian_memory", memory, n=len(jacobian), note=what)
    speed = median_interval([each["released"] / each["ours"] for each in rpca])
    apart = max(abs(each["objective"] / each["released_objective"] - 1) for each in rpca)
    lengths = [np.median([each[name] for each in rpca]) for name in ("iterations", "released_iterations")]
    own = max(each["own_objective"] / each["objective"] - 1 for each in rpca)
    counts = f"{lengths[0]:.0f} iterations against {lengths[1]:.0f}; by its own rule it stops up to {own:.0%} above the optimum"
    yield row(
        "gan.rpca_vs_released",
        speed,
        n=len(rpca),
        note=f"{counts}; objectives differ by {apart:.1e}; processor time; range of the seeds",
    )


BENCHMARKS = (
    Benchmark(
        "low-rank", __doc__, DirectionsConfig(), DirectionsConfig(1, 0, 1, 60), CLAIMS, rows, cases, measure, seeds=SEEDS,
        finish=sheet,
    ),
    Benchmark(
        "gan-costs", __doc__, CostsConfig(), CostsConfig(1, 64, 64), COSTS, cost_rows, cost_cases, measure_cost, seeds=SEEDS
    ),
)  # fmt: skip
