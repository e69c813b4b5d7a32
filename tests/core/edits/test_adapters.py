"""Branches as a part of an edit, on a small network: order of hooks, weights, algebra, what is shown, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from photopic.core.edits import (
    AdapterPlacement,
    Adapters,
    ClassifierHead,
    Edit,
    EditStack,
    compose,
    difference,
    restrict,
)
from photopic.core.edits.attached_adapters import attached
from photopic.core.edits.file import load, save, to_bytes
from photopic.core.errors import EditError
from photopic.core.fingerprint import fingerprint
from photopic.edit.inspect import describe
from photopic.edit.verify import checks_of


class Op(nn.Module):
    """norm, then an operation, with a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.op, self.query = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.op(self.norm(x))


UP, DOWN = torch.linspace(-1, 1, 8).view(4, 2), torch.linspace(0, 1, 8).view(2, 4)
X = torch.linspace(-2, 2, 24).view(2, 3, 4)
PARALLEL = AdapterPlacement("adapter", "none", "identity", reads="m.norm")


def tuner(branch: AdapterPlacement = PARALLEL, scale: float = 1.0, **more: Tensor) -> Adapters:
    tensors = {"down": DOWN, "up": UP, **more}
    return Adapters({"m.op": branch}, {f"m.op/{role}": each for role, each in tensors.items()}, scale)


def edit(part: Any) -> Edit:
    return Edit((part,), fingerprint({"m": Op()}, "op"), {"method": "by hand"})


@torch.no_grad()
def with_edits(*edits: Edit, weight: Any = 1.0) -> Tensor:
    network = Op()
    stack = EditStack({"m": network})
    plain = network(X)
    with stack.applied(*edits, weight=weight):
        found = network(X)
    assert torch.equal(network(X), plain) and not any(part._forward_hooks for part in network.modules())
    return found


PLAIN = Op()(X).detach()


def test_a_parallel_branch_reads_before_the_norm_and_a_serial_one_after_the_operation() -> None:
    torch.testing.assert_close(with_edits(edit(tuner())), PLAIN + X @ DOWN.T @ UP.T)
    serial = with_edits(edit(tuner(AdapterPlacement("adapter", "none", "identity", serial=True))))
    torch.testing.assert_close(serial, PLAIN + (PLAIN - X) @ DOWN.T @ UP.T)
    own = with_edits(edit(tuner(AdapterPlacement("adapter", "none", "identity"))))
    torch.testing.assert_close(own, PLAIN + Op().norm(X).detach() @ DOWN.T @ UP.T)


def test_weights_and_scales_multiply_the_branch_and_zero_is_the_model() -> None:
    change = with_edits(edit(tuner())) - PLAIN
    torch.testing.assert_close(with_edits(edit(tuner(scale=-0.5)), weight=3.0), PLAIN - 1.5 * change)
    assert torch.equal(with_edits(edit(tuner()), weight=0.0), PLAIN)
    assert torch.equal(with_edits(edit(tuner()), weight={"m.op": 0.0}), PLAIN)
    torch.testing.assert_close(with_edits(edit(tuner()), edit(tuner(scale=2.0))), PLAIN + 3 * change)


def test_the_algebra_knows_branches(tmp_path: Path) -> None:
    one, two = edit(tuner()), edit(tuner(scale=2.0))
    both = compose(one, two)
    assert len(both.parts) == 2 and to_bytes(both) == to_bytes(compose(two, one))
    assert to_bytes(compose(one, edit(tuner()))) == to_bytes(one)
    torch.testing.assert_close(with_edits(both), with_edits(one, two))
    torch.testing.assert_close(with_edits(compose(one, weights=[0.5])), with_edits(one, weight=0.5))
    (left,) = difference(both, two).parts
    assert isinstance(left, Adapters) and left.scale == 1.0
    with pytest.raises(EditError, match="touches nothing"):
        restrict(one, layers=["m.other"])
    assert to_bytes(Edit(restrict(one, layers=["m.op"]).parts, one.base, one.provenance)) == to_bytes(one)
    save(both, tmp_path / "both.edit")
    assert to_bytes(load(tmp_path / "both.edit")) == to_bytes(both)
    torch.testing.assert_close(with_edits(load(tmp_path / "both.edit")), with_edits(both), rtol=0, atol=0)


