"""The contract of every method: it leaves its model alone, repeats itself, resumes exactly, saves, explains itself, refuses.

Methods are found by importing the verbs; ``method_cases.py`` gives each small real arguments.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from photopic.calls.methods import read_manifest
from photopic.cli.manifest import manifest, methods, text_of
from photopic.core.config import check_value, hints_of
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.edits.file import load, save
from photopic.core.edits.several import Edits
from photopic.core.errors import DataError, ModelError
from photopic.core.method import Method
from photopic.core.results import Map, Report, Verdict
from photopic.core.runs import Run, RunMismatchError
from tests.method_cases import WEIGHT, case, control_arguments
from tests.method_cases import pipeline as control_model

ROOT = Path(__file__).resolve().parents[1]
FOUND = methods()
CALLED = {command: each for command, each in FOUND.items() if isinstance(each, Method)}
TRAINED = {command: each for command, each in CALLED.items() if each.trains}
HEADINGS = ("## Use", "## How it works", "## What is shown", "## Where it fails")
RUN_ON = ("elapsed_s", "peak_bytes", "versions", "device")  # of the provenance, what another run may say otherwise


def each_of(found: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("method", found.values(), ids=list(found))


def content(result: Any, folder: Path) -> Any:
    """Everything a result holds but for when and where it was made, in a form that compares."""
    provenance = {key: value for key, value in result.provenance.items() if key not in RUN_ON}
    if isinstance(result, Edit):
        save(replace(result, provenance=provenance), folder / "x.edit")
        return (folder / "x.edit").read_bytes()
    if hasattr(result, "save"):
        if "provenance" in getattr(result, "__dataclass_fields__", {}):
            result = replace(result, provenance=provenance)
        result.save(folder / "x")
        files = [path for path in sorted((folder / "x").rglob("*")) if path.is_file()]
        return {path.name: path.read_bytes() for path in files or [folder / "x"]}
    found = {**result.to_dict(), "provenance": provenance}
    if "rows" in found:  # how long something took is of the run too
        found["rows"] = [{key: value for key, value in row.items() if key != "seconds"} for row in found["rows"]]
    return json.dumps(found, sort_keys=True, default=str)


def models_of(given: dict[str, Any]) -> list[Any]:
    return [each for each in given.values() if hasattr(each, "edits")]


@dataclass(frozen=True)
class Called:
    """One call of a method: what it was given, the digests of its models before, what came out and in how many events."""

    given: dict[str, Any]
    before: list[str]
    result: Any
    events: int


@cache
def called(method: Method[Any, Any]) -> Called:
    """Called once for all tests, which only look at it."""
    given = case(method)
    before = [model.digest() for model in models_of(given)]
    events = list(method.events(**given))
    return Called(given, before, events[-1].result, len(events))


@each_of(CALLED)
def test_a_method_leaves_its_models_as_they_were_and_repeats_itself(method: Method[Any, Any], tmp_path: Path) -> None:
    first, given = called(method), called(method).given
    second = method(**given)
    assert [model.digest() for model in models_of(given)] == first.before
    assert not any(model.edits.names() for model in models_of(given))
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    assert content(first.result, tmp_path / "a") == content(second, tmp_path / "b")
    assert method.trains or "elapsed_s" not in second.provenance  # so that it saves to the same bytes every time
    assert second.provenance["method"] == method.name and "torch" in second.provenance["versions"]


@each_of(TRAINED)
def test_interrupted_is_uninterrupted_and_a_run_of_other_options_is_refused(
    method: Method[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photopic.core.fit.SAVE_EVERY", 1)  # so that there is something to go on from
    whole = called(method)
    given = whole.given
    cut = method.events(**given, run=Run(tmp_path / "cut"))
    for _ in range(max(1, whole.events * 2 // 3)):
        next(cut)
    cut.close()  # as Ctrl-C does
    resumed = method(**given, run=Run(tmp_path / "cut"))
    assert content(resumed, tmp_path) == content(whole.result, tmp_path)
    other = replace(given["config"], seed=given["config"].seed + 1)
    with pytest.raises(RunMismatchError, match="holds another run"):
        method(**given | {"config": other}, run=Run(tmp_path / "cut"))


@each_of(CALLED)
def test_a_result_saves_and_loads(method: Method[Any, Any], tmp_path: Path) -> None:
    result = called(method).result
    if isinstance(result, Edit):
        save(result, tmp_path / "x.edit")
        again = load(tmp_path / "x.edit")
        save(again, tmp_path / "y.edit")
        assert (tmp_path / "x.edit").read_bytes() == (tmp_path / "y.edit").read_bytes()
        assert again.provenance == result.provenance
    elif isinstance(result, Map):
        from photopic.core import mapfile

        mapfile.save(result, tmp_path / "x.safetensors")
        assert mapfile.load(tmp_path / "x.safetensors").to_dict() == result.to_dict()
    else:
        assert isinstance(result, Report | Verdict | Edits) or hasattr(result, "save")
        if hasattr(type(result), "load"):
            result.save(tmp_path / "a")
            of = (result.model,) if hasattr(result, "model") else ()  # what was made for a model is read for it
            type(result).load(tmp_path / "a", *of).save(tmp_path / "b")
            # in a pipeline's folders other libraries write configurations, with where they read the parts
            own = (*(tmp_path / "a").glob("*.*"), *(tmp_path / "a").rglob("*.safetensors"))
            for path in own:
                assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
        if isinstance(result, Report | Verdict):
            assert json.loads(json.dumps(result.to_dict()))["provenance"]["method"] == method.name


@each_of({command: each for command, each in CALLED.items() if not each.allow_edits})
def test_a_model_with_edits_in_force_is_refused(method: Method[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    given = case(method)
    for model in models_of(given)[:1]:
        monkeypatch.setattr(model.edits, "names", lambda: ("bear",))
        with pytest.raises(ModelError, match=r"has edits applied \(bear\); remove them first"):
            list(method.events(**given))


@each_of({command: each for command, each in FOUND.items() if not isinstance(each, Method)})
def test_a_control_leaves_its_model_alone_and_forgets_every_run(method: Any) -> None:
    model, prompt = control_model(), "a bear on a red background"
    control, digest = method(**control_arguments(method, model)), model.digest()
    processors = dict(model.unet.attn_processors)

    def drawn(steps: int = 2) -> Any:
        return model.generate(prompt, seeds=[0, 1], steps=steps, controls=[control])

    first = drawn()
    drawn(steps=2 if hasattr(control, "timesteps") else 3)  # another run in between; some are for their steps alone
    assert (drawn() == first).all()
    assert model.digest() == digest and not model.edits.names()
    assert all(model.unet.attn_processors[name] is each for name, each in processors.items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.unet.modules())


# pairs whose order says something: both say where to start, and a guidance that was taken over cannot be foretold
ORDERED = ({"good-seeds", "style-injection"}, {"adaptive-guidance", "linear-guidance"})
CONTROLS = {name.split()[-1]: each for name, each in FOUND.items() if not isinstance(each, Method)}


@pytest.mark.parametrize(
    "pair", [each for each in combinations(CONTROLS, 2) if set(each) not in ORDERED], ids=" and ".join
)
def test_two_controls_under_an_edit_draw_the_same_in_either_order(pair: tuple[str, str]) -> None:
    model = control_model()
    one, other = (CONTROLS[name](**control_arguments(CONTROLS[name], model)) for name in pair)
    shut = Edit((ZeroedWeights({WEIGHT: torch.arange(10)}),), model.fingerprint(WEIGHT))
    with model.edits.applied(shut):
        drawn = [
            model.generate("a bear on a red background", seeds=[0], steps=2, controls=controls)
            for controls in ([one, other], [other, one])
        ]
    assert (drawn[0] == drawn[1]).all()


# --- what is written about a method


def test_the_manifest_is_fresh() -> None:
    stored = resources.files("photopic").joinpath("methods.json").read_text(encoding="utf-8")
    assert stored == text_of(manifest()), "write it again: python -m photopic.cli.manifest"


@pytest.mark.parametrize("command", read_manifest())
def test_every_option_is_explained_and_in_range_by_default(command: str) -> None:
    entry = read_manifest()[command]
    for parameter in entry["parameters"]:
        for option in [*parameter.get("options", ()), *([parameter] if parameter["role"] != "config" else [])]:
            assert len(option["help"].split()) >= 3, f"{command}: {option['name']} is not explained"
            if option.get("default") is not None and "ge" in option:
                assert min(np_list(option["default"]), default=option["ge"]) >= option["ge"]


def np_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@each_of({command: each for command, each in CALLED.items() if "config" in each.signature.parameters})
def test_every_range_is_held(method: Method[Any, Any]) -> None:
    hints = hints_of(type(method.signature.parameters["config"].default))
    options = next(e for e in read_manifest()[method.about.command]["parameters"] if e["role"] == "config")["options"]
    for option in options:
        outside = [option["ge"] - 1] if "ge" in option else [option["gt"]] if "gt" in option else []
        outside += [option["le"] + 1] if "le" in option else []
        outside += ["no such word"] if "choices" in option else []
        for value in outside:
            with pytest.raises(DataError, match=option["name"]):
                check_value(option["name"], (value,) if option["many"] else value, hints[option["name"]])


@pytest.mark.parametrize(("command", "method"), FOUND.items(), ids=list(FOUND))
def test_every_method_has_its_page(command: str, method: Any) -> None:
    name = method.about.name.rpartition(".")[2]
    texts = {path: path.read_text() for path in ROOT.glob("docs/methods/*.md")}
    pages = [path for path, text in texts.items() if path.stem == name or f"photopic.{method.about.name}" in text]
    assert pages, f"docs/methods/{name}.md: is missing"
    text = texts[pages[0]]
    assert not [heading for heading in HEADINGS if not re.search(rf"^{heading}", text, re.MULTILINE)], pages[0].name
