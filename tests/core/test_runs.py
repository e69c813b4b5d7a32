"""Run folders: what is in one belongs to one configuration, and a failure leaves the old file or the new one."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch

from photopic.core import runs
from photopic.core.runs import Run, RunMismatchError, load_optimizer, optimizer_tensors, write_atomically


@dataclass(frozen=True)
class Config:
    steps: int = 3
    sizes: tuple[int, ...] = (1, 2)


def test_the_same_configuration_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    Run(tmp_path / "a", Config())
    Run(tmp_path / "a", Config())  # a tuple comes back from JSON as a list
    with pytest.raises(RunMismatchError, match="holds a run with steps=3, asked for 4"):
        Run(tmp_path / "a", Config(steps=4))


def test_a_checkpoint_comes_back_exactly(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.load() is None
    tensors = {"half": torch.randn(3, 2).half(), "view": torch.arange(6).view(2, 3).T}
    run.save(tensors, {"step": 5, "name": "x"})
    (tmp_path / "other").touch()
    assert (run.folder / runs.CHECKPOINT).stat().st_mode == (
        tmp_path / "other"
    ).stat().st_mode  # others may read it too
    found, state = Run(tmp_path).load()  # type: ignore[misc]
    assert state == {"step": 5, "name": "x"}
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


def test_a_failed_save_leaves_the_old_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.save({"a": torch.zeros(2)}, {"step": 1})

    def full(tensors: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        run.save({"a": torch.ones(2)}, {"step": 2})
    assert run.load()[1] == {"step": 1}  # type: ignore[index]
    assert [path.name for path in tmp_path.iterdir()] == [runs.CHECKPOINT]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_log_grows_by_a_line_of_json(tmp_path: Path) -> None:
    for step in (1, 2):
        Run(tmp_path).log(step=step, loss=0.5)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and all("elapsed_s" in line for line in lines)


def test_an_optimizer_takes_the_same_step_after_its_state_was_put_back() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    weight.grad = torch.tensor([1.0, -2.0, 3.0])
    optimizer.step()
    copy = torch.nn.Parameter(weight.detach().clone())
    other = torch.optim.Adam([copy], lr=0.1)
    load_optimizer(other, {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()})
    for parameter, stepper in ((weight, optimizer), (copy, other)):
        parameter.grad = torch.tensor([-1.0, 0.5, 2.0])
        stepper.step()
    assert torch.equal(weight, copy)
