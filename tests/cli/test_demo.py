"""``photopic demo`` on a tiny model: the report is whole, and an interrupted run ends like an uninterrupted one."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from photopic.cli.demo import demo
from photopic.core.edits import ZeroedWeights
from photopic.core.edits.file import load
from photopic.core.events import finished
from photopic.demo import lora as demo_lora
from photopic.demo import pair as demo_pair
from photopic.demo import teach
from photopic.demo.page import page
from photopic.demo.pair import BOXES, OURS, PEERS, PairResult, second_of, work_pair
from photopic.demo.pair_numbers import judge
from photopic.demo.teach import DemoConfig, make_references
from photopic.demo.work import DemoResult, random_control, work
from photopic.learning.subject import collage
from photopic.models.text_to_image.handle import TextToImage
from tests.cli.conftest import refusal, run

CONFIG = DemoConfig(steps=2, tune_steps=2, pictures=2, sampling_steps=1)
OPTIONS = ("--steps", 2, "--tune", 2, "--pictures", 2, "--sampling-steps", 1)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Two steps shut nothing by the threshold, a density does; few preservation pictures make it quick."""
    locating, tuning = teach.ConceptNeuronsConfig, teach.LocatedWeightsConfig
    small = {"batch": 2, "evaluation": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            teach,
            "ConceptNeuronsConfig",
            lambda **options: locating(**(options | small | {"density": 0.1, "controls": 1})),
        )
        patch.setattr(demo_pair, "SECONDS", ("violin", "panda"))  # the tiny tokenizer knows a guitar
        patch.setattr(teach, "LocatedWeightsConfig", lambda **options: tuning(**(options | small)))
        patch.setattr(teach, "PRESERVED", 2)
        patch.setattr(collage, "DRAWING_STEPS", 1)
        yield


@pytest.fixture(scope="module")
def handle(model: Path) -> TextToImage:
    return TextToImage.load(model, device="cpu")


def finish(handle: TextToImage, folder: Path) -> DemoResult:
    return finished(work(handle, folder, CONFIG))


def contents(folder: Path) -> dict[str, bytes]:
    """Every picture and number; edits carry the time they took."""
    return contents_of(folder / "pictures") | {"numbers.json": (folder / "numbers.json").read_bytes()}


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.fixture(scope="module")
def first(handle: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoResult]:
    """A finished first part, to which a second is added below."""
    folder, before = tmp_path_factory.mktemp("demo"), handle.digest()
    stopped = work(handle, folder, CONFIG)  # stopped while drawing, then run again
    next(event for event in stopped if event.stage == "drawing" and event.done == 3)
    stopped.close()
    assert handle.digest() == before and not handle.edits.names()  # the model ends as it began
    kept = contents_of(folder / "pictures")
    result = finish(handle, folder)
    assert len(kept) == 3 and kept.items() <= contents_of(folder / "pictures").items()
    assert handle.digest() == before
    return folder, result


def test_makes_one_report_and_goes_on_where_it_stopped(
    handle: TextToImage, model: Path, first: tuple[Path, DemoResult]
) -> None:
    folder, result = first
    assert result.taught.references.shape[0] == 5 and {"shut", "tuned", "random"} == result.edits.keys()
    assert len(list((folder / "references").glob("*.txt"))) == 5
    random = result.pictures["random", result.subject_prompts[0]]
    assert random.shape == (2, handle.image_size, handle.image_size, 3)

    before = contents(folder)
    again = sorted((folder / "pictures").glob("*.png"))[::5]  # of every treatment
    for file in (*again, folder / "numbers.json"):
        file.unlink()
    finish(handle, folder)  # what is missing is drawn anew, wherever the demo was stopped, and is the same
    assert len(again) == 7 and contents(folder) == before

    html = page(result, [], None)
    assert html.count("<img") > 60 and "&lt;mine&gt; bear" in html and "one scene" not in html
    assert json.loads((folder / "numbers.json").read_text())["similarity"]["shut"]["n"] == 6

    line = refusal("demo", "--out", folder, *OPTIONS, "--model", model, "--seed", 5)
    assert "seed" in line and str(folder) in line


def test_without_a_pair_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def ran(out: Path, model: str, settings: Any, with_pair: bool) -> Path:
        asked.append(with_pair)
        return out

    monkeypatch.setattr("photopic.cli.demo._run", ran)
    run("demo", "--out", tmp_path / "demo", "--no-pair"), run("demo", "--out", tmp_path / "demo")
    assert asked == [False, True]


def test_the_random_control_has_the_same_number_in_every_tensor(handle: TextToImage, edit: Path) -> None:
    located = load(edit)
    control = random_control(handle, located, seed=0)
    sizes = [
        {name: len(indices) for name, indices in part.indices.items()}
        for each in (located, control)
        for part in each.parts
        if isinstance(part, ZeroedWeights)
    ]
    assert sizes[0] == sizes[1]
    same = [
        np.intersect1d(a, b).size for a, b in zip(located.touched().values(), control.touched().values(), strict=True)
    ]
    assert sum(same) < 0.5 * sum(sizes[0].values())


