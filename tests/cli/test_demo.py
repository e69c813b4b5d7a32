"""``photopic demo`` on a tiny model: the report is whole, and an interrupted run ends like an uninterrupted one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import photopic
from photopic.cli import demo_work
from photopic.cli.demo_work import DemoConfig, DemoResult, random_control, work
from photopic.core.editfile import load
from photopic.core.edits import Shut
from photopic.models.text_to_image import TextToImage
from tests.cli.conftest import refusal, run

CONFIG = DemoConfig(steps=2, tune_steps=2, pictures=2, sampling_steps=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two steps shut nothing by the threshold, a density does; few preservation pictures make it quick."""
    original = demo_work.ConceptNeuronsConfig

    def settings(**options: object) -> object:
        small = {"density": 0.1, "preservation_count": 2, "batch": 2, "evaluation": 2, "controls": 1}
        return original(**(options | small))  # type: ignore[arg-type]

    tuning = demo_work.LocatedWeightsConfig
    monkeypatch.setattr(demo_work, "ConceptNeuronsConfig", settings)
    monkeypatch.setattr(
        demo_work,
        "LocatedWeightsConfig",
        lambda **options: tuning(**(options | {"preservation_count": 2, "batch": 2, "evaluation": 2})),
    )
    yield


@pytest.fixture(scope="module")
def handle(model: Path) -> TextToImage:
    return photopic.load(str(model), device="cpu")


def finish(handle: TextToImage, folder: Path) -> DemoResult:
    *_, last = work(handle, folder, CONFIG)
    assert isinstance(last, DemoResult)
    return last


def contents(folder: Path) -> dict[str, bytes]:
    """Every picture and number; edits carry the time they took."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")} | {
        "numbers.json": (folder / "numbers.json").read_bytes()
    }


def test_makes_one_report_and_goes_on_where_it_stopped(tmp_path: Path, handle: TextToImage, model: Path) -> None:
    before = handle.digest()
    result = finish(handle, tmp_path / "whole")
    assert handle.digest() == before  # the model ends as it began
    assert result.references.shape[0] == 5 and {"shut", "tuned", "random"} == result.edits.keys()
    assert len(list((tmp_path / "whole" / "references").glob("*.txt"))) == 5
    random = result.pictures["random", result.subject_prompts[0]]
    assert random.shape == (2, handle.image_size, handle.image_size, 3)

    stopped = work(handle, tmp_path / "stopped", CONFIG)  # stopped while drawing, then run again
    for event in stopped:
        if not isinstance(event, DemoResult) and event.name == "drawing" and event.step == 3:
            break
    stopped.close()
    finish(handle, tmp_path / "stopped")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")

    options = ("--steps", 2, "--tune", 2, "--pictures", 2, "--sampling-steps", 2, "--model", model)
    out = run("demo", "--out", tmp_path / "whole", *options).stdout
    page = Path(out.strip().replace("\n", ""))
    html = page.read_text()
    assert page == tmp_path / "whole" / "index.html" and "http://" not in html and "https://" not in html
    assert html.count("<img") > 60 and "&lt;mine&gt; bear" in html
    assert json.loads((tmp_path / "whole" / "numbers.json").read_text())["similarity"]["shut"]["n"] == 6

    line = refusal("demo", "--out", tmp_path / "whole", *options, "--seed", 5)
    assert "seed" in line and str(tmp_path / "whole") in line


def test_the_random_control_has_the_same_number_in_every_tensor(handle: TextToImage, edit: Path) -> None:
    located = load(edit)
    control = random_control(handle, located, seed=0)
    sizes = [
        {name: len(indices) for name, indices in part.indices.items()}
        for each in (located, control)
        for part in each.parts
        if isinstance(part, Shut)
    ]
    assert sizes[0] == sizes[1]
    same = [
        np.intersect1d(a, b).size for a, b in zip(located.touched().values(), control.touched().values(), strict=True)
    ]
    assert sum(same) < 0.5 * sum(sizes[0].values())


def test_an_unknown_subject_is_refused_with_those_there_are(tmp_path: Path) -> None:
    line = refusal("demo", "--out", tmp_path / "demo", "--subject", "submarine")
    assert "submarine" in line and "panda" in line and not (tmp_path / "demo").exists()
