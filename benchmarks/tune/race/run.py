"""The race: eleven ways of customising one model side by side, and several subjects in one picture.

    python -m benchmarks race              # writes benchmarks/results/race.json, docs/methods/race.md and its picture
    python -m benchmarks race --rows-only  # writes them from what an interrupted run kept, and measures nothing

The plan, with all that was fixed before any result, is in benchmarks/tune/race/README.md and benchmarks/tune/race/plan.py.
The order of work puts what the claims need first, so that a run that is stopped leaves whole rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.benchmark import Bench, Benchmark, Row
from benchmarks.harness.subjects import JudgedModel
from benchmarks.tune.race import composing
from benchmarks.tune.race.making import Way, ways_of
from benchmarks.tune.race.measuring import SEED, Race
from benchmarks.tune.race.page import write
from benchmarks.tune.race.plan import QUICK, RaceConfig
from benchmarks.tune.race.rows import CLAIMS, rows_of
from benchmarks.tune.race.subject_case import SEED as TRAINING_SEED

# What a worker does in order: one side's trainings, then its pairs, single subjects, at last triples and fours.
LORAS, EDITS = composing.LORAS, ("edits_layout", "edits", "alone_layout", "rows")
LAST = "lora16"  # after everything else: nothing waits for it


@dataclass(frozen=True)
class Work:
    """A piece of the race.

    Attributes:
        what: ``peaks``, ``real`` scenes of a size of groups, a ``group`` in one way, or a ``single`` subject.
        kind: Of the groups, or an end of ``composing.ENDS``.
        way: Of a single subject; None: the base.
        names: The subjects.
    """

    what: str
    kind: str = ""
    way: Way | None = None
    names: tuple[str, ...] = ()
    size: int = 0

    @property
    def side(self) -> str:
        """Whose work it is: what is drawn with the same trainings is one worker's."""
        if self.kind in LORAS or self.what == "peaks" or (self.way and self.way.method == "lora4"):
            return "lora"
        if self.kind in EDITS:
            return "edits"
        return self.way.method if self.way else self.what


def works(config: RaceConfig) -> list[Work]:
    """Everything slow; peaks first, because they fork."""
    composed = [*LORAS, *EDITS]
    ways = sorted([None, *ways_of(config)], key=lambda way: way is not None and way.method == LAST)
    singles = [Work("single", way=way, names=(name,)) for way in ways for name in config.test]
    ends = [Work("real", end, size=size) for size in config.groups for end in composing.ENDS]

    def groups(*sizes: int) -> list[Work]:
        return [Work("group", kind, names=group) for kind in composed for group in config.sets(*sizes)]

    return [Work("peaks"), *groups(2), *ends, *singles, *groups(3, 4)]


def measure(bench: Bench[Any, Race], work: Work) -> None:
    """Make, draw and judge a piece; the race keeps each part of it."""
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    race = bench.subject
    if work.what == "peaks":
        race.measure_peaks()
    elif work.what == "real":
        composing.real(race, work.size, work.kind)
    elif work.what == "group":
        composing.drawn(race, work.kind, work.names)
    else:
        (name,) = work.names
        race.measured(work.way, name)
        if work.way and name == race.config.test[0]:
            race.applying(work.way, name)


def rows(bench: Bench[RaceConfig, Race]) -> Iterator[Row]:
    """All claims."""
    yield from rows_of(bench.subject)


BENCHMARKS = (
    Benchmark(
        "race", __doc__, RaceConfig(), QUICK, CLAIMS, rows, works, measure,
        open=lambda config, cache: Race(JudgedModel(config.model, cache), config), together=lambda work: work.side,
        seeds=(TRAINING_SEED, SEED, SEED + 1_000_000, composing.SEED, composing.SEED + 1_000_000), folder="customisation",
        finish=lambda bench, rows: write(),
    ),
)  # fmt: skip
