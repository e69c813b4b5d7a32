"""Where memory is short the base's entries of whole tensors wait in a file: every byte comes back, and no room is one line."""

from __future__ import annotations

import copy
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from photopic.core import aside
from photopic.core.aside import StoredTensor
from photopic.core.edits import DenseDelta, Edit, EditStack
from photopic.core.errors import EditError
from photopic.core.fingerprint import fingerprint
from tests.core.small import Net, content, made

NAMES = ["m.two.weight", "m.conv.weight"]  # the second lies channels last


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system that says of itself that it has nothing left."""
    (tmp_path / "meminfo").write_text("MemTotal: 2 kB\nMemAvailable:          0 kB\n")
    monkeypatch.setattr(aside, "MEMINFO", tmp_path / "meminfo")


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """No file may become larger meanwhile, that of this test's output either."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def kept(stack: EditStack) -> dict[str, type]:
    return {name: type(each.base) for name, each in stack._live._overwritten._kept.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_whole_tensors_come_back_from_a_file_to_the_bit(dtype: torch.dtype) -> None:
    model = Net().to(dtype)
    before, stack = content(model), EditStack({"m": model})
    names = [stack.load(made(kind, 1, NAMES), overlap="last") for kind in ("low_rank", "delta")]
    assert kept(stack) == {"m.two.weight": StoredTensor, "m.conv.weight": torch.Tensor}
    stack.set_weights({names[0]: 0.5})
    stack.unload(names[0])
    assert content(model) != before
    stack.unload(names[1])
    assert content(model) == before


def test_a_model_that_is_cast_or_laid_out_anew_reverts_to_what_its_base_would_be() -> None:
    for change in (nn.Module.half, lambda model: model.to(memory_format=torch.channels_last)):
        model, plain = Net().to(memory_format=torch.contiguous_format), Net()
        stack = EditStack({"m": model})
        stack.load(made("low_rank", 1, NAMES))
        assert set(kept(stack).values()) == {StoredTensor}
        change(model)
        stack.clear()
        change(plain)
        assert content(model) == content(plain)


def test_a_copy_of_a_model_with_edits_reverts_by_itself() -> None:
    model = Net()
    before, stack = content(model), EditStack({"m": model})
    stack.load(made("low_rank", 1, NAMES))
    twin = copy.deepcopy(stack)
    assert set(kept(twin).values()) == {torch.Tensor}
    stack.clear()
    twin.clear()
    assert content(model) == before == content(twin.modules["m"])


def test_more_than_a_block_comes_back() -> None:
    model = nn.Linear(1100, 1000)
    before, name = content(model), "m.weight"
    edit = Edit((DenseDelta({name: torch.ones(1000, 1100)}),), fingerprint({"m": model}, "large", [name]))
    with EditStack({"m": model}).applied(edit):
        assert content(model) != before
    assert content(model) == before


def test_no_room_for_the_file_is_one_line_and_leaves_the_base() -> None:
    model = nn.Linear(40, 30)
    before, stack = content(model), EditStack({"m": model})
    edit = Edit((DenseDelta({"m.weight": torch.ones(30, 40)}),), fingerprint({"m": model}, "tiny", ["m.weight"]))
    expected = r"expected room for the base's entries among temporary files, found .*; set TMPDIR"
    with pytest.raises(EditError, match=expected), no_file_above(100):
        stack.load(edit)
    assert content(model) == before and not stack.names()


@pytest.mark.parametrize(
    ("where", "said"), [("/nowhere", "MemAvailable: 0 kB"), (None, "MemAvailable: 1000000 kB"), (None, None)]
)
def test_without_a_folder_or_with_memory_to_spare_they_stay_in_memory(
    where: str | None, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", where)
    aside.MEMINFO.unlink()
    if said is not None:  # a system that says nothing, as macOS, has memory
        aside.MEMINFO.write_text(said)
    model = Net()
    before, stack = content(model), EditStack({"m": model})
    stack.load(made("low_rank", 1, NAMES))
    assert set(kept(stack).values()) == {torch.Tensor}
    stack.clear()
    assert content(model) == before
