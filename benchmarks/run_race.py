"""The race: eleven ways of customising one model side by side, and several subjects in one picture.

    python benchmarks/run_race.py            # writes benchmarks/results/race.json, docs/methods/race.md and its picture
    python benchmarks/run_race.py --quick    # two subjects, few steps; prints only

The plan, with all that was fixed before any result, is in benchmarks/race/README.md and benchmarks/race/plan.py.
Interrupted, it goes on from ``runs/customisation``: each training, each batch of pictures and each timing is kept.
"""

from __future__ import annotations

import sys
import warnings

from ledger import Row
from race import composing
from race.composing import KINDS
from race.given import SEED as TRAINING_SEED
from race.measuring import SEED, Race, Way, code, has_residual, ways_of
from race.page import write
from race.plan import PEERS, QUICK, RESIDUAL, SEARCH, Settings, shares
from race.rows import rows_of
from subjects import Bench
from workers import Benchmark, run


def work(bench: Bench, settings: Settings, part: str) -> None:
    """A worker's share: whole methods first (their grid, then their subjects), then groups, then timings."""
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    race = Race(bench, settings)
    index, count = map(int, part.split("/"))
    if index == 0:
        race.measure_peaks()  # forks, so before anything else
    methods = [*PEERS, SEARCH, *([RESIDUAL] if has_residual() else [])]
    shared = shares({method.name: method.cost for method in methods}, count)[index]
    for method in sorted(shared, key=lambda name: name not in ("lora4", "neurons")):  # what groups wait for comes first
        for way in (way for way in ways_of(settings) if way.method == method):
            _singles(race, way)
    if index == count - 1:
        for name in settings.test:
            race.measured(None, name)
    _groups(race, index, count)


def _singles(race: Race, way: Way) -> None:
    for name in race.settings.test:
        race.measured(way, name)
    race.applying(way, race.settings.test[0])
    print(f"done {way.name}", flush=True)


def _groups(race: Race, index: int, count: int) -> None:
    composing.thresholds(race, race.settings.test[index::count])
    shared = [kind for number, kind in enumerate(KINDS) if number % count == index]
    for kind in shared:
        for group in composing.all_groups(race):
            composing.drawn(race, kind, group)
        print(f"done groups {kind}", flush=True)


def rows(bench: Bench, settings: Settings) -> list[Row]:
    """All claims; the page and its picture are written from their file."""
    return rows_of(Race(bench, settings))


def read_code() -> str:
    """Read now, so that a file edited while the race runs changes no key."""
    return repr(sorted(code().items()))


if __name__ == "__main__":
    seeds = [TRAINING_SEED, SEED, SEED + 1_000_000, composing.SEED, composing.SEED + 1_000_000]
    run(Benchmark("race", __file__, __doc__ or "", Settings(), QUICK, work, rows, seeds, read_code))
    if len(sys.argv) == 1 or sys.argv[1] == "--workers":  # the full race, in its main process
        write()
