"""@method, Config, Event and fit: what every method of the library gets without writing it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from photopic.core.config import Config, Flags, comments, hints_of, unpacked
from photopic.core.digests import digest_of
from photopic.core.errors import DataError, DivergedError, ModelError
from photopic.core.events import Event, Steps, finished, last
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.runs import Run, RunInUseError, RunMismatchError, read_log


@dataclass(frozen=True, kw_only=True)
class Descent(Config):
    steps: Annotated[int, Ge(1)] = 6  # steps of learning; more takes longer
    # size of a step
    lr: Annotated[float, Gt(0), Le(1)] = 0.1
    layers: Literal["cross", "self"] = "cross"  # which layers
    scales: Annotated[tuple[float, ...] | None, Gt(0)] = None  # factors, or as published
    classes: Annotated[int, Ge(2), Flags("--class")] = 2  # of the task
    seed: Annotated[int, Ge(0)] = 0  # of the start


class Square:
    """Learns the square root of the length of some data, from a start that follows from the seed."""

    def __init__(self, data: Tensor, config: Descent):
        self.weight = torch.randn((), generator=torch.Generator().manual_seed(config.seed)).requires_grad_()
        optimizer = torch.optim.Adam([self.weight])
        self.held = OptimizedTensors({"weight": self.weight}, optimizer, lambda step: config.lr / (1 + step))
        self.target, self.state, self.restore = data.sum(), self.held.state, self.held.restore

    def step(self, step: int) -> Mapping[str, float]:
        loss = (self.weight**2 - self.target).square()
        self.held.update(loss, step=step)
        return {"loss": loss.item()}


@method(paper="arXiv:0000.00000", claims="square.", presets={"paper": Descent(steps=9)})
def square_root(data: Tensor, *, config: Descent = Descent(), run: Run | None = None) -> Steps[Report]:
    """Learn a square root."""
    learner = Square(data, config)
    yield from fit(learner, config.steps, run=run, save_every=2)
    return Report("square root", {"root": learner.weight.item()}, provenance={"data": "its own word"})


@method
def counted(words: Sequence[str], *, least: Annotated[int, Ge(0)] = 0) -> Steps[Report]:
    """Count words."""
    yield Event("counting", warning="few" if len(words) < least else "")
    return Report("count", {"words": len(words)})


DATA = torch.tensor([1.0, 1.0])


def test_a_call_gives_the_result_of_the_last_event_and_the_same_seed_the_same_bytes() -> None:
    first, second = square_root(DATA), last(square_root.events(DATA))
    assert first.values == second.values
    assert square_root(DATA, config=Descent(seed=1)).values != first.values


def test_a_result_says_where_it_comes_from_and_the_bodys_own_word_counts_more() -> None:
    found = square_root(DATA, config=Descent(lr=0.5)).provenance
    assert found["method"] == square_root.name == "core.square_root" or found["method"].endswith(".square_root")
    assert found["paper"] == "arXiv:0000.00000" and found["seed"] == 0 and found["data"] == "its own word"
    assert found["config"]["lr"] == 0.5 and "torch" in found["versions"] and found["elapsed_s"] >= 0
    assert counted(["a"]).provenance["data"] == {}  # words are options, not data


def test_events_carry_times_and_warnings() -> None:
    events = list(square_root.events(DATA))
    assert [event.done for event in events if event.stage == "learning"] == list(range(7))
    assert all(event.eta_s >= 0 for event in events) and events[-1].stage == "done"
    assert [event.elapsed_s for event in events] == sorted(event.elapsed_s for event in events)
    assert next(counted.events(["a"], least=2)).warning == "few"


def test_interrupted_is_uninterrupted(tmp_path: Path) -> None:
    whole = square_root(DATA, run=Run(tmp_path / "whole")).values
    events = square_root.events(DATA, run=Run(tmp_path / "cut"))
    while next(events).done < 5:  # the last checkpoint is after step 4
        pass
    events.close()
    resumed = list(square_root.events(DATA, run=Run(tmp_path / "cut")))
    assert resumed[0].done == 4
    assert resumed[-1].result is not None and resumed[-1].result.values == whole
    assert [line["step"] for line in read_log(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("other", [{"config": Descent(seed=1)}, {"data": DATA + 1}])
def test_a_run_folder_of_other_arguments_is_refused(tmp_path: Path, other: dict[str, object]) -> None:
    square_root(DATA, run=Run(tmp_path))
    with pytest.raises(RunMismatchError, match="holds another run"):
        square_root(**({"data": DATA} | other), run=Run(tmp_path))  # type: ignore[arg-type]


def test_a_method_that_keeps_nothing_refuses_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="keeps nothing to go on from"):
        list(counted.events(["a"], run=Run(tmp_path)))


class Stack:
    def __init__(self, *names: str):
        self._names = names

    def names(self) -> tuple[str, ...]:
        return self._names


class Handle:
    name = "tiny"

    def __init__(self, *edits: str):
        self.edits = Stack(*edits)

    def digest(self) -> str:
        return "0" * 64


def named(model: Handle) -> Steps[Report]:
    """The name of a model."""
    yield Event("looking")
    return Report("name", {"name": model.name})


def test_a_model_with_edits_in_force_is_refused_unless_the_method_takes_it() -> None:
    with pytest.raises(ModelError, match=r"tiny: has edits applied \(bear\)"):
        method(named)(Handle("bear"))
    report = method(allow_edits=True)(named)(Handle("bear"))
    assert report.provenance["model"] == "tiny"


def test_ranges_of_plain_arguments_are_checked() -> None:
    with pytest.raises(DataError, match="least: expected 0 or more, found -1"):
        counted(["a"], least=-1)


# --- configs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: expected 1 or more, found 0"),
        ({"steps": 1.5}, "steps: expected a whole number, found 1.5"),
        ({"steps": True}, "steps: expected a whole number, found True"),
        ({"lr": 0.0}, "lr: expected more than 0, found 0.0"),
        ({"lr": 2}, "lr: expected 1 or less, found 2"),
        ({"lr": float("nan")}, "lr: expected a finite number, found nan"),
        ({"layers": "both"}, "layers: expected cross or self, found 'both'"),
        ({"scales": 3.0}, "scales: expected .* found 3.0"),
        ({"scales": (1.0, -1.0)}, "scales: expected more than 0, found -1.0"),
        ({"scales": (1.0, float("inf"))}, "scales: expected a finite number, found inf"),
    ],
)
def test_a_config_refuses_what_its_annotations_rule_out(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Descent(**options)  # type: ignore[arg-type]


def test_a_config_takes_what_its_annotations_allow() -> None:
    assert Descent(lr=1, scales=(0.5, 2.0)).lr == 1
    assert Descent(scales=None).scales is None


def test_comments_are_the_help_text() -> None:
    found = comments(Descent)
    assert found["steps"] == "steps of learning; more takes longer"
    assert found["lr"] == "size of a step"
    assert Flags("--class") in unpacked(hints_of(Descent)["classes"])[1]


# --- what a run is bound to


def test_digests_follow_content() -> None:
    assert digest_of("x", torch.ones(2)) == digest_of("x", torch.ones(2)) != digest_of("x", torch.ones(1, 2))
    assert digest_of("x", torch.ones(2)) != digest_of("x", torch.ones(2, dtype=torch.float64))
    assert digest_of("x", torch.ones(2, dtype=torch.bfloat16)) != digest_of("x", torch.zeros(2, dtype=torch.bfloat16))
    assert digest_of("x", np.zeros(3)) != digest_of("x", np.zeros(3, np.float32))
    assert digest_of("x", [Descent()]) == digest_of("x", [Descent()]) != digest_of("x", [Descent(seed=1)])
    assert digest_of("x", last) == "photopic.core.events.last"
    with pytest.raises(TypeError, match="x: a object does not say what it is"):
        digest_of("x", object())


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    weight = torch.ones(1, requires_grad=True)
    held = OptimizedTensors({"weight": weight}, torch.optim.SGD([weight], lr=1.0), lambda step: 1.0)
    with pytest.raises(ModelError, match="step 4: the loss is nan; lower the learning rate"):
        held.update((weight * float("nan")).sum(), step=3)
    assert weight.item() == 1.0


@method
def falling(rate: float, *, run: Run | None = None) -> Steps[Report]:
    """Doubles what it holds, and diverges at rates above 1 once there is a checkpoint."""
    learner = Doubling(rate)
    yield from fit(learner, 6, run=run, save_every=1)
    return Report("falling", {"held": float(learner.held)})


class Doubling:
    """A learner whose loss is not finite from the fourth step on where its rate is above the bound."""

    bound = 1.0

    def __init__(self, rate: float):
        self.rate, self.held = rate, torch.ones(())

    def step(self, step: int) -> Mapping[str, float]:
        if step > 2 and self.rate > self.bound:
            raise DivergedError(f"step {step + 1}: the loss is nan; lower the learning rate")
        self.held = self.held * 2
        return {"loss": float("nan") if step == 1 else 0.5}

    def state(self) -> dict[str, Tensor]:
        return {"held": self.held}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.held = state["held"]


def test_a_diverged_run_does_not_block_its_corrected_call(tmp_path: Path) -> None:
    for _ in range(2):  # the same again goes on from its checkpoint and ends alike
        with pytest.raises(DivergedError, match="step 4"):
            falling(2.0, run=Run(tmp_path))
    assert falling(0.5, run=Run(tmp_path)).values == falling(0.5).values
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(RunMismatchError):  # what ended well is still kept
        falling(0.25, run=Run(tmp_path))


def test_a_run_that_diverged_once_and_then_ended_well_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DivergedError):
        falling(2.0, run=Run(tmp_path))
    monkeypatch.setattr(Doubling, "bound", 3.0)  # as where a fault of the machine was mended
    assert falling(2.0, run=Run(tmp_path)).values["held"] == 64
    with pytest.raises(RunMismatchError):
        falling(0.5, run=Run(tmp_path))


def test_a_log_is_json_whatever_was_measured(tmp_path: Path) -> None:
    falling(0.5, run=Run(tmp_path))
    assert "NaN" not in (tmp_path / "log.jsonl").read_text() and read_log(tmp_path)[1]["loss"] is None


def test_a_folder_that_another_process_writes_is_refused_and_free_after_its_death(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom photopic.core.runs import Run\n"
        f"with Run({str(tmp_path)!r}).held():\n    print('held', flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    with pytest.raises(RunInUseError, match="another process is writing this run"):
        falling(0.5, run=Run(tmp_path))
    other.kill()  # as a crash does: nothing of its own code runs
    other.communicate()
    assert falling(0.5, run=Run(tmp_path)).values["held"] == 64


def test_finished_returns_what_a_body_returns() -> None:
    assert finished(counted.body(["a", "b"])).values == {"words": 2}
