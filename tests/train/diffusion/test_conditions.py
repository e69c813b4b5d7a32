"""Conditions are learnt: by one process or several, to the same weights; the control takes other pictures' conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.errors import DataError
from photopic.core.events import finished
from photopic.core.runs import Run, read_log
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.learning.processes import Processes
from photopic.models.text_to_image.handle import TextToImage
from photopic.train.diffusion import conditions as module
from photopic.train.diffusion.conditions import ConditionLearner, ConditionsConfig, conditions, fresh_adapter
from tests.tiny import tiny_pipeline
from tests.tiny_encoders import tiny_dual_encoder
from tests.train.diffusion.test_training import be_one_of_two, both_at_work

CONFIG = ConditionsConfig(steps=3, batch=4, lr=1e-2)


def model() -> TextToImage:
    return TextToImage(tiny_pipeline(), "tiny")


@pytest.fixture(scope="module")
def bank() -> module.Bank:
    return finished(module._bank(model(), ConditionedPictures("emoji-scenes:6"), tiny_dual_encoder()))


def learner(bank: module.Bank, config: ConditionsConfig = CONFIG) -> ConditionLearner:
    made = model()
    names = ("embedding", "palette", "sketch", "instances", "depth", "intensity", "masked")
    return ConditionLearner(made, fresh_adapter(made, names, tiny_dual_encoder()), bank, config)


def gradient(one: ConditionLearner, own: slice, count: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Of the share of one of several processes."""
    one.own = own
    monkeypatch.setattr(Processes, "count", count)
    one.adapter.zero_grad(set_to_none=True)
    one.loss(1).backward()
    return {name: each.grad for name, each in one.adapter.named_parameters() if each.grad is not None}


def test_the_mean_over_two_processes_is_the_gradient_of_the_whole_batch(
    bank: module.Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = learner(bank)
    with torch.no_grad():
        for each in one.adapter.parameters():  # at the start some are zero, and so are gradients before them
            each.add_(0.05 * torch.randn(each.shape, generator=torch.Generator().manual_seed(0)))
    whole = gradient(one, slice(0, None, 1), 1, monkeypatch)
    parts = [gradient(one, slice(rank, None, 2), 2, monkeypatch) for rank in (0, 1)]
    assert len(whole) > 20 and max(each.abs().max() for each in whole.values()) > 1e-3
    for name, expected in whole.items():
        mean = sum(part.get(name, torch.zeros_like(expected)) for part in parts) / 2
        torch.testing.assert_close(mean, expected, rtol=1e-3, atol=1e-6)


def weights(folder: Path) -> Mapping[str, Tensor]:
    found = Run(folder).load()
    assert found is not None
    return {name: each for name, each in found[0].items() if name.startswith("net.")}


def train(folder: Path) -> None:
    data = ConditionedPictures("emoji-scenes:6")
    finished(conditions.events(model(), data, tiny_dual_encoder(), config=CONFIG, run=Run(folder, CONFIG)))


def train_as_one_of_two(connection: Connection, rank: int, folder: Path) -> None:
    be_one_of_two(rank, connection.recv())
    train(folder)
    torch.distributed.destroy_process_group()


def test_two_processes_learn_what_one_does_and_one_of_them_writes(tmp_path: Path) -> None:
    train(tmp_path / "one")
    both_at_work(train_as_one_of_two, tmp_path / "two")
    assert [line["step"] for line in read_log(tmp_path / "two")] == [1, 2, 3]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    fresh = fresh_adapter(model(), ("embedding",), tiny_dual_encoder()).state_dict()
    moved = [name for name in one if name[4:] in fresh and not torch.equal(one[name], fresh[name[4:]])]
    assert moved
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=2e-2, atol=2e-3)


def test_more_processes_than_pictures_a_step_are_refused(bank: module.Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(DataError, match="batch: expected at least 8, one for each process, found 4"):
        learner(bank)


def test_the_control_learns_from_the_conditions_of_other_pictures(
    bank: module.Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[bool, list[int]] = {}
    for shuffle in (False, True):
        one, seen = learner(bank, replace(CONFIG, shuffle=shuffle)), asked.setdefault(shuffle, [])
        drawn = one.drawn
        monkeypatch.setattr(
            one, "drawn", lambda place, rng, drawn=drawn, seen=seen: (seen.append(place), drawn(place, rng))[1]
        )
        one.loss(0)
    chosen = torch.randint(6, (4,), generator=torch.Generator().manual_seed(0)).tolist()
    assert asked[False] == chosen
    order = np.random.default_rng((0, 7)).permutation(6)
    assert asked[True] == [order[place] for place in chosen] != chosen
