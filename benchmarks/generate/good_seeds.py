"""Do some start noises draw better than others whatever the prompt, and can a picture's seed be told?

    python -m benchmarks good-seeds              # writes benchmarks/results/good-seeds.json

A thousand seeds draw 20 prompts as ``measure seeds`` does, halves of the prompts rank apart; the control of the rank correlation
is one half with its seeds shuffled. Then 32 seeds of the best tenth, of the worst and of all (the baseline) draw eight prompts
that ranked nothing, at the usual steps and guidance, and the oracle judges: text alignment, similarity to real renderings of the
thing, and nearness to the mean picture of its prompt. The ranking reads the bundled dual encoder, never the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import Float

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.ledger import ROOT
from benchmarks.harness.subjects import COLOURS, JudgedModel
from photopic.core.config import Config
from photopic.core.runs import Run
from photopic.data import scenes, splits
from photopic.measure.seeds import ATTRIBUTES, SeedsConfig, seeds, spearman
from photopic.metrics.intervals import Interval, paired_bootstrap
from photopic.models.dual_encoder import DualEncoder

SEED = 2_000_000  # the first that is ranked; 500,000 to 700,100 chose the settings
HELD, TAKEN = 8, 32  # prompts that ranked nothing, and seeds of each end that draw them
CLAIMS = (
    Claim("good_seed.rank_correlation", "> 0.5", "Spearman of the seeds' scores in two halves of the prompts"),
    *(
        Claim(f"good_seed.rank_correlation_{name}", "> 0.5" if name in "xy" else "", f"the same of the mean {name}")
        for name in ATTRIBUTES
    ),
    Claim("good_seed.identified", ">= 0.1", "pictures of the other half given to their seed; baseline: chance"),
    *(
        Claim(
            f"good_seed.best_minus_worst_{name}", "low > 0", f"{what}, prompts that ranked nothing, best tenth - worst"
        )
        for name, what in (
            ("alignment", "oracle text alignment"),
            ("similarity", "oracle similarity to real renderings"),
            ("typicality", "oracle cosine to the mean of as many seeds of all"),
        )
    ),
)


@dataclass(frozen=True)
class GoodSeedsBenchConfig(Config):
    """How much is measured."""

    seeds: Annotated[int, Ge(320)] = 1000  # that are ranked
    prompts: Annotated[int, Ge(4)] = 20  # that rank them
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Part:
    """``ranking`` of so many seeds by so many prompts, or what the oracle says of held-out prompt ``number``."""

    what: str
    seeds: int
    prompts: int
    number: int = 0


def named(count: int) -> list[tuple[str, str]]:
    """Known concepts and prompts of them, no concept twice; those that rank come first."""
    names = np.random.default_rng(13).permutation(sorted(splits.KNOWN))[:count]
    return [
        (str(name), f"{scenes.with_article(str(name))} on {scenes.with_article(COLOURS[k % 12] + ' background')}")
        for k, name in enumerate(names)
    ]


def measure(bench: Bench[Any, JudgedModel], part: Part) -> dict[str, Any]:
    """The ranking as JSON, or scores of ``best``, ``worst`` and ``all``, lists over seeds."""
    judge = bench.subject
    if part.what == "ranking":
        said = [prompt for _, prompt in named(part.prompts)]
        run = Run(ROOT / "runs" / "good-seeds" / f"ranking-{part.seeds}-{part.prompts}")
        found = seeds(
            judge.model,
            DualEncoder.load("emoji-clip-vit"),
            prompts=said,
            config=SeedsConfig(count=part.seeds, seed=SEED),
            run=run,
        )
        return {"values": dict(found.values), "rows": [dict(each) for each in found.rows]}
    ranked = [each["seed"] for each in bench.found(Part("ranking", part.seeds, part.prompts))["rows"]]
    tenth, rng = len(ranked) // 10, np.random.default_rng((14, part.number))
    name, said_now = named(part.prompts + HELD)[part.prompts + part.number]
    pools = {"best": ranked[:tenth], "worst": ranked[-tenth:], "all": ranked}
    scores = {}
    for pool, among in pools.items():
        chosen = [int(each) for each in rng.choice(among, TAKEN, replace=False)]
        images = judge.drawn([said_now] * TAKEN, chosen)
        scores[pool] = judge.oracle.score(images)
    real = real_embeddings(judge, name)
    centre = scores["all"].embedding.numpy().mean(0)
    centre /= np.linalg.norm(centre)
    return {
        pool: {
            "alignment": judge.oracle.text_alignment(each, [said_now] * TAKEN).tolist(),
            "similarity": (each.embedding.numpy() @ real.T).mean(1).tolist(),
            "typicality": (each.embedding.numpy() @ centre).tolist(),
        }
        for pool, each in scores.items()
    }


def real_embeddings(judge: JudgedModel, name: str) -> Float[np.ndarray, "n 128"]:
    """Oracle embeddings of the thing in the styles the model draws, on six backgrounds each."""
    drawn = [
        scenes.compose([scenes.Placement(name, style, (0.5, 0.5), 0.75)], scenes.Background(colour)).image
        for style in ("noto", "twemoji")
        for colour in COLOURS[:6]
    ]
    found: np.ndarray = judge.oracle.score(np.stack(drawn)).embedding.numpy()
    return found


def parts(config: GoodSeedsBenchConfig) -> list[Part]:
    """The ranking, then the held-out prompts."""
    told = (config.seeds, config.prompts)
    return [Part("ranking", *told), *(Part("held out", *told, number) for number in range(HELD))]


def correlation(one: np.ndarray, other: np.ndarray) -> Interval:
    """Spearman's rank correlation with its percentile interval over seeds."""
    rng = np.random.default_rng(15)
    places = rng.integers(0, len(one), (2000, len(one)))
    draws = [spearman(one[each], other[each]) for each in places]
    return Interval(spearman(one, other), *map(float, np.quantile(draws, (0.025, 0.975))))


def rows(bench: Bench[GoodSeedsBenchConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    first, *held = (bench.found(part) for part in bench.cases)
    values, n = first["values"], bench.config.seeds
    one, two = (np.array([each[half] for each in first["rows"]]) for half in ("half_1", "half_2"))
    shuffled = spearman(one, np.random.default_rng(16).permutation(two))
    yield row("good_seed.rank_correlation", correlation(one, two), control=shuffled, n=n)
    for name in ATTRIBUTES:
        yield row(f"good_seed.rank_correlation_{name}", values[f"rank_correlation_{name}"], n=n)
    shown = n * (bench.config.prompts // 2)
    yield row("good_seed.identified", values["identified"], baseline=values["chance"], n=shown)
    groups = [number for number in range(HELD) for _ in range(TAKEN)]
    for name in ("alignment", "similarity", "typicality"):
        best, worst, usual = (np.concatenate([each[pool][name] for each in held]) for pool in ("best", "worst", "all"))
        note = f"best {best.mean():.4f}, worst {worst.mean():.4f}, any {usual.mean():.4f}"
        gain = paired_bootstrap(best, worst, groups=groups)
        yield row(f"good_seed.best_minus_worst_{name}", gain, n=len(groups), note=note)


BENCHMARKS = (
    Benchmark(
        "good-seeds", __doc__, GoodSeedsBenchConfig(), GoodSeedsBenchConfig(320, 4), CLAIMS, rows, parts, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), together=lambda part: 0, seeds=(13, 14, 15, 16, SEED),
    ),
)  # fmt: skip
