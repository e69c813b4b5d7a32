"""Does each thing of one masked picture come alone by its own word, and both by both?

    python -m benchmarks break-a-scene                    # writes benchmarks/results/break-a-scene.json

Protocol, written before the run; settings were chosen on the pair polar bear, tiger. Five scenes of two held-out concepts in a
held-out style, side by side on one background, with exact masks; the words are ``<one> noun`` and ``<two> noun``. Ways: the
method; DreamBooth with the masked loss but without the loss of attention; textual inversion with the masked loss (words alone, as
many steps as both phases, at the rate that the race chose for it); the method without union sampling; and words that learnt
nothing (negative control: what the nouns give). Each draws pictures of each word alone and twice as many of both, every other one
with the two named the other way round, on the other colours, with the same seeds. The judge is the oracle: a subject is there if
the place most like it is taken for it and not for the other or for a noun of either. Alone is right if that one is there and the
other is not; both are right if both are there, apart. Scenes are resampled whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import NotMeasured
from benchmarks.harness.ledger import ROOT
from benchmarks.harness.subjects import COLOURS, JudgedModel
from benchmarks.tune.race.presence import found as recognised
from photopic.core.config import Config
from photopic.core.files import write_atomically
from photopic.data import scenes, splits
from photopic.data.emoji_world import HELD_OUT_STYLE
from photopic.data.layout import Layout, Region
from photopic.data.masked_picture import MaskedPicture
from photopic.data.pictures import contact_sheet, png_bytes
from photopic.data.pixels import from_pixels
from photopic.metrics.intervals import paired_bootstrap
from photopic.tune.subject.break_a_scene import BreakASceneConfig, break_a_scene

SEED = 9_700_000  # of the samples
WORDS = ("<one>", "<two>")
GROUND = "red"  # of the scenes; pictures are asked for on the others
SCENES = (  # pairs of the race's test subjects and their neighbours, with different nouns, fixed before any result
    ("zebra", "parrot"), ("tropical fish", "doughnut"), ("fire engine", "panda"), ("strawberry", "violin"),
    ("flamingo", "sunflower"),
)  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "scene": {},
    "dreambooth": {"attention_weight": 0.0},
    # with the steps of both phases, at the rate that the race chose for it
    "inversion": {"attention_weight": 0.0, "weight_steps": 0, "embedding_lr": 5e-3},
    "single": {"union": False},
    "nothing": {"embedding_steps": 1, "weight_steps": 0, "embedding_lr": 1e-9},
}
BOTH, ALONE = "share of pictures of both with both there", "share of pictures of one with that one alone there"
CLAIMS = (
    Claim("break_a_scene.both_gain", "low > 0", f"{BOTH}, minus that of DreamBooth without attention loss"),
    Claim("break_a_scene.both_vs_inversion", "low > 0", f"{BOTH}, minus that of textual inversion"),
    Claim("break_a_scene.both_vs_nothing", "low > 0", f"{BOTH}, minus that of words that learnt nothing"),
    Claim("break_a_scene.both_vs_single", "low > 0", f"{BOTH}, minus that without union sampling"),
    Claim("break_a_scene.alone_gain", "low > 0", f"{ALONE}, minus that of DreamBooth without attention loss"),
    Claim("break_a_scene.alone_vs_inversion", "low > 0", f"{ALONE}, minus that of textual inversion"),
    Claim("break_a_scene.alone_vs_nothing", "low > 0", f"{ALONE}, minus that of words that learnt nothing"),
)


@dataclass(frozen=True)
class SceneBenchConfig(Config):
    """How much is measured."""

    scenes: Annotated[int, Ge(1)] = len(SCENES)  # of two things each
    samples: Annotated[int, Ge(1)] = 8  # pictures of each word alone; twice as many of both
    learning: BreakASceneConfig = field(default_factory=BreakASceneConfig)  # how scenes are learnt
    model: str = "emoji-diffusion"  # a bundled name or a folder


QUICK = SceneBenchConfig(1, 2, BreakASceneConfig(embedding_steps=2, weight_steps=2, preservation_count=4))


@dataclass(frozen=True)
class Case:
    """One scene learnt in one way."""

    scene: int
    way: str
    samples: int
    learning: BreakASceneConfig


def masked(pair: tuple[str, str]) -> MaskedPicture:
    """Two things side by side, with the masks of what is seen of each."""
    placed = [scenes.Placement(name, HELD_OUT_STYLE, (0.27 + 0.46 * at, 0.5), 0.5) for at, name in enumerate(pair)]
    scene = scenes.compose(placed, scenes.Background(GROUND))
    regions = [Region(said, mask=mask) for said, mask in zip(_said(pair), scene.masks, strict=True)]
    return MaskedPicture(from_pixels(scene.image[None])[0], Layout(tuple(regions)))


def prompts(pair: tuple[str, str], count: int) -> list[list[str]]:
    """Those of each thing alone and of both."""
    colours = [each for each in COLOURS if each != GROUND]
    first, second = (scenes.with_article(each) for each in _said(pair))

    def on(what: str, number: int) -> str:
        return f"{what} on {scenes.with_article(colours[number % len(colours)] + ' background')}"

    both = [f"{first} and {second}", f"{second} and {first}"]
    return [
        [on(first, number) for number in range(count)],
        [on(second, number) for number in range(count)],
        [on(both[number % 2], number) for number in range(2 * count)],
    ]


def measure(bench: Bench[Any, JudgedModel], case: Case) -> dict[str, Any]:
    """Learn, draw and judge: right or not of every picture."""
    judge, pair, config = bench.subject, SCENES[case.scene], replace(case.learning, **WAYS[case.way])
    if case.way == "inversion":
        config = replace(config, embedding_steps=case.learning.steps)
    edit = break_a_scene(judge.model, masked(pair), config=replace(config, seed=case.scene))
    with judge.model.edits.applied(edit):
        drawn = [judge.drawn(said, range(SEED, SEED + len(said)), batch=24) for said in prompts(pair, case.samples)]
    seen = [recognised(judge, judge.oracle.score(each), pair) for each in drawn]
    alone = [seen[at].there[at] & ~seen[at].there[1 - at] for at in (0, 1)]
    bench.array({"pictures": case}, lambda: np.concatenate([each[:6] for each in drawn]))
    return {"alone": np.concatenate(alone).tolist(), "both": seen[2].all_apart().tolist()}


def _said(pair: tuple[str, str]) -> list[str]:
    return [f"{word} {splits.SUBJECTS[name]}" for word, name in zip(WORDS, pair, strict=True)]


def cases(config: SceneBenchConfig) -> list[Case]:
    """Every scene in every way; those without union sampling come last."""
    asked = [(number, way) for number in range(config.scenes) for way in WAYS]
    asked.sort(key=lambda each: each[1] == "single")
    return [Case(number, way, config.samples, config.learning) for number, way in asked]


def rows(bench: Bench[SceneBenchConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    found = {way: [bench.found(case) for case in bench.cases if case.way == way] for way in WAYS}
    for claim, what, other in (
        ("both_gain", "both", "dreambooth"), ("both_vs_inversion", "both", "inversion"),
        ("both_vs_nothing", "both", "nothing"), ("both_vs_single", "both", "single"),
        ("alone_gain", "alone", "dreambooth"), ("alone_vs_inversion", "alone", "inversion"),
        ("alone_vs_nothing", "alone", "nothing"),
    ):  # fmt: skip
        ours, theirs, control = (
            np.concatenate([np.array(each[what], float) for each in found[way]]) for way in ("scene", other, "nothing")
        )
        groups = [number for number, each in enumerate(found["scene"]) for _ in each[what]]
        gap = paired_bootstrap(ours, theirs, groups=groups)
        note = f"{ours.mean():.3f} against {theirs.mean():.3f}"
        yield row(f"break_a_scene.{claim}", gap, baseline=theirs.mean(), control=control.mean(), n=len(ours), note=note)


def missing() -> np.ndarray:
    """What stands for pictures that are not kept."""
    raise NotMeasured


def draw(bench: Bench[SceneBenchConfig, JudgedModel], rows: Any) -> None:
    """The picture of the page: of two scenes each way's first pictures, words alone and then both."""
    shown = [case for number in (0, 2) for case in bench.cases if case.scene == number and case.way != "nothing"]
    sheets = [bench.array({"pictures": case}, missing) for case in shown]  # (18, 64, 64, 3) each
    chosen = [each[at] for each in sheets for at in (0, 1, 2, 6, 7, 8, 12, 13, 14, 15, 16, 17)]
    write_atomically(ROOT / "docs/images/break-a-scene.png", png_bytes(contact_sheet(chosen, columns=12)))


BENCHMARKS = (
    Benchmark(
        "break-a-scene", __doc__, SceneBenchConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(0, 1, 2, 3, 4, SEED),
        finish=draw,
    ),
)  # fmt: skip