def test_an_unknown_subject_is_refused_with_those_there_are(tmp_path: Path) -> None:
    line = refusal("demo", "--out", tmp_path / "demo", "--subject", "submarine")
    assert "submarine" in line and "panda" in line and not (tmp_path / "demo").exists()


def finish_pair(handle: TextToImage, folder: Path, first: DemoResult) -> PairResult:
    return finished(work_pair(handle, folder, first))


def test_ends_with_two_subjects_from_two_files_and_goes_on_where_it_stopped(
    tmp_path: Path, handle: TextToImage, first: tuple[Path, DemoResult], model: Path
) -> None:
    folder, result = first
    before = handle.digest()
    stopped = work_pair(handle, folder, result)
    # the LoRAs and two rows are made by then
    next(event for event in stopped if event.stage == "drawing both" and event.done == 2)
    stopped.close()
    strips = {path.name: path.stat().st_mtime_ns for path in (folder / "pair" / "pictures").iterdir()}
    assert strips.keys() == {"words.png", "edits.png"}
    pair = finish_pair(handle, folder, result)
    kept = {path.name: path.stat().st_mtime_ns for path in (folder / "pair" / "pictures").iterdir()}
    assert strips.items() <= kept.items()  # those rows were not drawn again
    assert handle.digest() == before and not handle.edits.names()
    assert not any(parameter.requires_grad for parameter in handle.unet.parameters())

    assert tuple(pair.pictures) == ("words", *OURS, *PEERS) and pair.pictures["words"].shape == (2, 32, 32, 3)
    for kind in (*OURS, *PEERS):  # each does something, and something of its own
        others = [pair.pictures[each] for each in pair.pictures if each != kind]
        assert all(not np.array_equal(pair.pictures[kind], other) for other in others), kind
    files = (folder / "panda-tuned.edit", folder / "pair" / "violin-tuned.edit")
    assert pair.sizes[:2] == tuple(file.stat().st_size for file in files) and len(pair.sizes) == 4
    assert {part.token for file in files for part in load(file).parts if part.kind == "token"} == {"<mine>", "<other>"}

    written = Path(run("demo", "--out", folder, *OPTIONS, "--model", model).stdout.strip().replace("\n", ""))
    html = written.read_text()
    assert written == folder / "index.html" and "http://" not in html and "https://" not in html
    assert "Two of them in one scene" in html and "LoRA for each" in html and "&lt;other&gt; guitar" in html
    drawn = ("generate", pair.prompt, "--model", model, "--steps", 2, "-n", 1, "-o", tmp_path / "out")
    run(*drawn, "--with", files[0], "--with", files[1], "--in-region", "--layout", folder / "pair" / "layout.json")


def test_without_peft_the_page_says_how_to_get_the_peers(
    handle: TextToImage, first: tuple[Path, DemoResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_lora, "find_spec", lambda name: None)
    pair = finish_pair(handle, *first)
    assert tuple(pair.pictures) == ("words", *OURS) and len(pair.sizes) == 2
    html = page(first[1], [], pair)
    assert "pip install &#39;photopic[peft]&#39;" in html and "LoRA for each" not in html


def test_the_judge_finds_two_subjects_where_they_are_and_nowhere_else(tmp_path: Path) -> None:
    from photopic.data.scenes import Background, Placement, compose

    configs = (DemoConfig(), second_of(DemoConfig()))
    references = [make_references(tmp_path / each.subject, each, 64) for each in configs]
    both = [
        [
            Placement(each.subject, each.style, ((box[0] + box[2]) / 2, 0.5), 0.42)
            for each, box in zip(order, BOXES, strict=True)
        ]
        for order in (configs, configs[::-1])
    ]
    placed = {"asked": both[0], "swapped": both[1], "one": both[0][:1]}
    pictures = {
        kind: np.stack([compose(each, Background(colour)).image for colour in ("red", "purple")])
        for kind, each in placed.items()
    }
    numbers = judge(pictures, configs, references, BOXES)
    kinds = numbers["kinds"]
    assert numbers["real"] > 0.9 and numbers["nouns"] < 0.1
    assert kinds["asked"]["both"] == 2 and kinds["swapped"]["each"] == [0, 0]
    assert kinds["one"]["each"] == [2, 0] and kinds["one"]["both"] == 0


def test_a_second_subject_is_of_another_class() -> None:
    assert second_of(DemoConfig()).noun == "guitar"
    assert second_of(DemoConfig(subject="violin", noun="guitar")).noun == "bear"


def test_ctrl_c_says_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupted(*_: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("photopic.cli.demo._run", interrupted)
    with pytest.raises(typer.Exit) as left:
        demo(tmp_path / "demo")
    assert left.value.exit_code == 130 and "photopic: interrupted" in capsys.readouterr().err


def test_the_command_searches_as_long_as_the_library_says() -> None:
    assert inspect.signature(demo).parameters["steps"].default == DemoConfig().steps
