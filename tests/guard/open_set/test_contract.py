"""Every detector keeps scikit-learn's contract; what cannot apply is named with its reason in ``contract.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from photopic.guard.open_set import SCORERS, scorer

CHECKS = 40  # that scikit-learn runs and none of which is merely skipped


def test_scikit_learns_own_checks_pass() -> None:
    script = Path(__file__).with_name("contract.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=os.environ, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: each["failed"] for name, each in found.items() if each["failed"]} == {}
    assert all(each["passed"] >= CHECKS for each in found.values())
    clean = [name for name, each in found.items() if not each["expected"]]
    assert len(clean) >= 12  # nothing is excused for these
    checked = {name.split("(")[0].replace("Headed", "").replace("Shot", "FewShot") for name in found}
    assert {cls.__name__ for cls in SCORERS.values()} - {"SSD"} <= checked


def test_every_scorer_has_a_name_and_orientation() -> None:
    for name, kind in SCORERS.items():
        made = scorer(name, head=([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]))
        assert type(made) is kind
        assert ("head" in made.get_params()) == (getattr(made, "head", None) is not None)
