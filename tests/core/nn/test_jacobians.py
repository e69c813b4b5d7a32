"""Jacobians of every layer: exact facts of linear algebra hold, modes and chunks agree, and the network stays as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.nn.jacobians import cheaper_mode, jacobian_columns, jacobians, widths_of
from photopic.core.nn.layer_outputs import layer_outputs
from photopic.core.numerics.spectra import Spectrum, numerical_rank

LAYERS = ["0", "1", "2", "3", "4", "5"]


def flat(inputs: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda free: free.reshape(inputs.shape)


def convolutions() -> nn.Sequential:
    """Batch norm in training mode, a ReLU in place, pooling and group norm."""
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*parts, nn.GroupNorm(2, 6), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)).double()


def exact_rank(matrix: Tensor) -> int:
    return numerical_rank(torch.linalg.svdvals(matrix), 1e-10)


def test_composed_linear_and_relu_layers_have_the_product_of_their_jacobians() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 6)).double()
    at = torch.randn(7, dtype=torch.float64)
    found = jacobians(net, lambda free: free[None], at, ["0", "1", "2"], mode="forward")
    first, active = net[0].weight.detach(), (net[0](at) > 0).double()
    assert torch.allclose(found["0"], first, atol=1e-14)
    assert torch.allclose(found["1"], active[:, None] * first, atol=1e-14)
    assert torch.allclose(found["output"], net[2].weight.detach() @ (active[:, None] * first), atol=1e-13)


def test_rank_of_a_composition_lies_between_sylvester_and_the_least() -> None:
    generator = torch.Generator().manual_seed(2)
    for _ in range(10):
        inner, ranks = 8, torch.randint(3, 9, (2,), generator=generator).tolist()
        a, b = (
            torch.randn(8, rank, generator=generator, dtype=torch.float64)
            @ torch.randn(rank, 8, generator=generator, dtype=torch.float64)
            for rank in ranks
        )
        net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)).double()
        net[0].weight.data, net[1].weight.data = b, a
        found = jacobians(net, lambda free: free[None], torch.ones(8, dtype=torch.float64), ["0"], mode="forward")
        whole = exact_rank(found["output"])
        assert sum(ranks) - inner <= whole <= min(ranks)
        assert exact_rank(found["0"]) == ranks[1]


def test_a_bottleneck_caps_every_later_rank() -> None:
    torch.manual_seed(3)
    widths = [(16, 16), (16, 4), (4, 16), (16, 16)]
    parts = [part for a, b in widths for part in (nn.Linear(a, b), nn.Tanh())]
    net = nn.Sequential(*parts).double()
    at = torch.randn(16, dtype=torch.float64)
    found = jacobians(net, lambda free: free[None], at, ["1", "3", "5", "7"], mode="forward")
    assert [exact_rank(found[name]) for name in ("1", "3", "5", "7")] == [16, 4, 4, 4]


def test_global_pooling_caps_at_the_channels_and_a_mean_subtracting_norm_drops_one() -> None:
    torch.manual_seed(4)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(5)).double()
    inputs = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    found = jacobians(net, flat(inputs), inputs.reshape(-1), ["1", "2", "4"], mode="forward")
    assert [exact_rank(found[name]) for name in ("1", "2")] == [80, 5]
    assert exact_rank(found["4"]) <= 4


def test_forward_reverse_and_torchs_own_agree_and_chunks_change_nothing() -> None:
    net = convolutions()
    inputs = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    at = inputs.reshape(-1)
    forward = jacobians(net, flat(inputs), at, LAYERS, mode="forward")
    reverse = jacobians(net, flat(inputs), at, LAYERS, mode="reverse", chunk=37)
    pieces = jacobians(net, flat(inputs), at, LAYERS, mode="forward", chunk=7, memory=len(at) * 8 * 50)
    net.eval()
    for name, each in forward.items():
        own = torch.func.jacrev(lambda free, name=name: layer_outputs(net, flat(inputs)(free), LAYERS)[name][0])(at)
        for other in (reverse[name], pieces[name], own.detach()):
            assert torch.allclose(each, other, atol=1e-13), name


def test_memory_bounds_what_is_held_at_a_time() -> None:
    net = convolutions()
    inputs = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    widths = widths_of(net.eval(), inputs, LAYERS)
    columns = jacobian_columns(
        net, flat(inputs), inputs.reshape(-1), LAYERS, widths, mode="forward", memory=192 * 8 * 100
    )
    sizes = [event.matrix.shape[1] for event in columns if event.matrix is not None]
    assert max(sizes) <= 100 and sum(sizes) == sum(widths.values())


def test_attention_is_differentiated_through_its_plain_form() -> None:
    torch.manual_seed(5)

    class Attend(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    net, inputs = nn.Sequential(Attend()), torch.randn(1, 2, 4, 3)
    found = [
        jacobians(net, flat(inputs), inputs.reshape(-1), [], mode=mode)["output"] for mode in ("forward", "reverse")
    ]
    assert torch.allclose(*found, atol=1e-6)


def test_a_layer_that_runs_twice_is_kept_twice_and_an_operation_in_place_does_not_reach_the_record() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Linear(2, 2, bias=False)
            self.scale.weight.data = torch.eye(2) * 3

        def forward(self, x: Tensor) -> Tensor:
            return self.scale(self.scale(x).mul_(10))

    found = layer_outputs(Twice(), torch.ones(1, 2), ["scale"])
    assert {name: value[0, 0].item() for name, value in found.items()} == {"scale": 3, "scale#2": 90, "output": 90}


def test_the_network_is_as_it_was_also_after_an_exception() -> None:
    net = convolutions().train()
    net[4].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [part.training for part in net.modules()]
    inputs = torch.randn(1, 3, 8, 8, dtype=torch.float64)

    def same() -> bool:
        bytes_same = all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        hooks = any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
        return bytes_same and not hooks and [part.training for part in net.modules()] == modes

    jacobians(net, flat(inputs), inputs.reshape(-1), LAYERS, mode="forward")
    assert same()
    widths = widths_of(net, inputs, LAYERS) if not any(modes) else {"0": 384, "output": 5}
    events = jacobian_columns(net, flat(inputs), inputs.reshape(-1), LAYERS, widths, mode="forward", chunk=10)
    next(events)
    with pytest.raises(KeyError):
        events.throw(KeyError("stopped in the middle"))
    assert same()


def test_what_cannot_be_differentiated_for_many_directions_is_said_in_a_line() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: Tensor) -> Tensor:
            return x * 2

    class Opaque(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Double.apply(x)

    with pytest.raises(ModelError, match="expected operations that can be differentiated"):
        jacobians(Opaque(), lambda free: free[None], torch.ones(3), [], mode="forward")


@pytest.mark.parametrize(
    ("module", "what"), [(nn.Flatten(0), "expected one output"), (nn.Identity(), "expected a tensor")]
)
def test_a_layer_without_an_output_for_each_input_is_refused(module: nn.Module, what: str) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = module

        def forward(self, x: Tensor) -> Tensor:
            self.part(
                x[:, :1]
                if isinstance(module, nn.Flatten) and len(x) == 1
                else x.long()
                if what.endswith("tensor")
                else x[:1, :1]
            )
            return x  # fmt: skip

    with pytest.raises(ModelError, match=what):
        layer_outputs(Odd(), torch.ones(2, 3), ["part"])


def test_reverse_is_chosen_where_outputs_are_few() -> None:
    assert cheaper_mode(768, {"output": 10}) == "reverse"
    assert cheaper_mode(64, {"block": 4096, "output": 10}) == "forward"


@pytest.mark.parametrize(("exact", "resolved"), [(False, 1e-7), (True, 1e-14)])
def test_a_spectrum_by_pieces_is_that_of_the_whole(exact: bool, resolved: float) -> None:
    generator = torch.Generator().manual_seed(6)
    left = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(500, 30, generator=generator, dtype=torch.float64)).Q
    values = torch.logspace(0, -12, 30, dtype=torch.float64)
    matrix = left @ torch.diag(values) @ right.T
    spectrum = Spectrum(30, 500, exact=exact)
    for piece in matrix.split([100, 1, 399], dim=1):
        spectrum.add(piece)
    found = spectrum.singular_values()
    assert (found - values).abs().max() < resolved
    narrow = Spectrum(500, 30)
    narrow.add(matrix.T[:, :7])
    narrow.add(matrix.T[:, 7:])
    assert (narrow.singular_values() - values).abs().max() < 1e-14
    assert numerical_rank(torch.zeros(3), 1e-2) == 0
