"""A short search against LoRA r=4 on the same pictures: seconds side by side, similarity, drift; several subjects and seeds.

    python -m benchmarks.tune.race.searching              # writes benchmarks/results/race-search.json
    python -m benchmarks.tune.race.searching --workers 1  # the same in one process
    python -m benchmarks.tune.race.searching --quick      # one subject, few steps; prints only

Ours is ``photopic locate neurons --binary`` at its defaults, with the guard left out as every way's evaluation is. It was chosen
on the tuning subjects of the race; the subjects here are no tuning subjects, and four of the eight were in no trial before. The
steps of the three trainings alternate in one process, so that all meet the same state of a noisy machine; seconds are CPU
seconds of one thread, preparing included.
"""

from __future__ import annotations

import copy
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.cache import code_of
from benchmarks.harness.ledger import Row
from benchmarks.harness.runner import Benchmark, mine, run
from benchmarks.harness.subjects import LOCATING, Bench
from benchmarks.tune.race import own_methods, peers
from benchmarks.tune.race import plan as race_plan
from benchmarks.tune.race.measuring import SEED, Race
from benchmarks.tune.race.subject_case import Given
from photopic.locate.concept_neurons import DENSITY
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap
from photopic.models.text_to_image.handle import TextToImage

WAYS = ("neurons", "lora4", "short_lora4")


@dataclass(frozen=True)
class Settings:
    """How much is measured: of the subjects, the last four were in no trial of any benchmark here."""

    subjects: tuple[str, ...] = (
        "panda", "tropical fish", "strawberry", "violin", "raccoon", "sunflower", "sailboat", "hamburger",
    )  # fmt: skip
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 50  # of ours and of the short LoRA; the other takes twice as many, as the race has it
    batch: int = 8  # of ours and of the long LoRA; half for the short one
    preservation: int = 200
    samples: int = 8  # pictures of the token prompt
    others: int = 6  # of unrelated prompts


QUICK = Settings(("panda",), (0,), steps=4, batch=2, preservation=8, samples=2, others=2)


def trainings(
    models: Sequence[TextToImage], bench: Bench, settings: Settings, name: str, seed: int, folder: Path
) -> dict[str, Iterator[int]]:
    """The three, each on a model of its own; they yield after every step."""
    given, size, kept, steps = Given.of(name), settings.batch, settings.preservation, settings.steps
    ours, long, short = models
    common: dict[str, Any] = {"preservation": kept, "seed": seed}
    return {
        "neurons": own_methods.search(
            ours, given, folder / "neurons", steps=steps, batch=size, density=DENSITY, settings={}, **common
        ),
        "lora4": peers.train(
            "lora4", long, given, bench.base, folder / "lora4", rate=1e-3, counts=(2 * steps,), batch=size, **common
        ),
        "short_lora4": peers.train(
            "lora4", short, given, bench.base, folder / "short_lora4", rate=2e-3, counts=(steps,), batch=size // 2, **common
        ),
    }  # fmt: skip


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


