"""The recipe of the processes: every variant trains, goes on where it was, and a retrofit starts from the baseline's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rich.progress import Progress

from photopic.models.diffusion.model import DiffusionModel


@pytest.fixture
def recipe(open_recipe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    open_recipe("emoji-processes")
    import train
    import variants

    small = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(train, "pictures", lambda size: small.repeat(1, size // 16, size // 16, 1))
    monkeypatch.setattr(train, "CHANNELS", (8, 8))
    monkeypatch.setattr(train, "SNAPSHOT", 2)
    for name, each in variants.VARIANTS.items():
        config = replace(each.config, steps=4, batch=2)
        monkeypatch.setitem(variants.VARIANTS, name, replace(each, config=config, size=each.size // 4))
    return train


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return DiffusionModel.load(folder).network.state_dict()


def test_a_run_that_is_started_again_ends_the_same_and_has_snapshots(recipe, tmp_path: Path) -> None:
    with Progress(disable=True) as progress:
        recipe.train("varying-1", tmp_path / "whole", progress)
        broken = Progress(disable=True)
        broken.update = lambda task, completed: (_ for _ in ()).throw(KeyboardInterrupt) if completed == 3 else None  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            recipe.train("varying-1", tmp_path / "again", broken)
        assert not (tmp_path / "again" / "varying-1" / "model").exists()
        recipe.train("varying-1", tmp_path / "again", progress)
    whole, again = (weights(tmp_path / each / "varying-1" / "model") for each in ("whole", "again"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert sorted(path.name for path in (tmp_path / "whole/varying-1/snapshots").iterdir()) == ["2", "4"]


def test_variants_differ_in_one_thing_and_seeds_in_weights(recipe, tmp_path: Path) -> None:
    import variants

    assert {"plain-0", "shared-2", "varying-128-0", "retrofit-1"} <= set(recipe.names())
    assert "plain-128-1" not in recipe.names()
    plain, fading, steady = (variants.VARIANTS[name].process for name in ("plain", "varying", "steady"))
    assert plain.turning == () and fading.turning == steady.turning == (300, 600)
    assert float(fading.attenuation[0, 300]) == pytest.approx(0.01) and bool((steady.attenuation == 1).all())
    with Progress(disable=True) as progress:
        for name in ("plain-0", "plain-1"):
            recipe.train(name, tmp_path, progress)
    one, two = (weights(tmp_path / name / "model") for name in ("plain-0", "plain-1"))
    assert any(not torch.equal(value, two[name]) for name, value in one.items())


def test_a_retrofit_starts_from_the_baseline_and_takes_its_map(recipe, tmp_path: Path, monkeypatch) -> None:
    started = []
    events = recipe.train_events

    def watched(network, *arguments, **options):
        started.append({name: value.clone() for name, value in network.state_dict().items()})
        return events(network, *arguments, **options)

    monkeypatch.setattr(recipe, "train_events", watched)
    with Progress(disable=True) as progress:
        recipe.train("plain-0", tmp_path, progress)
        recipe.train("retrofit-0", tmp_path, progress)
    plain = weights(tmp_path / "plain-0" / "model")
    assert all(torch.equal(value, plain[name]) for name, value in started[1].items())
    model = DiffusionModel.load(tmp_path / "retrofit-0" / "model")
    assert model.process.time_map[99] == 80 and recipe.VARIANTS["retrofit"].config.timesteps == (0, 100)
