"""What a text-to-image model knows of pictures: it names them by its own errors, and its blocks are read by linear probes.

    python -m benchmarks perception            # writes benchmarks/results/perception.json

The diffusion classifier chooses among things that the bundled model drew in training, single, in styles it knows.
Control: pictures and classes dealt anew. Features: few-shot tasks drawn by several seeds; baseline is the same probe on pixels, the
control the probe on the same features with shuffled labels. A quiet thread takes about a quarter of an hour, half of it for looking
at all timesteps for all classes; each case is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.data import emoji_world
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import FewShotTask
from photopic.data.scenes import SceneOptions, sample_scene
from photopic.measure.diffusion_classifier import DiffusionClassifierConfig, diffusion_classifier
from photopic.measure.diffusion_features import DiffusionFeaturesConfig, diffusion_features
from photopic.metrics.intervals import bootstrap, wilson
from photopic.models.text_to_image.handle import TextToImage

SEED = 8_600_000
CLAIMS = (
    Claim(
        "diffusion_classifier.top1",
        "low > 0.2",
        "named right of so many things; baseline: chance; control: classes dealt anew",
    ),
    Claim("diffusion_classifier.vs_naive", ">= 8", "calls of classes x samples over those with elimination"),
    Claim(
        "diffusion_classifier.top1_drop",
        "high < 0.05",
        "named right at all timesteps less with elimination, a part of the pictures",
    ),
    Claim(
        "diffusion_features.best_vs_pixels",
        "low > 0",
        "accuracy of the best block, chosen on other seeds, less pixels; control: shuffled",
    ),
)


@dataclass(frozen=True)
class PerceptionConfig(Config):
    """How much is measured."""

    classes: Annotated[int, Ge(2)] = 40  # things to choose from
    pictures: Annotated[int, Ge(1)] = 80  # to name
    naive: Annotated[int, Ge(0)] = 16  # of them also at all timesteps for all classes
    seeds: Annotated[int, Ge(2)] = 6  # tasks for the features
    groups: Annotated[int, Ge(2)] = 12  # classes of such a task
    shots: Annotated[int, Ge(1)] = 8  # pictures of each class to fit on
    judged: Annotated[int, Ge(1)] = 12  # pictures of each class to judge on
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Case:
    """Some pictures to name, all timesteps or in stages; or one task for the features."""

    kind: str
    first: int
    count: int
    classes: int
    judged: int = 0


def things(count: int) -> tuple[str, ...]:
    """Known things that are drawn in every training style."""
    styles = set(emoji_world.TRAINING_STYLES)
    found = sorted(
        item.name for item in emoji_world.select(split="known") if not item.is_variant and styles <= set(item.styles)
    )
    return tuple(sorted(map(str, np.random.default_rng(SEED).choice(found, count, replace=False))))


def measure(bench: Bench[Any, TextToImage], case: Case) -> Any:
    """Whether each picture was named right, and the calls; or accuracies by block and timestep, with pixels and shuffled."""
    if case.kind == "features":
        return features(bench.subject, case)
    names = things(case.classes)
    places = range(case.first, case.first + case.count)
    options = [
        SceneOptions(
            concepts=(names[place % len(names)],), styles=emoji_world.TRAINING_STYLES, size=64, objects=(1.0, 0, 0, 0)
        )
        for place in places
    ]
    pictures = np.stack([sample_scene(each, (SEED, place)).image for each, place in zip(options, places, strict=True)])
    config = DiffusionClassifierConfig(seed=case.first)  # a picture meets the same noise in both kinds of case
    if case.kind == "naive":
        config = replace(config, samples=config.samples[-1:], keep=())
    report = diffusion_classifier(bench.subject, pictures, classes=names, config=config)
    named = [names.index(each["named"]) for each in report.rows]
    return {"named": named, "true": [place % len(names) for place in places], "calls": report.values["calls"]}


def features(model: TextToImage, case: Case) -> dict[str, float]:
    """One task of groups of things: train and test things differ."""
    train, test = emoji_task(
        "groups", classes=case.classes, train_per_class=case.count, test_per_class=case.judged, seed=case.first
    )
    config = DiffusionFeaturesConfig(timesteps=(10, 100, 400), seed=case.first)
    found = diffusion_features(model, FewShotTask(train, test), config=config)
    shuffled = replace(train, labels=np.random.default_rng((SEED, case.first)).permutation(train.labels))
    control = diffusion_features(model, FewShotTask(shuffled, test), config=replace(config, timesteps=(10,)))
    surface = {f"{each['block']} {each['timestep']}": each["accuracy"] for each in found.rows}
    middle = next(each["accuracy"] for each in control.rows if each["block"] == "mid_block")
    return surface | {"pixels": found.values["pixels"], "latents": found.values["latents"], "shuffled": middle}


def cases(config: PerceptionConfig) -> list[Case]:
    """A few pictures, or one task, at a time; a minute or two each."""
    named = [
        Case(kind, first, min(4, count - first), config.classes)
        for kind, count in (("staged", config.pictures), ("naive", config.naive))
        for first in range(0, count, 4)
    ]
    return named + [Case("features", seed, config.shots, config.groups, config.judged) for seed in range(config.seeds)]


def rows(bench: Bench[PerceptionConfig, TextToImage]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    found = {
        kind: [bench.found(case) for case in bench.cases if case.kind == kind]
        for kind in ("staged", "naive", "features")
    }
    named, true = (np.concatenate([each[key] for each in found["staged"]]) for key in ("named", "true"))
    dealt = np.random.default_rng(SEED).permutation(true)
    beside: dict[str, Any] = {"baseline": 1 / bench.config.classes, "control": float((named == dealt).mean())}
    yield row("diffusion_classifier.top1", wilson(int((named == true).sum()), len(true)), n=len(true), **beside)
    whole = bench.config.classes * DiffusionClassifierConfig().samples[-1]
    calls = sum(each["calls"] for each in found["staged"]) / len(true)
    yield row(
        "diffusion_classifier.vs_naive", whole / calls, n=len(true), note=f"{calls:.0f} calls a picture, not {whole}"
    )
    if found["naive"]:
        every, same = (np.concatenate([each[key] for each in found["naive"]]) for key in ("named", "true"))
        drop = (every == same).astype(float) - (named == true)[: len(every)]
        yield row("diffusion_classifier.top1_drop", bootstrap(drop, seed=SEED), n=len(every))
    places = [key for key in found["features"][0] if " " in key]
    gains, chosen = [], []
    for number, each in enumerate(found["features"]):  # the place is chosen on the other tasks
        others = [other for place, other in enumerate(found["features"]) if place != number]
        best = max(places, key=lambda place: sum(other[place] for other in others))
        gains.append(each[best] - each["pixels"])
        chosen.append(best)
    pixels, control = (float(np.mean([each[key] for each in found["features"]])) for key in ("pixels", "shuffled"))
    note = f"chosen: {', '.join(sorted(set(chosen)))}"
    gain = bootstrap(gains, seed=SEED)
    yield row("diffusion_features.best_vs_pixels", gain, n=len(gains), baseline=pixels, control=control, note=note)


QUICK = PerceptionConfig(3, 2, 1, 2, 3, 2, 2)
BENCHMARKS = (
    Benchmark(
        "perception", __doc__, PerceptionConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: TextToImage.load(config.model, "cpu"), seeds=(0, 1, 2, 3, 4, 5, SEED),
    ),
)  # fmt: skip