class Searches:
    """What is made and kept of every subject and seed."""

    def __init__(self, bench: Bench, settings: Settings):
        self.bench, self.settings, self.kept = bench, settings, bench.kept
        self.race = Race(bench, race_plan.Settings())
        self.code = code()

    def made(self, name: str, seed: int) -> tuple[Path, dict[str, float]]:
        """The folder of the three trainings, and the CPU seconds of each."""
        data = {"subject": Given.of(name).digest, "name": name, "seed": seed, "code": self.code}
        sizes = {part: getattr(self.settings, part) for part in ("steps", "batch", "preservation")}
        key = {"searched": data | sizes}

        def make(path: Path) -> None:
            part = path.with_name(f"{path.name}.{os.getpid()}")
            model = self.bench.model
            copies = [
                TextToImage(copy.deepcopy(model.pipeline), model.name, knows_emoji=model.knows_emoji) for _ in "ab"
            ]
            seconds = seconds_of(trainings([model, *copies], self.bench, self.settings, name, seed, part))
            self.kept.value(key | {"what": "seconds"}, lambda: seconds)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(part, path)

        folder = self.kept.file(key, ".made", make)
        seconds: dict[str, float] = self.kept.value(key | {"what": "seconds"}, lambda: None)
        return folder, seconds

    def measured(self, name: str, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
        """By way: similarity and drift of its pictures, and CPU seconds."""
        folder, seconds = self.made(name, seed)
        found = {}
        for way in WAYS:
            (made,) = [each for each in (folder / way).iterdir() if each.is_dir()]  # named by its number of steps
            similarity, _, drift = self.race.drawn(
                made, name, self.settings.samples, SEED + 1000 * seed, self.settings.others
            )
            found[way] = (similarity, drift, seconds[way])
        return found


def work(bench: Bench, settings: Settings, part: str) -> None:
    """A worker's share; seeds in turn, so that a run that is stopped has every subject."""
    searches = Searches(bench, settings)
    for seed, name in mine([(seed, name) for seed in settings.seeds for name in settings.subjects], part):
        found = searches.measured(name, seed)
        print(
            name,
            seed,
            {way: f"{s.mean():.3f} {d.mean():.3f} {t:.1f} s" for way, (s, d, t) in found.items()},
            flush=True,
        )


def rows_of(bench: Bench, settings: Settings) -> list[Row]:
    """All claims; subjects are resampled."""
    searches = Searches(bench, settings)
    pairs = [(name, seed) for name in settings.subjects for seed in settings.seeds]
    found = {pair: searches.measured(*pair) for pair in pairs}

    def column(way: str, what: int) -> np.ndarray:
        return np.concatenate([each[way][what] for each in found.values()])

    names = [[pair[0] for pair, each in found.items() for _ in each["neurons"][what]] for what in (0, 1)]
    size, of = len(settings.subjects), f"{len(settings.subjects)} subjects, {len(settings.seeds)} seeds each"
    rows = []
    for peer, asked, gain in (("lora4", 0.5, "low >= -0.02"), ("short_lora4", 1.0, ">= 0.03")):
        pair = [np.array([each[way][2] for each in found.values()]) for way in ("neurons", peer)]
        middle = statistics.median(pair[0] / pair[1])
        note = f"median ratio {middle:.3f}; CPU seconds {pair[0].mean():.1f} against {pair[1].mean():.1f}; {of}"
        labels = [name for name, _ in found]
        rows.append(
            _row(f"race.seconds_vs_{peer}", ratio_bootstrap(*pair, groups=labels), f"<= {asked}", len(found), note)
        )
        for word, what, target in (("similarity", 0, gain), ("drift", 1, "<= 0" if peer == "lora4" else None)):
            both = column("neurons", what), column(peer, what)
            note = f"ours {both[0].mean():.4f}, theirs {both[1].mean():.4f}; {of}"
            interval = paired_bootstrap(*both, groups=names[what])
            rows.append(_row(f"race.search_{word}_vs_{peer}", interval, target, len(both[0]), note))
    for way in WAYS:
        rows.append(_row(f"race.search_similarity.{way}", bootstrap(column(way, 0), groups=names[0]), None, size, ""))
        rows.append(_row(f"race.search_drift.{way}", bootstrap(column(way, 1), groups=names[1]), None, size, ""))
    return rows


def _row(claim: str, interval: Sequence[float], target: str | None, n: int, note: str) -> Row:
    value, low, high = (round(float(number), 5) for number in interval)
    return Row(claim, value, min(low, value), max(high, value), target=target, n=n, note=note)


def code() -> str:
    """Hex sha256 of the code that trains and times."""
    return code_of(LOCATING, own_methods.search, peers.train, peers.learner, peers.Adapter, trainings, seconds_of)


if __name__ == "__main__":
    seeds = [*Settings().seeds, SEED]
    run(Benchmark("race-search", __file__, __doc__ or "", Settings(), QUICK, work, rows_of, seeds, code))
