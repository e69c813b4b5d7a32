"""The memory benchmark on a tiny shape: every phase is there, and its peak is counted anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.locate import sd15_shape
from benchmarks.locate.sd15_shape import CLEAR, QUICK, Phases, apart, rows
from tests.processes import started


@pytest.mark.skipif(not CLEAR.exists(), reason="needs the high-water mark of Linux")
def test_a_phase_does_not_see_the_peak_of_an_earlier_one() -> None:
    phases = Phases()
    with phases.measured("large"):
        large = np.ones(2**27, np.uint8)  # 128 MiB, given back at once
        del large
    with phases.measured("small"):
        pass
    assert phases.peaks["large"] - phases.peaks["small"] > 0.1


def test_what_is_called_apart_has_a_process_of_its_own() -> None:
    assert apart(os.getpid) != os.getpid()


def forked(call: Callable[..., float], *arguments: object) -> float:
    """What a call gives in a process that need not import everything anew."""
    process, connection = started(lambda there: there.send(call(*arguments)))
    found = float(connection.recv())
    process.join(60)
    return found


def test_every_phase_of_a_search_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sd15_shape, "apart", forked)
    bench: Any = SimpleNamespace(config=QUICK)
    found = list(rows(bench))
    assert [row.claim.removeprefix("sd15_shape.peak").lstrip("_") for row in found] == [
        "", "vs_lora", "build", "preparing", "step_1", "step_2", "evaluating", "done", "generate",
    ]  # fmt: skip
    values = [float(row.value or 0) for row in found]
    assert (
        min(values) > 0
        and values[0] == max(values[2:])
        and values[1] == pytest.approx(values[0] / found[0].baseline, rel=1e-4)
    )
