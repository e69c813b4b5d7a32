"""Does style injection draw one emoji in the manner of another vendor's, and is it still the same thing?

    python -m benchmarks style-injection         # writes benchmarks/results/style-injection.json

Pairs of real pictures: a known thing in one of the two styles that emoji-diffusion draws, and another thing in the other style on
another background. Each content is drawn again without injection (the baseline), in the style of its partner, and in that of the
partner's twin in the content's own style (the control: the other vendor's probability should stay). The oracle judges: probability
of the style, the most likely concept, and as content's distance 1 minus the cosine of its embeddings to the content picture.
The published settings inject in the same pairs. From a prompt alone each content and its background are said in words, with a
seed of its own, and drawn plainly (the baseline) and in the style.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import UInt8

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.subjects import COLOURS, JudgedModel
from photopic.core.config import Config
from photopic.data import emoji_world, scenes, splits
from photopic.data.pixels import from_pixels
from photopic.generate.style.style_injection import StyleInjection, StyleInjectionConfig
from photopic.metrics.intervals import paired_bootstrap, ratio_bootstrap

SIZE = 16  # pairs of a case
STYLES = ("noto", "twemoji")
SEED = 9_900_000  # of the pictures of prompts alone
GAMMA = StyleInjectionConfig().gamma
GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0)
CONFIGS = {
    "again": StyleInjectionConfig(until=0.0),
    "injected": StyleInjectionConfig(),
    "paper": StyleInjection.about.presets["paper"],  # type: ignore[attr-defined]
}
CLAIMS = (
    Claim("styleid.style_gain", ">= 0.3", "oracle probability of the style's vendor, injected minus drawn again"),
    Claim("styleid.style_gain_same_vendor", "", "the same vendor's, where the style picture is the content's vendor's"),
    Claim("styleid.content_kept", ">= 0.8", "concept named right, injected over drawn again"),
    Claim("styleid.background_taken", "", "background colour is the style picture's, injected; baseline: drawn again"),
    Claim("styleid.style_gain_paper", "", "as style_gain, with the published settings"),
    Claim("styleid.content_kept_paper", "", "as content_kept, with the published settings"),
    Claim("styleid.prompt_style_gain", "", "from a prompt alone: probability of the style's vendor, in the style minus plain"),
    Claim("styleid.prompt_content_kept", "", "from a prompt alone: concept named right, in the style over plain"),
    Claim("styleid.prompt_background_taken", "", "background colour is the style picture's and not the prompt's; baseline: plain"),
    Claim("styleid.content_step", ">= 0", "least fall of the content's distance from one gamma to the next higher"),
)  # fmt: skip


@dataclass(frozen=True)
class StyleBenchConfig(Config):
    """How much is measured."""

    cases: Annotated[int, Ge(1)] = 16  # of 16 pairs, drawn again and injected
    swept: Annotated[int, Ge(1)] = 4  # of them also with the same vendor and at other gammas
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Case:
    """Pairs drawn in one way: ``again``, ``injected``, ``same`` (vendor), ``paper``, ``plain`` or ``prompt`` (by words alone)."""

    number: int
    way: str
    gamma: float = GAMMA


@dataclass(frozen=True)
class Pair:
    """What is drawn in the manner of what."""

    content: str
    style: str
    vendor: str  # of the style picture
    own: str  # of the content
    colours: tuple[str, str]  # of the backgrounds, content and style


class Paired(StyleInjection):
    """Draws every picture of a batch again in a style of its own: the same computation, many at once."""

    styles = SIZE

    def __init__(self, pictures: np.ndarray, config: StyleInjectionConfig):
        self.pictures, self.config = pictures, config  # (32 or 16, 64, 64, 3), the styles first

    def applied(self, model: Any) -> AbstractContextManager[None]:
        self.known = model.encode_images(from_pixels(self.pictures))
        self.empty = model.encode_prompts([""] * len(self.pictures))
        return nullcontext()


def pair(number: int) -> Pair:
    """Two known things that both vendors draw, on two backgrounds."""
    names = sorted(name for name in splits.KNOWN if set(STYLES) <= set(emoji_world.concept(name).styles))
    rng = np.random.default_rng((18, number))
    content, style = map(str, rng.choice(names, 2, replace=False))
    one, other = map(str, rng.choice(COLOURS, 2, replace=False))
    return Pair(content, style, STYLES[number % 2], STYLES[1 - number % 2], (one, other))


def picture(concept: str, style: str, colour: str) -> UInt8[np.ndarray, "64 64 3"]:
    """A thing in the middle of a flat background."""
    placed = scenes.Placement(concept, style, (0.5, 0.5), 0.75)
    return scenes.compose([placed], scenes.Background(colour)).image


def measure(bench: Bench[Any, JudgedModel], case: Case) -> dict[str, Any]:
    """Of each pair the vendor's probability, whether the thing and the style's background are there, and the distance."""
    judge, pairs = bench.subject, [pair(case.number * SIZE + index) for index in range(SIZE)]
    config = replace(
        CONFIGS.get(case.way, CONFIGS["injected"]), **({} if case.way == "paper" else {"gamma": case.gamma})
    )
    contents = np.stack([picture(each.content, each.own, each.colours[0]) for each in pairs])
    vendors = [each.own if case.way == "same" else each.vendor for each in pairs]
    styles = [picture(each.style, vendor, each.colours[1]) for each, vendor in zip(pairs, vendors, strict=True)]
    if case.way in ("plain", "prompt"):
        said = [
            f"{scenes.with_article(each.content)} on {scenes.with_article(each.colours[0] + ' background')}"
            for each in pairs
        ]
        controls = [Paired(np.stack(styles), config)] if case.way == "prompt" else []
        seeds = range(SEED + case.number * SIZE, SEED + (case.number + 1) * SIZE)
        images = judge.drawn(said, seeds, controls=controls, scheduler="ddim")
    else:
        images = judge.drawn(
            "", range(SIZE), guidance=1.0, controls=[Paired(np.concatenate([styles, contents]), config)]
        )
    scores = judge.oracle.score(images)
    found = judge.oracle.style_probabilities(scores)[1]
    places = [judge.oracle.config.styles.index(each.vendor) for each in pairs]
    near = (scores.embedding * judge.oracle.score(contents).embedding).sum(1).numpy()
    return {
        "style": found[range(SIZE), places].tolist(),
        "right": [found == each.content for found, each in zip(judge.oracle.concept(scores), pairs, strict=True)],
        "background": [found.colour == each.colours[1] for found, each in zip(judge.oracle.background(scores), pairs, strict=True)],
        "distance": (1 - near).tolist(),
    }  # fmt: skip


def cases(config: StyleBenchConfig) -> list[Case]:
    """Everything that is drawn."""
    ways = ("again", "injected"), ("plain", "prompt"), ("paper",)  # the claims asked for first
    found = [Case(number, way) for together in ways for number in range(config.cases) for way in together]
    for number in range(config.swept):
        found += [Case(number, "same"), *(Case(number, "injected", gamma) for gamma in GAMMAS if gamma != GAMMA)]
    return found


def rows(bench: Bench[StyleBenchConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept."""

    def column(way: str, what: str, *, count: int = bench.config.swept, gamma: float = GAMMA) -> np.ndarray:
        found = [bench.found(Case(number, way, gamma))[what] for number in range(count)]
        return np.concatenate(found).astype(float)

    every, swept = bench.config.cases, bench.config.swept
    for ending, way, count in (("", "injected", every), ("_same_vendor", "same", swept), ("_paper", "paper", every)):
        again, found = (column(each, "style", count=count) for each in ("again", way))
        yield row(f"styleid.style_gain{ending}", paired_bootstrap(found, again), baseline=again.mean(), n=len(again))
    for ending, way in (("", "injected"), ("_paper", "paper")):
        again, found = (column(each, "right", count=every) for each in ("again", way))
        yield row(f"styleid.content_kept{ending}", ratio_bootstrap(found, again), baseline=again.mean(), n=len(again))
    taken, before = (column(each, "background", count=every) for each in ("injected", "again"))
    yield row("styleid.background_taken", taken.mean(), baseline=before.mean(), n=len(taken))
    plain, drawn = (
        {what: column(way, what, count=every) for what in ("style", "right", "background")}
        for way in ("plain", "prompt")
    )
    beside = {name: each.mean() for name, each in plain.items()}
    gain, kept = paired_bootstrap(drawn["style"], plain["style"]), ratio_bootstrap(drawn["right"], plain["right"])
    n = SIZE * every
    yield row("styleid.prompt_style_gain", gain, baseline=beside["style"], n=n)
    yield row("styleid.prompt_content_kept", kept, baseline=beside["right"], n=n)
    yield row("styleid.prompt_background_taken", drawn["background"].mean(), baseline=beside["background"], n=n)
    away = [column("injected", "distance", gamma=gamma) for gamma in GAMMAS]
    steps = [paired_bootstrap(less, more) for less, more in pairwise(away)]
    said = ", ".join(f"{gamma:g}: {each.mean():.4f}" for gamma, each in zip(GAMMAS, away, strict=True))
    yield row("styleid.content_step", min(steps), n=len(away[0]), note=f"distances by gamma {said}")


BENCHMARKS = (
    Benchmark(
        "style-injection", __doc__, StyleBenchConfig(), StyleBenchConfig(1, 1), CLAIMS, rows, cases, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(18, 0, SEED),
    ),
)  # fmt: skip
