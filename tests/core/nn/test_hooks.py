"""Hooks see and change what flows, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from photopic.core.errors import ModelError
from photopic.core.nn.hooks import match, rewrite, tap


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Sequential(nn.Linear(4, 2)))


X = torch.linspace(-1, 1, 6).reshape(2, 3)


def hooks_of(net: nn.Module) -> Iterator[int]:
    return (len(part._forward_hooks) + len(part._forward_pre_hooks) for part in net.modules())


def test_tap_records_every_call_by_name(net: nn.Sequential) -> None:
    with tap(net, "*0") as seen:
        net(X)
        net(X)
    assert set(seen) == {"0", "2.0"}
    assert [len(values) for values in seen.values()] == [2, 2]
    assert torch.equal(seen["0"][0], net[0](X))  # although the ReLU after it works in place


def test_tap_of_inputs_records_the_first_argument(net: nn.Sequential) -> None:
    with tap(net, "0", inputs=True) as seen:
        net(X)
    assert torch.equal(seen["0"][0], X)


def test_tap_keeps_the_gradient_history_on_request(net: nn.Sequential) -> None:
    with tap(net, "2.0", detach=False) as seen:
        net(X)
    assert seen["2.0"][0].requires_grad
    with tap(net, "2.0") as seen:
        net(X)
    assert not seen["2.0"][0].requires_grad


def test_rewrite_of_outputs_and_inputs(net: nn.Sequential) -> None:
    plain = net(X)
    with rewrite(net, "2.0", function=lambda name, value: value + 1) as names:
        assert names == ("2.0",)
        assert torch.equal(net(X), plain + 1)
    with rewrite(net, "0", function=lambda name, value: -value, inputs=True):
        flipped = net(X)
    assert torch.equal(flipped, net(-X))
    with rewrite(net, "0", function=lambda name, value: None):
        assert torch.equal(net(X), plain)


def test_rewrite_of_an_input_given_by_keyword() -> None:
    attention = nn.MultiheadAttention(4, 2)
    query, other = torch.randn(3, 1, 4), torch.randn(3, 1, 4)
    with rewrite(attention, "", function=lambda name, value: other, inputs=True):
        replaced, _ = attention(query=query, key=query, value=query)
    assert torch.equal(replaced, attention(other, query, query)[0])


def test_hooks_are_gone_after_the_block_and_after_an_exception(net: nn.Sequential) -> None:
    plain = net(X)
    with pytest.raises(RuntimeError, match="body"), tap(net, "*"), rewrite(net, "0", function=lambda n, v: v * 0):
        raise RuntimeError("body")
    with pytest.raises(ZeroDivisionError), rewrite(net, "0", function=lambda name, value: 1 / 0):
        net(X)
    assert not any(hooks_of(net))
    assert torch.equal(net(X), plain)


def test_pattern_without_a_match_is_an_error(net: nn.Sequential) -> None:
    with pytest.raises(ModelError, match=r"'\*\.attn2' matches no submodule of Sequential"):
        match(net, "0", "*.attn2")
