"""Low-rank and dense changes: the formula on every kind of parameter, exact return, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from photopic.core.edits import DenseDelta, Edit, EditStack, LowRankDelta
from photopic.core.errors import EditError
from tests.core.small import BASE, Net, content, made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weight", [1.0, 0.5, -2.0])
def test_a_product_is_added_to_matrices_and_convolutions(dtype: torch.dtype, weight: float) -> None:
    edit, model = made("low_rank", 1, ["m.two.weight", "m.conv.weight"]), Net().to(dtype)
    before, base = content(model), {name: each.detach().clone() for name, each in model.named_parameters()}
    (part,) = edit.parts
    assert isinstance(part, LowRankDelta)
    with EditStack({"m": model}).applied(edit, weight=weight):
        for name in ("two.weight", "conv.weight"):
            product = part.scales[f"m.{name}"] * part.up[f"m.{name}"] @ part.down[f"m.{name}"]
            expected = base[name].float() + weight * product.view(base[name].shape)
            torch.testing.assert_close(model.get_parameter(name).detach(), expected.to(dtype), atol=1e-6, rtol=1e-2)
    assert content(model) == before
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_is_added_twice_leaves_in_any_order() -> None:
    model, half = Net(), Net().to(torch.bfloat16)
    for net in (model, half):
        before = content(net)
        stack = EditStack({"m": net})
        names = [stack.load(made(kind, 2), overlap="last") for kind in ("delta", "low_rank", "delta")]
        for name in (names[1], names[0], names[2]):
            stack.unload(name)
        assert content(net) == before


def test_counts_are_of_changed_entries() -> None:
    assert LowRankDelta({"a": torch.ones(5, 2)}, {"a": torch.ones(2, 7)}).count == 35
    assert DenseDelta({"a": torch.ones(3, 2), "b": torch.ones(4)}).count == 10
    assert made("delta", 2).touched().keys() == made("delta", 2).shapes.keys()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowRankDelta({"a": torch.ones(5, 2)}, {}), "a: expected both factors"),
        (lambda: LowRankDelta({"a": torch.ones(5, 2)}, {"a": torch.ones(3, 7)}), r"a: expected \(out, rank\)"),
        (lambda: LowRankDelta({"a": torch.ones(5, 2)}, {"a": torch.ones(2, 7).half()}), "of one dtype"),
        (
            lambda: LowRankDelta({"a": torch.ones(5, 2)}, {"a": torch.ones(2, 7)}, {"b": 1.0}),
            "b: expected both factors",
        ),
        (lambda: LowRankDelta({"a": torch.ones(5, 2)}, {"a": torch.ones(2, 7)}, {"a": float("inf")}), "finite scales"),
        (lambda: LowRankDelta({"a": torch.ones(5)}, {"a": torch.ones(2, 7)}), "low-rank up: a"),
        (lambda: DenseDelta({"a": torch.ones(3, dtype=torch.int32)}), "delta: a: expected float32"),
        (lambda: DenseDelta({"a": torch.tensor([float("nan")])}), "a: expected finite values"),
        (lambda: DenseDelta({"a": torch.zeros(0)}), "delta: a"),
        (
            lambda: Edit((DenseDelta({"m.two.bias": torch.ones(6)}),), BASE),
            r"m\.two\.bias: expected a change of shape \(5,\)",
        ),
        (
            lambda: Edit(
                (LowRankDelta({"m.conv.weight": torch.ones(3, 1)}, {"m.conv.weight": torch.ones(1, 7)}),), BASE
            ),
            r"m\.conv\.weight: expected a change of shape \(3, 8\), found \(3, 7\)",
        ),
        (lambda: Edit((DenseDelta({"m.three": torch.ones(6)}),), BASE), r"m\.three: missing in the fingerprint"),
    ],
)
def test_what_does_not_fit_is_named(make: Any, message: str) -> None:
    with pytest.raises(EditError, match=message):
        make()
