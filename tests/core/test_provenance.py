"""Provenance says what can change a number, and nothing about who ran it."""

from __future__ import annotations

import getpass
import json
import platform
from pathlib import Path

import torch

from photopic.core.provenance import machine, versions


def test_versions_are_those_that_run() -> None:
    found = versions()
    assert (
        found["torch"].split("+")[0] == torch.__version__.split("+")[0] and found["python"] == platform.python_version()
    )


def test_a_machine_is_described_and_not_named() -> None:
    found = machine()
    assert found["cores"] >= 1 and found["memory_gib"] > 0 and found["processor"]
    text = json.dumps(found)
    assert f'"{platform.node()}"' not in text and str(Path.home()) not in text and f'"{getpass.getuser()}"' not in text