def test_branches_and_heads_are_described_and_verified() -> None:
    head = ClassifierHead(("mug", "bear"), torch.ones(2, 4), torch.zeros(2))
    found = describe(Edit((tuner(scale=0.5), head), fingerprint({"m": Op()}, "op")))
    assert {row.kind: row.count for row in found.tensors} == {"tuner": 16, "head": 10}
    assert {part.detail for part in found.parts} == {"adapter, scaled by none", "2 classes"}
    assert all(check.passed for check in checks_of(edit(tuner()), EditStack({"m": Op()}, name="op")))


def test_attached_branches_get_gradients_and_leave() -> None:
    network, up = Op(), UP.clone().requires_grad_()
    with attached(network, {"m.op": PARALLEL}, {"m.op/down": DOWN, "m.op/up": up}, component="m"):
        network(X).sum().backward()
    assert up.grad is not None and up.grad.abs().sum() > 0
    assert not any(part._forward_hooks for part in network.modules())


def test_a_module_that_must_run_before_is_named() -> None:
    network = Op()
    stack = EditStack({"m": network}, name="op")
    part = Adapters(
        {"m.norm": AdapterPlacement("adapter", "none", reads="m.op")}, {"m.norm/down": DOWN, "m.norm/up": UP}
    )
    with stack.applied(edit(part)), pytest.raises(EditError, match=r"m\.norm: expected m\.op to run before it"):
        network(X)
    lost = Adapters({"m.op": AdapterPlacement("adapter", "none", reads="m.gone")}, {"m.op/down": DOWN, "m.op/up": UP})
    with pytest.raises(EditError, match=r"op: has no module m\.gone"):
        stack.load(edit(lost))
    blind = Adapters(
        {"m.op": AdapterPlacement("prefix", "none", query="m.gone", heads=2)}, {"m.op/keys": DOWN, "m.op/values": DOWN}
    )
    with pytest.raises(EditError, match=r"op: has no module m\.gone"):
        stack.load(edit(blind))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdapterPlacement("lora"), "expected a kind of adapter, prefix, prompt"),
        (lambda: AdapterPlacement("adapter", "row"), "found 'adapter', 'row'"),
        (lambda: AdapterPlacement("adapter", serial=True, reads="m.norm"), "without another module to read"),
        (lambda: AdapterPlacement("prefix"), "needs a query projection and heads, found '', 0"),
        (lambda: AdapterPlacement("prompt", query="m.query", heads=2), "needs the frozen key and value"),
        (lambda: tuner(scale=float("inf")), "expected a finite scale, found inf"),
        (lambda: tuner(gate=torch.ones(4)), "m.op/gate: expected tensors of its branches"),
        (lambda: tuner(down_bias=torch.ones(4)), r"expected down_bias of shape \(2,\), found \(4,\)"),
        (lambda: tuner(AdapterPlacement("adapter", "channel"), scale_=torch.ones(4)), "belongs to none"),
        (lambda: tuner(AdapterPlacement("adapter", "channel")), "needs scale"),
        (
            lambda: Adapters(
                {"m": AdapterPlacement("prefix", "none", query="q", heads=3)}, {"m/keys": UP, "m/values": UP}
            ),
            "3 heads",
        ),
        (lambda: ClassifierHead(("mug", "mug"), torch.ones(2, 4), torch.zeros(2)), "2 names, 1 of them different"),
        (lambda: ClassifierHead(("mug", " "), torch.ones(2, 4), torch.zeros(2)), "one name a class"),
        (
            lambda: ClassifierHead(("mug",), torch.full((1, 4), float("nan")), torch.zeros(1)),
            "head: weight: expected finite",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(EditError, match=message):
        make()
