"""The race: eleven ways of customising one model side by side, and several subjects in one picture.

    python -m benchmarks.tune.race.run              # writes benchmarks/results/race.json, docs/methods/race.md and its picture
    python -m benchmarks.tune.race.run --rows-only  # writes them from what an interrupted run kept, and measures nothing
    python -m benchmarks.tune.race.run --quick      # two subjects, few steps; prints only (with --rows-only too)

The plan, with all that was fixed before any result, is in benchmarks/tune/race/README.md and benchmarks/tune/race/plan.py.
Interrupted, it goes on from ``runs/customisation``: each training, each batch of pictures and each timing is kept. The order of
work puts what the claims need first, so that a run that is stopped leaves whole rows.
"""

from __future__ import annotations

import sys
import warnings

from benchmarks.harness.ledger import Row, write_result
from benchmarks.harness.runner import Benchmark, line_of, run
from benchmarks.harness.subjects import Bench
from benchmarks.tune.race import composing
from benchmarks.tune.race.measuring import SEED, OnlyKept, Race, Way, code, has_residual, ways_of
from benchmarks.tune.race.page import write
from benchmarks.tune.race.plan import PEERS, QUICK, RESIDUAL, SEARCH, Settings, shares
from benchmarks.tune.race.rows import rows_of
from benchmarks.tune.race.subject_case import SEED as TRAINING_SEED

# Of groups, by what they are drawn with: a worker makes one side's trainings, then its pairs, at last its triples and fours.
SIDES = (composing.LORAS, ("edits_layout", "edits", "alone_layout", "rows"))
LAST = "lora16"  # after everything else: nothing waits for it


def work(bench: Bench, settings: Settings, part: str) -> None:
    """A worker's share: what pairs need, pairs, all other ways, triples and fours, and ``LAST`` at the end."""
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    race = Race(bench, settings)
    index, count = map(int, part.split("/"))
    if index == 0:
        race.measure_peaks()  # forks, so before anything else
    sides = SIDES[index::count]
    for side in sides:
        for way in dict.fromkeys(composing.way_of(race, kind) for kind in side):
            for name in settings.test:
                race.folder(way, name)
    _groups(race, sides, 2)
    if index == 0:
        composing.reals(race)
    if index == count - 1:
        for name in settings.test:
            race.measured(None, name)
    items = _items(settings)
    shared = shares({label: cost for label, (cost, _) in items.items() if label != LAST}, count)[index]
    for label in [*shared, None, *([LAST] if index == count - 1 else [])]:
        if label is None:
            for size in settings.groups:
                if size > 2:
                    _groups(race, sides, size)
            continue
        for way in items[label][1]:
            _singles(race, way)


def _items(settings: Settings) -> dict[str, tuple[float, list[Way]]]:
    """Ways that are made together with the cost of what pairs have not made; the composed ones first."""
    costs = {method.name: method.cost for method in (*PEERS, *([RESIDUAL] if has_residual() else []))}
    found: dict[str, tuple[float, list[Way]]] = {}
    ways = ways_of(settings)
    for way in sorted(
        ways, key=lambda way: (way.method != "lora4", way.density is None, way.density != settings.composed)
    ):
        label = way.method if way.density is None else f"{way.method} {way.density}"
        cost = costs.get(label, SEARCH.cost * (0.6 if way.density == settings.composed else 1))
        found.setdefault(label, (cost, []))[1].append(way)
    return found


def _singles(race: Race, way: Way) -> None:
    for name in race.settings.test:
        race.measured(way, name)
    race.applying(way, race.settings.test[0])
    print(f"done {way.name}", flush=True)


def _groups(race: Race, sides: tuple[tuple[str, ...], ...], size: int) -> None:
    for kind in [kind for side in sides for kind in side]:
        for group in composing.all_groups(race):
            if len(group) == size:
                composing.drawn(race, kind, group)
        print(f"done groups of {size}, {kind}", flush=True)


def rows(bench: Bench, settings: Settings) -> list[Row]:
    """All claims; the page and its picture are written from their file."""
    return rows_of(Race(bench, settings))


def read_code() -> str:
    """Read now, so that a file edited while the race runs changes no key."""
    return repr(sorted(code().items()))


def rows_only(settings: Settings, writes: bool) -> None:
    """All claims for which everything is kept; nothing is measured, and what is missing has no row."""
    bench = Bench()
    bench.kept = OnlyKept(bench.kept.folder)
    found = rows(bench, settings)
    for row in found:
        print(line_of(row))
    if not found:
        sys.exit("nothing is kept for these settings and this code; run without --rows-only")
    if writes:
        command = "python -m benchmarks.tune.race.run --rows-only"
        write_result("race", found, command=command, seeds=SEEDS, elapsed_s=bench.kept.seconds)
        write()


SEEDS = [TRAINING_SEED, SEED, SEED + 1_000_000, composing.SEED, composing.SEED + 1_000_000]

if __name__ == "__main__":
    if "--rows-only" in sys.argv:
        is_quick = "--quick" in sys.argv
        rows_only(QUICK if is_quick else Settings(), writes=not is_quick)
    else:
        run(Benchmark("race", __file__, __doc__ or "", Settings(), QUICK, work, rows, SEEDS, read_code))
        if len(sys.argv) == 1 or sys.argv[1] == "--workers":  # the full race, in its main process
            write()
