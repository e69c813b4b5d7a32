"""A short search against LoRA r=4 on the same pictures: seconds side by side, similarity, drift; several subjects and seeds.

    python -m benchmarks race-search              # writes benchmarks/results/race-search.json
    python -m benchmarks race-search --quick      # one subject, few steps; prints only
    python -m benchmarks race-search-half         # ours with half the pictures a step, as the short LoRA has; 11 minutes

Ours is ``photopic locate neurons --binary`` at its defaults, without the guard's evaluation. Rate, decays and steps were chosen
before, on the tuning subjects of the race and on four others; none of the eight here is among them. The steps of the three
trainings alternate in one process, so that all meet the same state of a noisy machine; seconds are CPU seconds of one thread,
the encoding of the pictures included.
"""

from __future__ import annotations

import copy
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.subjects import JudgedModel
from benchmarks.tune.race import own_methods, peers
from benchmarks.tune.race.measuring import SEED, Race
from benchmarks.tune.race.memory import scratch
from benchmarks.tune.race.plan import RaceConfig
from benchmarks.tune.race.subject_case import Given
from photopic.core.config import Config
from photopic.locate.concept_neurons import DENSITY, SHORT
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap
from photopic.models.text_to_image.handle import TextToImage

PEERS = ("lora4", "short_lora4")
CLAIMS = (
    Claim(
        "race.search_seconds_vs_lora4", "<= 0.5", "CPU seconds of a binary search over LoRA r=4 with twice the steps"
    ),
    Claim("race.search_seconds_vs_short_lora4", "<= 1", "the same over a LoRA of as many steps and half the pictures"),
    Claim("race.search_similarity_vs_lora4", ">= 0", "similarity to the subject, ours minus theirs"),
    Claim("race.search_similarity_vs_short_lora4", ">= 0.03", "similarity to the subject, ours minus theirs"),
    Claim("race.search_drift_vs_lora4", "<= 0", "1 - cosine of unrelated pictures to the base's, ours minus theirs"),
    Claim("race.search_half_seconds_vs_short_lora4", "<= 1", "both of as many steps and pictures"),
    Claim("race.search_half_similarity_vs_short_lora4", ">= 0.03", "similarity to the subject, ours minus theirs"),
    Claim("race.search_*"),
)


@dataclass(frozen=True)
class SearchConfig(Config):
    """How much is measured; no subject was in a trial of the settings."""

    subjects: tuple[str, ...] = (  # held-out subjects
        "panda", "tropical fish", "strawberry", "violin", "raccoon", "sunflower", "sailboat", "hamburger",
    )  # fmt: skip
    seeds: tuple[int, ...] = (0, 1, 2)  # trainings of each subject and way
    steps: Annotated[int, Ge(1)] = SHORT.steps  # of ours and of the short LoRA; the other takes twice as many
    batch: Annotated[int, Ge(2)] = 8  # pictures a step of the long LoRA; half of it for the short one
    half: bool = False  # whether ours has half the pictures too, beside the short LoRA alone
    preservation: Annotated[int, Ge(1)] = 200  # preservation pictures
    samples: Annotated[int, Ge(1)] = 8  # pictures of the token prompt
    others: Annotated[int, Ge(1)] = 6  # pictures of unrelated prompts
    model: str = "emoji-diffusion"  # a bundled name or a folder

    @property
    def peers(self) -> tuple[str, ...]:
        """The LoRAs that are trained."""
        return PEERS[1:] if self.half else PEERS


@dataclass(frozen=True)
class Training:
    """A subject, a seed, and how it is trained and judged."""

    name: str
    seed: int
    config: SearchConfig


def cases(config: SearchConfig) -> list[Training]:
    """Seeds in turn, so that a run that is stopped has every subject."""
    return [Training(name, seed, config) for seed in config.seeds for name in config.subjects]


