"""Does each condition act on what is drawn, on what else does it act, and do several act together?

    python -m benchmarks composer        # writes benchmarks/results/composer.json

Protocol, written before the run. 256 scenes of one or two known things, seeds that no training saw; ``emoji-composer`` draws with
four steps of DDIM (for time) without guidance (w = 1), the prompt empty but where the caption is the condition; picture i of every
setting starts at the same noise. Looked at before, on eight other scenes and an earlier checkpoint: that pictures came out.
Settings: no condition; each of the eight alone, with that of the scene (wanted) or of the next scene (shuffled, the control, on
the first 64 for time: errors are still to the scene's own); and combinations fixed beforehand. A condition's error is that of
``metrics/conditions.py``; the embedding's is 1 - cosine in ``emoji-clip-cnn``, which the model never read; the caption's 1 - the
oracle's text alignment. Intervals: bootstrap over scenes.

- ``composer.gain.K``: error of K without any condition less that with K, in K's unit; baseline the error without, control the
  same with the shuffled condition.
- ``composer.leak.K_on_J``: the same of every other J, as a share of its error without any.
- ``composer.kept.C.K``: of a combination C, share of K's own gain that is left.
- ``composer.swap.palette``: sketch of the scene, palette of the next: L1 to the scene's own palette less L1 to the wanted one.
- ``composer.swap.sketch``: F1 of lines with the swapped palette less that with the scene's own.
- ``composer.step_cost``: processor seconds of a network call that reads all conditions over those of one that reads none, batches
  of 16, calls in turns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from PIL import Image

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from benchmarks.harness.ledger import ROOT
from benchmarks.harness.timing import median_ratio, side_by_side
from photopic.core.config import Config
from photopic.data.conditioned_pictures import training_scene
from photopic.data.conditions import EIGHT, Conditions
from photopic.data.extraction import from_picture, from_scene, random_hidden
from photopic.data.overlays import enlarged, labelled
from photopic.data.pictures import contact_sheet
from photopic.generate.conditions import ComposedConditions
from photopic.metrics.conditions import condition_errors
from photopic.metrics.intervals import paired_bootstrap, ratio_bootstrap
from photopic.metrics.oracle import Oracle
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.conditional import ConditionalTextToImage, embedded

SEED, STEPS, CHUNK, REPEATS = 23_020, 4, 32, 25
SHOWN = 6  # scenes on the page
CONTROLS = 2  # chunks that are drawn with shuffled conditions
COMBINED = (("palette", "sketch"), ("palette", "sketch", "embedding"))
CLAIMS = (
    *(Claim(f"composer.gain.{name}", "low > 0", f"error of the {name} without less that with it") for name in EIGHT),
    Claim("composer.leak.*", "", "share by which another condition's error falls"),
    Claim("composer.kept.*", ">= 0.8", "share of the gain alone that is left together"),
    Claim("composer.swap.palette", ">= 0.4", "L1 nearer to the wanted palette than to the scene's own", "L1"),
    Claim("composer.swap.sketch", ">= -0.05", "F1 of lines, swapped palette less own"),
    Claim("composer.step_cost", "<= 1.25", "a network call with all conditions over one with none", "x"),
)


@dataclass(frozen=True)
class ComposerBenchConfig(Config):
    """How much is measured."""

    pictures: Annotated[int, Ge(CHUNK)] = 256  # scenes
    model: str = "emoji-composer"  # a bundled name or a folder


@dataclass(frozen=True)
class Case:
    """A chunk of scenes under ``names``; those in ``shifted`` are of the next scene."""

    names: tuple[str, ...]
    shifted: tuple[str, ...]
    chunk: int


class Subject:
    """The model, what judges it, and the scenes with their conditions."""

    def __init__(self, name: str):
        model = ConditionalTextToImage.load(name, device="cpu")
        assert isinstance(model, ConditionalTextToImage)
        self.model, self.digest = model, model.digest()
        self.encoder, self.judge = (
            DualEncoder.load(each, device="cpu") for each in ("emoji-clip-vit", "emoji-clip-cnn")
        )
        self.oracle = Oracle.load()
        self.scenes = cache(self.made)  # of every chunk, for all settings
        self.features = cache(lambda chunk: self.judge.image_features(self.scenes(chunk)[0]))

    def made(self, chunk: int, shift: int = 0) -> tuple[list[np.ndarray], list[Conditions]]:
        """Pictures and conditions of a chunk, or of each scene's next."""
        found, images = [], []
        for index in range(chunk * CHUNK + shift, (chunk + 1) * CHUNK + shift):
            scene = training_scene((SEED, index))
            hidden = random_hidden(np.random.default_rng((SEED, index, 1)), 64, list(scene.masks))
            images.append(scene.image)
            found.append(from_scene(scene, hidden=hidden))
        vectors = embedded(self.encoder, images)
        return images, [
            each.joined(Conditions(64, {"embedding": own.vector}, {}, own.encoder))
            for each, own in zip(found, vectors, strict=True)
        ]


