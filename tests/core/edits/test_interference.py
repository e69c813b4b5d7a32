"""Interference: what two edits share, against a count by hand, and what they do together, against running them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from photopic.core.edits import DenseDelta, Edit, EditStack, LowRankDelta, SparseWeights, ZeroedWeights
from photopic.core.edits.interference import interference
from photopic.core.errors import EditError
from photopic.core.fingerprint import fingerprint

NAMES = ["m.0.weight", "m.2.weight"]


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))


def edit(net: nn.Module, *parts: ZeroedWeights | SparseWeights | LowRankDelta | DenseDelta, noun: str = "") -> Edit:
    return Edit(parts, fingerprint({"m": net}, "tiny", NAMES), {"noun": noun})


def test_shared_entries_stand_beside_what_chance_would_share(net: nn.Sequential) -> None:
    a = edit(net, ZeroedWeights({"m.0.weight": torch.arange(0, 20), "m.2.weight": torch.arange(5)}), noun="bear")
    b = edit(net, ZeroedWeights({"m.0.weight": torch.arange(15, 27)}), noun="mug")
    report = interference(a, b)
    (row,) = report.rows
    assert (row["pair"], row["shared"], row["expected"]) == ("bear + mug", 5, 20 * 12 / 48)
    assert report.values["over_chance"] == 1 and report.values["set_twice"] == 0
    assert row["opposite"] is None  # how far a shut entry moves depends on the base
    assert interference(a, b, names=["x", "y"]).rows[0]["pair"] == "x + y"


def test_opposite_signs_are_those_of_the_changes(net: nn.Sequential) -> None:
    at = torch.arange(10)
    base = net[0].weight.detach().flatten()[:10]
    a = edit(net, ZeroedWeights({"m.0.weight": at}))  # the change is minus the entry
    b = edit(net, SparseWeights({"m.0.weight": at}, {"m.0.weight": torch.linspace(-1, 1, 10)}, delta=True))
    expected = int((-base.sign() * torch.linspace(-1, 1, 10).sign() < 0).sum())
    report = interference(a, b, base={"m": net})
    assert 0 < expected < 10 and report.rows[0]["opposite"] == expected
    assert report.values["opposite"] == expected / 10


def test_cosine_and_angle_know_equal_and_orthogonal_changes(net: nn.Sequential) -> None:
    rows, columns = torch.eye(4), torch.eye(6)
    one = edit(net, LowRankDelta({"m.2.weight": rows[:, :1]}, {"m.2.weight": columns[:1]}))
    same = edit(net, DenseDelta({"m.2.weight": 3 * rows[:, :1] @ columns[:1]}))
    other = edit(net, LowRankDelta({"m.2.weight": rows[:, 1:2]}, {"m.2.weight": columns[:1]}))
    parallel, apart = interference(one, same).rows[0], interference(one, other).rows[0]
    assert parallel["cosine"] == pytest.approx(1) and parallel["angle_deg"] == pytest.approx(0, abs=0.05)
    assert apart["cosine"] == pytest.approx(0) and apart["angle_deg"] == pytest.approx(90)


def test_drift_is_that_of_running_the_edits(net: nn.Sequential) -> None:
    batch = torch.randn(16, 8)
    a, b = (
        edit(net, DenseDelta({name: torch.randn(shape)}), noun=noun)
        for name, shape, noun in (("m.0.weight", (6, 8), "bear"), ("m.2.weight", (4, 6), "mug"))
    )
    values = interference(a, b, base={"m": net}, probe=lambda: net(batch)).values
    with torch.no_grad():
        plain = net(batch)
        with EditStack({"m": net}).applied(a, b):
            both = net(batch) - plain
        with EditStack({"m": net}).applied(a):
            alone = net(batch) - plain
    assert values["drift_together"] == pytest.approx(float(both.norm() / plain.norm()), rel=1e-5)
    assert values["drift"]["bear"] == pytest.approx(float(alone.norm() / plain.norm()), rel=1e-5)
    assert values["drift_beyond_sum"] > 0.01  # the second layer multiplies the first one's change
    assert torch.equal(net(batch), plain)


def test_what_cannot_be_compared_is_refused(net: nn.Sequential) -> None:
    a = edit(net, ZeroedWeights({"m.0.weight": torch.arange(3)}))
    with pytest.raises(EditError, match="at least two edits, found 1"):
        interference(a)
    with pytest.raises(EditError, match="needs the modules"):
        interference(a, a, probe=lambda: torch.zeros(1))
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
    with pytest.raises(EditError, match="different bases"):
        interference(a, edit(other, ZeroedWeights({"m.0.weight": torch.arange(3)})))
