"""What the specification says a small real run must show: digits, six known classes, four unknown (spec of the method, check 5)."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.guard import open_set_problems
from benchmarks.guard.open_set import SEEDS


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    problems = [open_set_problems.digits_problem(seed) for seed in SEEDS[:3]]
    rows = {
        name: [open_set_problems.means(open_set_problems.scored(problem, name)[:2]) for problem in problems]
        for name in ("msp", "knn", "fs-knn", "fs-knns")
    }
    return {name: {key: float(np.mean([row[key] for row in each])) for key in each[0]} for name, each in rows.items()}


def test_softmax_cannot_tell_mistakes_from_unknown_classes_and_so_uosr_is_above_osr(
    found: dict[str, dict[str, float]],
) -> None:
    assert 0.85 < found["msp"]["accuracy"] < 0.98
    assert found["msp"]["inw_ood"] == pytest.approx(0.5, abs=0.1)
    assert all(found[name]["uosr"] > found[name]["osr"] for name in ("msp", "knn", "fs-knns"))


def test_shots_help_against_unknown_classes_and_fs_knns_keeps_most_of_both(found: dict[str, dict[str, float]]) -> None:
    softmax, shots, both = found["msp"], found["fs-knn"], found["fs-knns"]
    assert shots["inc_ood"] > softmax["inc_ood"] + 0.02 and shots["inc_inw"] < softmax["inc_inw"] - 0.02
    assert both["inc_ood"] - softmax["inc_ood"] > (shots["inc_ood"] - softmax["inc_ood"]) / 2
    assert softmax["inc_inw"] - both["inc_inw"] < (softmax["inc_inw"] - shots["inc_inw"]) / 2
    assert both["uosr"] > softmax["uosr"] + 0.01  # the benchmark tells it from FS-KNN, with more seeds
