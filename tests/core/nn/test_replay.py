"""What is computed once gives exactly what computing it again gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from photopic.core.errors import ModelError
from photopic.core.nn.hooks import tap
from photopic.core.nn.replay import order_of, recorded, replayed


class Residual(nn.Module):
    """Writes in place into what its modules put out, as much code does."""

    def __init__(self, *, returned: bool = True) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.act = nn.ReLU(inplace=True)
        self.returned = returned

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.act(y)
        y = z if self.returned else y  # the same numbers: the activation wrote them
        y += x
        return self.third(self.second(y))


def resnet() -> nn.Module:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic", num_labels=3)
    return ResNetForImageClassification(config).eval()


def vit() -> nn.Module:
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, image_size=16,
                       patch_size=4, num_labels=3)  # fmt: skip
    return ViTForImageClassification(config).eval()


def logits(network: nn.Module, pixels: Tensor) -> Tensor:
    output = network(pixels)
    return getattr(output, "logits", output)


@pytest.mark.parametrize("build", [resnet, vit])
def test_a_run_goes_on_from_any_layer_with_the_same_result_and_calls_nothing_before_it(build: object) -> None:
    network, pixels = build(), torch.randn(5, 3, 16, 16)  # type: ignore[operator]
    order = order_of(network, lambda: network(pixels))
    parts = dict(network.named_modules())
    layers = [name for name, part in network.named_modules() if isinstance(part, nn.BatchNorm2d | nn.LayerNorm)]
    with torch.no_grad():
        plain = logits(network, pixels)
        for layer in layers:
            before = order.before(layer)
            written: set[str] = set()
            for _ in range(2):  # the first run learns what is written to
                with recorded(network, before, written) as kept:
                    logits(network, pixels)
            inner = [name for name, part in network.named_modules() if not list(part.children())]
            skipped = [name for name in inner if order.ends.get(name, 1 << 60) < order.starts[layer]]
            rows = torch.tensor([3, 1])
            with replayed(network, kept, written=written), tap(network, *inner) as seen:
                assert torch.equal(logits(network, pixels), plain)
            outside = [name for name in skipped if not any(name == one or name.startswith(f"{one}.") for one in before)]
            assert not outside and skipped
            kept_with_parts = [name for name in skipped if any(f"{name}.".startswith(f"{one}.") for one in kept)]
            assert all(len(seen[name]) == (name in kept) for name in kept_with_parts)  # an outermost one only answers
            again = {name: type(parts[name]).__name__ for name in {*skipped} - {*kept_with_parts}}
            assert set(again.values()) <= {"Identity", "Dropout"}, again  # what gives back its input
            with replayed(network, kept, rows, written=written):
                torch.testing.assert_close(logits(network, pixels[rows]), plain[rows])


@pytest.mark.parametrize("returned", [True, False])
def test_what_is_kept_is_not_written_into_and_forward_is_given_back(returned: bool) -> None:
    network, x = Residual(returned=returned).eval(), torch.randn(3, 4)
    order = order_of(network, lambda: network(x))
    assert order.before("second") == ("first", "act") or set(order.before("second")) == {"first", "act"}
    written: set[str] = set()
    for _ in range(2):  # nothing that is written to is kept the first time, and a copy of it the second
        with torch.no_grad(), recorded(network, order.before("second"), written) as kept:
            plain = network(x)
        for _ in range(3):
            with torch.no_grad(), replayed(network, kept, written=written):
                assert torch.equal(network(x), plain)
    assert written == {"first"} == kept.keys()
    with pytest.raises(RuntimeError, match="stop"), replayed(network, kept, written=written):
        raise RuntimeError("stop")
    assert "forward" not in network.first.__dict__
    assert torch.equal(network(x), plain) and not torch.equal(network(x + 1), plain)


def test_only_what_is_written_to_is_copied() -> None:
    network, x = Residual().eval(), torch.randn(3, 4)
    kept = {"first": torch.randn(3, 4), "second": torch.randn(3, 4)}
    with torch.no_grad(), replayed(network, kept, written={"first"}):
        assert network.second(x) is kept["second"]
        assert network.first(x) is not kept["first"] and torch.equal(network.first(x), kept["first"])


def test_a_layer_that_is_called_twice_is_neither_kept_nor_a_start() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.last = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.shared(self.shared(x)))

    network = Twice()
    order = order_of(network, lambda: network(torch.ones(1, 2)))
    assert order.before("last") == ()
    with pytest.raises(ModelError, match="shared"):
        order.before("shared")
