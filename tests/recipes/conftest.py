"""A recipe is a folder of scripts that import each other by their names: they are there for one test and forgotten again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from photopic.core.runs import Run

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def open_recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes the scripts of one recipe importable, and none of another's that have the same names."""
    names = {path.stem for path in RECIPES.glob("*/*.py") if path.parent.name != "_common"}

    def opened(recipe: str) -> None:
        monkeypatch.syspath_prepend(str(RECIPES / recipe))
        for name in names & set(sys.modules):
            monkeypatch.delitem(sys.modules, name)

    yield opened
    for name in names:
        sys.modules.pop(name, None)


def weights(run: Run, prefix: str = "model.") -> dict[str, Tensor]:
    """What a run has kept under a name."""
    found = run.load()
    assert found is not None
    return {name: value for name, value in found[0].items() if name.startswith(prefix)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def assert_goes_on(train: Callable[..., Iterator[Any]], config: Any, folder: Path, *given: Any, steps: int) -> Run:
    """A run that loses its last step after ``steps``, and goes on, ends as one that was never stopped."""
    whole, parts = Run(folder / "whole", config), Run(folder / "parts", config)
    lines = list(train(config, whole, *given, save_every=2))
    broken = train(config, parts, *given, save_every=2)
    for _ in range(steps):
        next(broken)
    broken.close()  # type: ignore[attr-defined]
    again = list(train(config, parts, *given, save_every=2))
    assert [line["step"] for line in again] == [line["step"] for line in lines[-len(again) :]] and len(again) < len(
        lines
    )
    assert same(weights(whole), weights(parts))
    return whole
