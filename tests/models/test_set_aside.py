"""Networks set aside: the memory is given back, the bits stay, and they can still be called."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from photopic.models.set_aside import set_aside
from photopic.models.text_to_image.autoencoder import decode_latents, finished_pictures
from tests.tiny import tiny_pipeline


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2).half().float(), nn.Linear(2, 2).bfloat16())


def test_the_tensors_are_let_go_and_come_back_to_the_bit() -> None:
    model = network().eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = list(model.parameters())
    storages = [weakref.ref(each.untyped_storage()) for each in parameters]
    pointers = [each.data_ptr() for each in parameters]
    assert all(storage() is not None for storage in storages)
    with set_aside([model]):
        assert all(storage() is None for storage in storages)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert model[:2](torch.ones(4, 3)).isfinite().all()  # still to be called
        model[0].weight.zero_()  # the process's own page of the file, so no other reader sees it
    assert not model[0].weight.any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if name[0] != "0")
    assert [each is other for each, other in zip(parameters, model.parameters(), strict=True)] == [True] * len(
        parameters
    )
    assert len({*pointers}) == len(pointers)


def test_they_come_back_after_an_error_and_nothing_at_all_is_no_error() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="the search"), set_aside([model, nn.Module()]):
        raise RuntimeError("the search")
    assert model[0].weight.untyped_storage().nbytes() == 15 * 4  # no view of a file of all
    with set_aside([]):
        pass


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says how much of a mapping is in memory")
def test_what_has_come_back_is_no_longer_held_by_the_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(*[nn.Linear(1000, 500) for _ in range(10)])  # 2 MB each
    held: list[int] = []

    def mapped() -> int:
        """kB of deleted files that are in memory."""
        lines = Path("/proc/self/smaps").read_text().splitlines()
        heads = [index for index, line in enumerate(lines) if line.endswith("(deleted)")]
        return sum(int(next(line for line in lines[index:] if line.startswith("Rss:")).split()[1]) for index in heads)

    before, clone = mapped(), Tensor.clone

    def watched(tensor: Tensor) -> Tensor:
        found = clone(tensor)
        held.append(mapped() - before)
        return found

    with set_aside([model]):
        monkeypatch.setattr(Tensor, "clone", watched)
    assert len(held) == 20 and max(held) < 5000  # of 20 MB


def test_what_the_block_used_is_given_back_before_anything_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    clone = Tensor.clone
    with set_aside([network()]):
        monkeypatch.setattr("photopic.models.set_aside.give_back", lambda: events.append("given back"))
        monkeypatch.setattr(Tensor, "clone", lambda tensor: events.append("clone") or clone(tensor))
    assert events[0] == events[-1] == "given back" and events.count("clone") == len(events) - 2 > 5


@pytest.mark.parametrize(("side", "given_back"), [(64, ["given back"]), (63, [])])
def test_room_is_made_before_large_pictures_are_decoded(
    monkeypatch: pytest.MonkeyPatch, side: int, given_back: list[str]
) -> None:
    events: list[str] = []
    monkeypatch.setattr("photopic.models.set_aside.give_back", lambda: events.append("given back"))
    pipeline = tiny_pipeline()
    channels = pipeline.vae.config.latent_channels
    decode_latents(pipeline, torch.zeros(1, channels, side, 64))
    assert events == given_back
    events.clear()
    finished_pictures(pipeline, torch.zeros(1, channels, side, 64), [torch.Generator()])
    assert events == given_back
