"""Do the bundled dual encoders read sentences, and how long does ARO take?

    python -m benchmarks aro        # writes benchmarks/results/aro.json

Protocol, written before the run. Both bundled encoders are asked 10,002 cases: 3,334 of each part, from seed 0, on one thread. The
scenes are drawn in the measured time. Nothing is chosen. The baseline of a share is guessing, the control the share right with the
picture of another case.

- ``aro.<part>_<encoder>``: the share that is right, Wilson's interval.
- ``aro.seconds``: seconds of the processor that ``emoji-clip-vit`` takes for all of it, drawing included; on two cores the wall
  clock is less. Processor seconds because this machine is shared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.measure.aro import AroConfig, aro
from photopic.models.dual_encoder import DualEncoder

MODELS = ("emoji-clip-vit", "emoji-clip-cnn")
CLAIMS = (
    Claim("aro.seconds", "<= 120", "processor seconds of 10,000 cases by the bundled ViT, one thread", "s"),
    Claim("aro.*", "", "share of captions found"),
)


@dataclass(frozen=True)
class Asked(Config):
    """How much is measured."""

    cases: Annotated[int, Ge(2)] = 3334  # of each part
    models: tuple[str, ...] = MODELS  # encoders


@dataclass(frozen=True)
class Case:
    """One encoder."""

    model: str
    cases: int


def measure(bench: Bench[Asked, Any], case: Case) -> dict[str, Any]:
    """The rows of the whole parts, and the time they took."""
    model, began = DualEncoder.load(case.model), time.process_time()
    report = aro(model, config=AroConfig(pairs=case.cases))
    seconds = time.process_time() - began
    return {"rows": [each for each in report.rows if each["kind"] == "all"], "seconds": seconds}


def cases(config: Asked) -> list[Case]:
    """Every encoder."""
    return [Case(model, config.cases) for model in config.models]


def rows(bench: Bench[Asked, Any]) -> Iterator[Row]:
    """All claims."""
    found = {case.model: bench.found(case) for case in bench.cases}
    for model, each in found.items():
        for part in each["rows"]:
            yield row(
                f"aro.{part['part']}_{model.rpartition('-')[2]}",
                (part["share"], part["low"], part["high"]),
                n=part["cases"],
                baseline=part["chance"],
                control=part["other_picture"],
            )
    first = bench.cases[0]
    yield row("aro.seconds", found[first.model]["seconds"], n=3 * first.cases)


FULL = Asked()
BENCHMARKS = (Benchmark("aro", __doc__, FULL, replace(FULL, cases=50), CLAIMS, rows, cases, measure),)
