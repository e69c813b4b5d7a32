"""``verify`` passes what is right and sees each thing that can go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from photopic.core.edits import EditStack, ZeroedWeights
from photopic.core.errors import EditError
from photopic.edit.verify import checks_of
from tests.core.edits.kinds import Small, at, edit, hook_parts, weight_parts


def failed(stack: EditStack, made: Any) -> list[str]:
    return [check.name for check in checks_of(made, stack) if not check.passed]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_edit_of_every_kind_passes_at_every_precision(dtype: torch.dtype) -> None:
    made = edit(*weight_parts(), *hook_parts())
    model = Small().to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert failed(EditStack({"m": model}, name="small"), made) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Sloppy(EditStack):
    """Changes one entry of one tensor beside what the edits say, for as long as they are applied or for good."""

    def __init__(self, model: Small, tensor: torch.Tensor, stays: bool = False):
        super().__init__({"m": model})
        self.tensor, self.stays = tensor.detach(), stays

    @contextmanager
    def applied(self, *edits: Any, **options: Any) -> Iterator[EditStack]:
        with super().applied(*edits, **options):
            self.tensor.view(-1)[-1] += 1
            yield self
            self.tensor.view(-1)[-1] -= 1  # exact for the powers of two the test puts there
        self.tensor.view(-1)[-1] += self.stays


def ones(model: Small) -> Small:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    return model


def test_what_an_edit_does_not_say_is_seen() -> None:
    from photopic.core.edits import Edit
    from photopic.core.fingerprint import fingerprint

    model = ones(Small())
    found = fingerprint({"m": model}, "ones", ["m.one.weight"])
    made = Edit((ZeroedWeights({"m.one.weight": at(0)}),), found)
    assert failed(EditStack({"m": model}), made) == []
    assert failed(Sloppy(model, model.one.weight), made) == ["touched entries"]
    assert failed(Sloppy(model, model.two.bias), made) == ["other tensors"]
    left = failed(Sloppy(model, model.two.bias, stays=True), made)
    assert left == ["other tensors", "reverted: tensors", "reverted: digest"]


def test_a_hook_that_is_left_behind_is_seen() -> None:
    class Leaving(EditStack):
        @contextmanager
        def applied(self, *edits: Any, **options: Any) -> Iterator[EditStack]:
            with super().applied(*edits, **options):
                yield self
            self.modules["m"].get_submodule("two").register_forward_hook(lambda *_: None)

    assert failed(Leaving({"m": Small()}), edit(*hook_parts())) == ["reverted: words, hooks"]


def test_another_base_and_a_stack_in_use_are_refused() -> None:
    made = edit(ZeroedWeights({"m.one.weight": at(0)}))
    with pytest.raises(EditError, match=r"small-0 \(.*but this model is other"):
        list(checks_of(made, EditStack({"m": Small(1)}, name="other")))
    stack = EditStack({"m": Small()})
    stack.load(made, name="first")
    with pytest.raises(EditError, match="found first; unload"):
        list(checks_of(edit(ZeroedWeights({"m.one.weight": at(1)})), stack))
