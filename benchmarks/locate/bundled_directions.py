"""Do directions found for the face, or for what lies behind it, move it alone in the bundled generator ``emoji-gan``?

    python -m benchmarks low-rank-bundled     # writes benchmarks/results/low-rank-bundled.json

Protocol, written before anything was measured. Regions come from the exact masks of 256 pictures of the training world (not those
it learnt from): ``face`` is where more than half of them have the face, ``behind`` the rest. At each of ``analysed`` drawn pictures
(seed 300) directions are found by each way and moved by 0.25 of the length of w's standard deviations both ways, there and on 16
others. R is the change by area inside over outside, of an analysed picture; ratios to other ways are paired by picture, intervals
Student's t over the pictures (log ratios: geometric means). GANSpace, SeFa and random directions know no region: beside their first
direction (``_first``) stands the one of all 64 with the largest linear ratio at that picture (``_best``), which does. The control
is low rank with the pixels of the mask shuffled. Nothing was chosen on this model: the settings are those of ``low-rank``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.locate.latent_directions import OTHERS, STEPS, change, ways
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.data import scenes
from photopic.data.emoji_faces import face_plans
from photopic.locate.latent._common import Directions, Grams, grams_at, linear_ratio
from photopic.locate.latent.low_rank import subspaces
from photopic.metrics.intervals import student
from photopic.models.generator import Generator

GLOBAL = ("ganspace", "sefa", "random")
REGIONS = ("face", "behind")
CLAIMS = (
    Claim("gan.low_rank.bundled.*.r_self", ">= 20", "emoji-gan, region from exact masks: R on the analysed picture"),
    Claim("gan.low_rank.bundled.*.r_transfer", ">= 7", "the same on 16 others; baseline unprojected, control random"),
    Claim("gan.low_rank.bundled.*.self_vs_unprojected", ">= 2", "R on the picture over that of the unprojected direction"),
    Claim("gan.low_rank.bundled.*.transfer_vs_unprojected", ">= 1.4", "the same on 16 others"),
    Claim("gan.low_rank.bundled.*.shuffled_keep", "< 0.2", "what is left of the strongest direction, the mask shuffled"),
    Claim("gan.low_rank.bundled.*", "", "R, or low rank's R over that of another way"),
)  # fmt: skip


@dataclass(frozen=True)
class BundledConfig(Config):
    """How much is measured."""

    analysed: Annotated[int, Ge(2)] = 12  # pictures that directions are found on
    masks: Annotated[int, Ge(1)] = 256  # pictures whose masks make the regions


@dataclass(frozen=True)
class Case:
    """One analysed picture."""

    index: int
    masks: int


def cases(config: BundledConfig) -> list[Case]:
    """Every picture."""
    return [Case(index, config.masks) for index in range(config.analysed)]


def face_region(count: int) -> np.ndarray:
    """Where more than half of so many pictures have the face."""
    masks = []
    for face, background, flipped in face_plans(count, 90_001):
        mask = scenes.compose([face], background).masks[0]
        masks.append(mask[:, ::-1] if flipped else mask)
    return np.mean(masks, 0) > 0.5


def best(directions: Directions, grams: Grams) -> Directions:
    """The direction with the largest linear ratio, alone."""
    top = int(np.argmax([linear_ratio(each, grams) for each in directions.vectors]))
    return Directions(directions.vectors[top : top + 1], np.ones(1))


def measure(bench: Bench[BundledConfig, Any], case: Case) -> dict[str, Any]:
    """Of each region and way: changes there and on others."""
    model, face = Generator.load("emoji-gan", device="cpu"), face_region(case.masks)
    at = model.map(model.sample_z(1, seed=300, start=case.index))
    others = model.map(model.sample_z(OTHERS, seed=301))
    shuffled = np.random.default_rng(case.index).permutation(face.ravel()).reshape(face.shape)
    whole, paper = (finished(grams_at(model, at, face, mean_channels=mean)) for mean in (False, True))
    mixed = finished(grams_at(model, at, shuffled))
    found: dict[str, Any] = {}
    for region in REGIONS:
        mask = face if region == "face" else ~face
        grams, released, control = ((each if region == "face" else _exchanged(each)) for each in (whole, paper, mixed))
        tried = ways(model, grams, released, case.index)
        tried |= {f"{kind}_best": best(tried[kind], grams) for kind in GLOBAL}
        chance = subspaces(control, negligible=1e-9).directions
        found[region] = {"shuffled_keep": float(chance.keep[0]), "ways": {
            way: None if not len(each.keep) else {
                "keep": float(each.keep[0]), "linear": linear_ratio(each.vectors[0], grams),
                "self": change(model, at, each.vectors[0], STEPS[0], mask),
                "others": change(model, others, each.vectors[0], STEPS[0], mask),
            } for way, each in tried.items()
        }}  # fmt: skip
    return found | {"region": float(face.mean())}


def _exchanged(grams: Grams) -> Grams:
    return Grams(grams.outside, grams.inside, grams.w)


def rows(bench: Bench[BundledConfig, Any]) -> Iterator[Row]:
    """All claims."""
    found = [bench.found(each) for each in bench.cases]
    n = len(found)
    for region in REGIONS:
        of = f"gan.low_rank.bundled.{region}"

        def r(way: str, where: str, region: str = region) -> np.ndarray:
            each = [one[region]["ways"][way] for one in found]
            return np.array([np.nan if one is None else one[where]["inside"] / one[where]["outside"] for one in each])

        kept = [one[region]["ways"]["low_rank"] for one in found]
        refused = sum(one is None for one in kept)
        note = f"region {found[0]['region']:.0%} is face; {refused} of {n} found nothing"
        for where, name in (("self", "self"), ("others", "transfer")):
            ours = r("low_rank", where)
            base, control = geometric(r("unprojected", where)), geometric(r("random", where))
            yield row(f"{of}.r_{name}", geometric(ours), n=n, note=note, baseline=base[0], control=control[0])
            for way in ("unprojected", "fixed", "released", "refactored", *(f"{kind}_best" for kind in GLOBAL)):
                yield row(
                    f"{of}.{name}_vs_{way}",
                    geometric(ours / r(way, where)),
                    n=n,
                    note=f"R of that way {geometric(r(way, where))[0]:.2f}",
                )
            for way in GLOBAL:
                yield row(f"{of}.{name}_vs_{way}_first", geometric(ours / r(way, where)), n=n)
        keep = float(np.mean([one["keep"] for one in kept if one is not None])) if refused < n else None
        yield row(f"{of}.shuffled_keep", student([one[region]["shuffled_keep"] for one in found]), n=n, baseline=keep)


def geometric(values: Sequence[float] | np.ndarray) -> tuple[float, float | None, float | None]:
    """Geometric mean of what is finite, with Student's interval of the logarithms."""
    logs = np.log(np.asarray(values, float))
    logs = logs[np.isfinite(logs)]
    if len(logs) < 2:
        return (float(np.exp(logs[0])) if len(logs) else float("nan")), None, None
    mean, low, high = np.exp(student(logs.tolist()))
    return float(mean), float(low), float(high)


FULL = BundledConfig()
BENCHMARKS = (
    Benchmark("low-rank-bundled", __doc__, FULL, BundledConfig(2, 8), CLAIMS, rows, cases, measure, seeds=(300,)),
)