def measure(bench: Bench[Any, Subject], case: Case) -> Any:
    """Errors of every condition, one a picture, and the L1 to the palette that was given."""
    subject = bench.subject
    if case.chunk < 0:
        return cost(subject)
    _, own = subject.scenes(case.chunk)
    following = subject.scenes(case.chunk, 1)[1] if case.shifted else own
    given = [
        mine.only(set(case.names) - set(case.shifted)).joined(other.only(case.shifted))
        for mine, other in zip(own, following, strict=True)
    ]
    prompts = [str(each.values.get("caption", "")) for each in given]
    seeds = range(SEED + case.chunk * CHUNK, SEED + (case.chunk + 1) * CHUNK)
    drawn = subject.model.generate(
        prompts,
        seeds=seeds,
        steps=STEPS,
        guidance=1.0,
        scheduler="ddim",
        batch=CHUNK,
        controls=[ComposedConditions(given)],
    )
    cosines = (subject.judge.image_features(list(drawn)) * subject.features(case.chunk)).sum(1).tolist()
    alignment = subject.oracle.text_alignment(drawn, [str(each.values["caption"]) for each in own]).tolist()
    rows = []
    for place, image in enumerate(drawn):
        found = from_picture(image)
        errors = condition_errors(found, own[place], image)
        errors |= {"embedding": 1 - cosines[place], "caption": 1 - alignment[place]}
        if "palette" in case.names:
            wanted = given[place].values["palette"]
            errors["wanted palette"] = float(np.abs(found.values["palette"] - wanted).sum())
        rows.append(errors)
    return {name: [each[name] for each in rows] for name in rows[0]}


def cost(subject: Subject) -> list[float]:
    """Seconds of a call with all conditions over one with none."""
    model, (_, sets) = subject.model, subject.scenes(0)
    sets = sets[:16]
    latents, timestep = torch.randn(16, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor(500)
    text = model.encode_prompts([str(each.values["caption"]) for each in sets])
    encoded = model.encode_conditions(sets)

    def plain() -> None:
        with torch.no_grad():
            model.predict(latents, timestep, text)

    def told() -> None:
        with torch.no_grad(), model.conditioned(encoded):
            model.predict(latents, timestep, text)

    theirs, ours = side_by_side([plain, told], REPEATS, warm_up=3, clock=time.process_time)
    return list(median_ratio(ours, theirs))


def cases(config: ComposerBenchConfig) -> list[Case]:
    """Every setting in chunks, and the cost of a step."""
    settings: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((), ()), *(((name,), ()) for name in EIGHT)]
    settings += [*((names, ()) for names in COMBINED), (("palette", "sketch"), ("palette",))]
    chunks = range(config.pictures // CHUNK)
    controls = [Case((name,), (name,), chunk) for name in EIGHT for chunk in chunks[:CONTROLS]]
    return [Case((), (), -1), *(Case(*setting, chunk) for setting in settings for chunk in chunks), *controls]


def rows(bench: Bench[ComposerBenchConfig, Subject]) -> Iterator[Row]:
    """All claims."""
    count = bench.config.pictures // CHUNK

    def errors(*names: str, shifted: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
        parts = [bench.found(Case(names, shifted, chunk)) for chunk in range(count)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    none, alone = errors(), {name: errors(name) for name in EIGHT}
    n = count * CHUNK
    for name in EIGHT:
        strange = np.concatenate(
            [bench.found(Case((name,), (name,), chunk))[name] for chunk in range(min(count, CONTROLS))]
        )
        control = none[name][: len(strange)] - strange
        gain = paired_bootstrap(none[name], alone[name][name])
        yield row(f"composer.gain.{name}", gain, n=n, baseline=none[name].mean(), control=control.mean())
    for name in EIGHT:
        for other in EIGHT:
            if other != name:
                fallen = ratio_bootstrap(none[other] - alone[name][other], none[other])
                yield row(f"composer.leak.{name}_on_{other}", fallen, n=n)
    for names in COMBINED:
        together = errors(*names)
        for name in names:
            kept = ratio_bootstrap(none[name] - together[name], none[name] - alone[name][name])
            yield row(f"composer.kept.{'_'.join(names)}.{name}", kept, n=n)
    swapped, whole = errors("palette", "sketch", shifted=("palette",)), errors("palette", "sketch")
    yield row("composer.swap.palette", paired_bootstrap(swapped["palette"], swapped["wanted palette"]), n=n)
    yield row("composer.swap.sketch", paired_bootstrap(whole["sketch"], swapped["sketch"]), n=n)
    yield row("composer.step_cost", bench.found(bench.cases[0]), n=REPEATS)


def finish(bench: Bench[ComposerBenchConfig, Subject], found: object) -> None:
    """The grid of the page: a row a scene, a column a condition that was kept of it; each row begins at the same noise."""
    subject = bench.subject
    images, sets = subject.scenes(900)
    columns = ((), *((name,) for name in EIGHT), ("palette", "sketch"), EIGHT)
    grid = []
    for names in columns:
        given = [each.only(names) for each in sets[:SHOWN]]
        prompts = [str(each.values.get("caption", "")) for each in given]
        controls = [ComposedConditions(given)]
        drawn = subject.model.generate(
            prompts, seeds=range(SHOWN), steps=20, guidance=2.0, scheduler="ddim", batch=SHOWN, controls=controls
        )
        head = " + ".join(names) if len(names) < len(EIGHT) else "all"
        grid.append([labelled(enlarged(image, 128), head or "nothing") for image in drawn])
    first = [labelled(enlarged(image, 128), "source") for image in images[:SHOWN]]
    rows = [each for row in zip(first, *grid, strict=True) for each in row]
    sheet = contact_sheet(rows, columns=len(columns) + 1)
    Image.fromarray(sheet).quantize(128).save(ROOT / "docs" / "images" / "composer.png", optimize=True)


def open_subject(config: ComposerBenchConfig, cache: ResultCache) -> Subject:
    """The model and its judges."""
    return Subject(config.model)


FULL = ComposerBenchConfig()
BENCHMARKS = (
    Benchmark(
        "composer",
        __doc__,
        FULL,
        replace(FULL, pictures=CHUNK),
        CLAIMS,
        rows,
        cases,
        measure,
        open_subject,
        seeds=(SEED,),
        finish=finish,
    ),
)
