"""The examples of docs/interop.md run, on a tiny model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from photopic.core.edits import TokenEmbedding, ZeroedWeights
from photopic.edit import interop
from tests.edit.interop.examples import TO_K, make, noise, some_positions, tiny_model

PAGE = Path(__file__).resolve().parents[3] / "docs/interop.md"


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading, *blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert "photopic.load(" in loading
    assert len(blocks) == 4
    model = tiny_model()
    shut, token = ZeroedWeights({TO_K: some_positions(20, 1024)}), TokenEmbedding("<mine>", {"text_encoder": noise(32)})
    names = {"model": model, "edit": make(model, shut, token), "interop": interop}
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert names["images"].shape == (1, 32, 32, 3)
    assert names["small"].touched().keys() <= names["whole"].touched().keys()


def test_the_page_names_every_function() -> None:
    text = PAGE.read_text()
    assert [name for name in interop.__all__ if f"`{name}`" not in text and name != "model_card"] == []