def trainings(judge: JudgedModel, case: Training, folder: Path) -> dict[str, Iterator[int]]:
    """All by name, each on a model of its own; they yield after every step."""
    model, config, given = judge.model, case.config, Given.of(case.name)
    steps, size = config.steps, config.batch
    own = size // 2 if config.half else size
    common: dict[str, Any] = {"preservation": config.preservation, "seed": case.seed}
    found = {
        "neurons": own_methods.search(
            model, given, folder / "neurons", steps=steps, batch=own, density=DENSITY, schedule=SHORT, **common
        )
    }
    for name in config.peers:
        copied = TextToImage(copy.deepcopy(model.pipeline), model.name, knows_emoji=model.knows_emoji)
        rate, count, batch = (1e-3, 2 * steps, size) if name == "lora4" else (2e-3, steps, size // 2)
        how: dict[str, Any] = {"rate": rate, "counts": (count,), "batch": batch}
        found[name] = peers.train("lora4", copied, given, judge.base, folder / name, **how, **common)
    return found


def seconds_of(running: dict[str, Iterator[int]]) -> dict[str, float]:
    """CPU seconds of trainings whose steps alternate; each is run to its end."""
    seconds = dict.fromkeys(running, 0.0)
    while running:
        for name, training in list(running.items()):
            began = time.process_time()
            if next(training, None) is None:
                del running[name]
            seconds[name] += time.process_time() - began
    return seconds


def measure(bench: Bench[SearchConfig, Race], case: Training) -> dict[str, dict[str, Any]]:
    """By way: similarity and drift of each picture, and CPU seconds."""
    race, folder = bench.subject, scratch()
    try:
        seconds, found = seconds_of(trainings(race.judge, case, folder)), {}
        for way in seconds:
            (made,) = [each for each in (folder / way).iterdir() if each.is_dir()]  # named by its number of steps
            pictures = race.drawn(made, case.name, case.config.samples, SEED + 1000 * case.seed, case.config.others)
            found[way] = {"similarity": pictures[0].tolist(), "drift": pictures[2].tolist(), "seconds": seconds[way]}
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rows(bench: Bench[SearchConfig, Race]) -> Iterator[Row]:
    """All claims; subjects are resampled."""
    every = [(case.name, bench.found(case)) for case in cases(bench.config)]
    search = "race.search_half" if bench.config.half else "race.search"
    of = f"{len(bench.config.subjects)} subjects, {len(every)} trainings a way"

    def column(way: str, what: str) -> tuple[np.ndarray, list[str]]:
        values = [np.atleast_1d(found[way][what]) for _, found in every]
        return np.concatenate(values), [name for (name, _), each in zip(every, values, strict=True) for _ in each]

    for peer in bench.config.peers:
        (ours, names), (theirs, _) = column("neurons", "seconds"), column(peer, "seconds")
        note = f"median ratio {statistics.median(ours / theirs):.3f}; {ours.mean():.1f} s against {theirs.mean():.1f} s; {of}"
        yield row(f"{search}_seconds_vs_{peer}", ratio_bootstrap(ours, theirs, groups=names), n=len(ours), note=note)
        for what in ("similarity", "drift"):
            (ours, names), (theirs, _) = column("neurons", what), column(peer, what)
            interval: Sequence[float] = paired_bootstrap(ours, theirs, groups=names)
            note = f"{ours.mean():.3f} against {theirs.mean():.3f}; {of}"
            yield row(f"{search}_{what}_vs_{peer}", interval, baseline=theirs.mean(), n=len(ours), note=note)
    for way in ("neurons", *bench.config.peers):
        for what in ("similarity", "drift"):
            values, names = column(way, what)
            yield row(f"{search}_{what}.{way}", bootstrap(values, groups=names), n=len(values))


def benchmark(name: str, config: SearchConfig, **less: Any) -> Benchmark[SearchConfig, Race]:
    """One result; ``less`` is what its quick run has else."""
    quick = SearchConfig(("panda",), (0,), steps=4, preservation=8, samples=2, others=2, **less)
    return Benchmark(
        name, __doc__ or "", config, quick, CLAIMS, rows, cases, measure,
        open=lambda config, cache: Race(JudgedModel(config.model, cache), RaceConfig()),
        seeds=(*config.seeds, SEED), folder="customisation",
    )  # fmt: skip


BENCHMARKS = (
    benchmark("race-search", SearchConfig(), batch=2),
    benchmark("race-search-half", SearchConfig(seeds=(0, 1), half=True), batch=4, half=True),
)
