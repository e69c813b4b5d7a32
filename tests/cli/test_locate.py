"""``photopic locate neurons``: makes an edit, goes on after an interruption, and refuses bad input in one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from photopic.cli.main import app
from photopic.core.edits import Edit, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.edits.file import load
from photopic.learning.losses.denoising import ConceptLoss
from tests.cli.conftest import quick, refusal, run
from tests.processes import started


def stop_at_step_7(connection: Connection, arguments: list[str], said: Path) -> None:
    """In a process of its own: the command line, which waits in step 7 for Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests with & ignores it
    gradients, calls = ConceptLoss.gradients, []

    def slow(self: ConceptLoss, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == 7:
            connection.send("in step 7")
            time.sleep(60)
        return gradients(self, *given)

    ConceptLoss.gradients = slow  # type: ignore[method-assign]
    with said.open("w", buffering=1) as sys.stderr:
        app(arguments)


def parts(edit: Edit) -> list[object]:
    """The bytes of an edit's parts and its provenance without what time and memory it took."""
    found: list[object] = []
    for part in edit.parts:
        tensors = part.rows if isinstance(part, TokenEmbedding) else part.indices
        found += [(name, tensor.tolist()) for name, tensor in tensors.items()]
        if isinstance(part, SparseWeights):
            found += [(name, tensor.tolist()) for name, tensor in part.values.items()]
    kept = {key: value for key, value in edit.provenance.items() if key not in ("elapsed_s", "peak_bytes")}
    return [*found, json.dumps(kept, sort_keys=True)]


def test_writes_an_edit_that_says_how_it_was_made(edit: Path) -> None:
    loaded = load(edit)
    assert loaded.tokens == ("<mine>",) and loaded.base.name == "tiny"
    assert loaded.provenance["noun"] == "bear" and loaded.provenance["config"]["steps"] == 2
    assert loaded.provenance["prompt"] == "a <mine> bear on a red background"  # the caption file
    assert any(isinstance(part, ZeroedWeights) for part in loaded.parts)
    assert [entry.name for entry in edit.parent.iterdir()] == [edit.name]  # the run folder is gone


def test_tuning_keeps_values_at_the_bits_asked_for(tmp_path: Path, photos: Path, model: Path) -> None:
    out = run("locate", "neurons", photos, "--noun", "bear", "-o", tmp_path / "b.edit", "--tune", 2, "--bits", 2,
              "--run", tmp_path / "kept", *quick(model)).stdout  # fmt: skip
    values = [part for part in load(tmp_path / "b.edit").parts if isinstance(part, SparseWeights)]
    assert values[0].bits == 2 and "b.edit" in out and "photopic generate" in out
    assert (tmp_path / "kept" / "log.jsonl").exists()  # a run folder that was named stays


def test_the_run_folder_of_another_search_is_refused(tmp_path: Path, photos: Path, model: Path) -> None:
    options = ("locate", "neurons", photos, "--noun", "bear", "--run", tmp_path / "run")
    run(*options, "-o", tmp_path / "a.edit", *quick(model))
    line = refusal(*options, "-o", tmp_path / "b.edit", *quick(model), "--seed", 1)
    assert str(tmp_path / "run") in line and "another" in line and not (tmp_path / "b.edit").exists()


def test_drawn_pictures_of_what_must_not_change_are_kept_for_the_next_start(
    tmp_path: Path, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("locate", "neurons", photos, "--noun", "bear", *quick(model), "--run", tmp_path / "run", "-o")
    with monkeypatch.context() as patch:
        patch.setattr("photopic.learning.parameters.soft_mask.WeightMask.step", _interrupt)
        run(*options, tmp_path / "a.edit", status=130)
    assert (tmp_path / "run" / "preservation" / "checkpoint.safetensors").exists()
    with monkeypatch.context() as patch:
        patch.setattr("photopic.models.text_to_image.drawing._draw_batch", _interrupt)  # nothing is left to draw
        run(*options, tmp_path / "a.edit")
    run(*options[:-3], "-o", tmp_path / "b.edit")
    assert parts(load(tmp_path / "a.edit")) == parts(load(tmp_path / "b.edit"))


def _interrupt(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def bad(tmp_path: Path, photos: Path, model: Path, *more: object, noun: str = "bear") -> str:
    line = refusal("locate", "neurons", photos, "--noun", noun, "-o", tmp_path / "x.edit", *quick(model), *more)
    assert not list(tmp_path.glob("x.edit*")), "something was left behind"
    return line


def test_bad_pictures_are_refused_by_name(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    assert "empty folder" in bad(tmp_path, folder, model)
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert "a.png" in bad(tmp_path, folder, model)
    assert "absent" in bad(tmp_path, tmp_path / "absent", model)


def test_an_enormous_picture_is_refused(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (300, 300)).save(tmp_path / "photos" / "big.png")
    monkeypatch.setattr("photopic.data.picture_file.MAX_PIXELS", 80_000)
    line = bad(tmp_path, tmp_path / "photos", model)
    assert "big.png" in line and "300 x 300" in line and "scale it down" in line


def test_unknown_nouns_and_known_tokens_are_refused(tmp_path: Path, photos: Path, model: Path) -> None:
    assert "zyzzyva" in bad(tmp_path, photos, model, noun="zyzzyva")
    assert "noun" in bad(tmp_path, photos, model, noun=" ")
    line = bad(tmp_path, photos, model, "--token", "cat")
    assert "'cat'" in line and "already in the vocabulary" in line
    assert "two words" in bad(tmp_path, photos, model, "--token", "two words")


def test_wrong_models_and_outputs_are_refused(tmp_path: Path, photos: Path, model: Path, edit: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(model, wrong)
    index = json.loads((wrong / "model_index.json").read_text())
    (wrong / "model_index.json").write_text(json.dumps(index | {"_class_name": "AudioLDMPipeline"}))
    assert "wrong" in bad(tmp_path, photos, wrong)
    assert "no such model" in bad(tmp_path, photos, Path("no-such-model"))
    assert "--overwrite" in refusal("locate", "neurons", photos, "--noun", "bear", "-o", edit, *quick(model))
    assert "absent" in refusal("locate", "neurons", photos, "--noun", "bear", "-o", tmp_path / "absent" / "x.edit")


def test_a_full_disk_is_one_line_and_leaves_no_half_written_file(
    tmp_path: Path, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    line = refusal("locate", "neurons", photos, "--noun", "bear", "-o", tmp_path / "x.edit", *quick(model))
    assert "no space left" in line.lower() and "free some space" in line and "x.edit" in line
    assert not (tmp_path / "x.edit").exists() and not list(tmp_path.rglob("*.tmp"))


def test_interrupted_it_goes_on_to_the_same_result(
    tmp_path: Path, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photopic.core.fit.SAVE_EVERY", 5)
    options = ["locate", "neurons", photos, "--noun", "bear", *quick(model, steps=8), "-o"]
    arguments = [str(each) for each in (*options, tmp_path / "a.edit", "--run", tmp_path / "run")]
    process, connection = started(stop_at_step_7, arguments, tmp_path / "said")
    assert connection.recv() == "in step 7" and process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    errors = (tmp_path / "said").read_text()
    assert process.exitcode == 130, errors
    assert "interrupted; run the same command again to go on" in errors and "Traceback" not in errors
    assert not (tmp_path / "a.edit").exists()
    run(*options, tmp_path / "a.edit", "--run", tmp_path / "run")  # in this process
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
    ]  # from the checkpoint of step 5, each once
    run(*options, tmp_path / "b.edit")
    assert parts(load(tmp_path / "a.edit")) == parts(load(tmp_path / "b.edit"))
    assert torch.equal(*(torch.cat(list(load(tmp_path / name).touched().values())) for name in ("a.edit", "b.edit")))
