"""What benchmarks keep: found again under the same key and code, never under another, and with the seconds it took."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.generate import layout
from benchmarks.harness import code as code_module
from benchmarks.harness.cache import ResultCache, content_of
from benchmarks.harness.code import Used, code_of, modules_under
from photopic.core.edits import Edit, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.fingerprint import fingerprint


def refuse() -> None:
    raise AssertionError("made again")


def test_a_value_is_made_once_and_another_key_makes_another(tmp_path: Path) -> None:
    assert ResultCache(tmp_path).value({"seed": 1}, lambda: [1, 2]) == [1, 2]
    later = ResultCache(tmp_path)
    assert later.value({"seed": 1}, refuse) == [1, 2]
    assert later.value({"seed": 2}, lambda: 3) == 3
    assert later.value({"seed": 1, "code": "changed"}, lambda: 4) == 4


def test_a_file_counts_only_when_it_was_finished(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ResultCache(tmp_path).file({"a": 1}, ".txt", broken)
    assert ResultCache(tmp_path).file({"a": 1}, ".txt", lambda path: path.write_text("whole")).read_text() == "whole"


def test_an_edit_is_made_again_where_its_file_can_no_longer_be_read(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        model = torch.nn.Linear(4, 4)
    edit = Edit(
        (ZeroedWeights({"m.weight": torch.tensor([1, 7])}),), fingerprint({"m": model}, "linear", tensors=["m.weight"])
    )
    ResultCache(tmp_path).edit({"a": 1}, lambda: edit)
    assert content_of(ResultCache(tmp_path).edit({"a": 1}, refuse).parts) == content_of(edit.parts)  # type: ignore[arg-type]
    next(tmp_path.glob("*.edit")).write_bytes(b"of another time")
    assert content_of(ResultCache(tmp_path).edit({"a": 1}, lambda: edit).parts) == content_of(edit.parts)
    assert content_of(ResultCache(tmp_path).edit({"a": 1}, refuse).parts) == content_of(edit.parts)  # type: ignore[arg-type]


def nap(seconds: float) -> None:
    time.sleep(seconds)


def test_seconds_are_those_of_making_whoever_made_it(tmp_path: Path) -> None:
    first = ResultCache(tmp_path)
    first.value({"a": 1}, lambda: nap(0.2))
    assert first.seconds >= 0.19
    again = ResultCache(tmp_path)
    for _ in range(3):  # read thrice, made once
        again.value({"a": 1}, refuse)
    assert again.seconds == first.seconds and again.made_s == 0


def test_what_was_made_inside_counts_once_and_is_remembered(tmp_path: Path) -> None:
    first = ResultCache(tmp_path)

    def outer() -> None:
        first.value({"inner": 1}, lambda: nap(0.3))
        nap(0.1)

    first.value({"outer": 1}, outer)
    assert 0.39 <= first.seconds < 0.6
    again = ResultCache(tmp_path)
    again.value({"outer": 1}, refuse)
    assert again.seconds == first.seconds  # though the inner one was not asked for
    again.value({"inner": 1}, refuse)
    assert again.seconds == first.seconds


def test_code_changes_with_what_it_does_and_not_with_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_module, "SOURCE", tmp_path)

    def code(inner: str) -> str:
        (tmp_path / "photopic" / "data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photopic" / "method.py").write_text("from photopic.data import inner\nrate = 2\n")
        (tmp_path / "photopic" / "data" / "inner.py").write_text(inner)
        code_of.cache_clear()
        return code_of("photopic.method")

    one = code("def step(x):\n    return x + 1\n")
    assert code('"""Says more."""\ndef step(x):\n    """Adds."""\n    # a comment\n    return (x +\n 1)\n') == one
    assert (
        code("import math\n\n\ndef step(x):\n    from math import pi\n\n    return x + 1\n") == one
    )  # where it stands
    assert code("def step(x):\n    return x + 2\n") != one
    code_of.cache_clear()


def test_code_of_a_function_follows_its_source() -> None:
    def one() -> int:
        return 1

    def two() -> int:
        """Another."""
        return 1

    def three() -> int:
        return 3

    codes = [code_of(each) for each in (one, two, three)]
    assert len(set(codes)) == 3  # the name counts
    assert code_of(one) == codes[0]


def test_code_of_a_measurement_follows_what_it_uses_and_not_the_harness_or_the_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = Used()
    used.add(layout.measure)
    sources = {name.removeprefix("benchmarks.") for name in used.sources}
    assert {"generate.layout.Drawing", "generate.layout.Case", "harness.subjects.JudgedModel"} <= sources
    assert "photopic.generate.guidance.layout_guidance" in used.modules
    assert not [name for name in sources if name.startswith("harness.benchmark") or name.endswith(("rows", "Config"))]
    code_of.cache_clear()
    before = code_of(layout.measure)
    monkeypatch.setattr(layout, "SEED", 1)
    code_of.cache_clear()
    assert code_of(layout.measure) != before


def test_a_method_stands_on_the_loss_and_not_on_the_machinery_of_edits() -> None:
    found = modules_under(("photopic.locate.concept_neurons",))
    learning = ("losses.denoising", "parameters.soft_mask", "subject.preservation")
    needed = {"photopic.locate.concept_neurons", "photopic.data.scenes", "photopic.core.nn.gradients"}
    assert needed | {f"photopic.learning.{name}" for name in learning} <= set(found)
    assert not [name for name in found if "edit" in name]


def test_contents_differ_where_edits_act_differently() -> None:
    index = {"unet.w": torch.tensor([1, 2])}
    rows = {"text_encoder": torch.zeros(4)}
    parts: list[Any] = [
        ZeroedWeights(index),
        ZeroedWeights({"unet.w": torch.tensor([1, 3])}),
        ZeroedWeights({"unet.v": torch.tensor([1, 2])}),
        SparseWeights(index, {"unet.w": torch.zeros(2)}),
        SparseWeights(index, {"unet.w": torch.ones(2)}),
        TokenEmbedding("<a>", rows),
        TokenEmbedding("<b>", rows),
    ]
    contents = [content_of([part]) for part in parts] + [content_of([]), content_of(parts)]
    assert len(set(contents)) == len(contents)
    assert content_of([ZeroedWeights({"unet.w": torch.tensor([1, 2])})]) == contents[0]
