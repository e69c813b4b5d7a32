"""Exact properties of the trainable mask: the start, the straight-through gradient, gradient dropout, packing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from photopic.core.editfile.indices import encode
from photopic.core.errors import EditError
from photopic.learning.losses.distillation import distillation
from photopic.learning.parameters.binary_mask import (
    BinaryMask,
    Masked,
    dropped,
    keep_probability,
    maskable,
    packed_bits,
    unpacked_bits,
)
from tests.tiny_encoders import tiny_dual_encoder

DRAWS = 100_000
PAIRS = [(0.7, 0.3), (0.2, -0.6), (-0.5, 0.1), (-0.2, -0.9), (0.4, 0.0)]


@pytest.fixture(scope="module")
def vit():
    return tiny_dual_encoder("vit")


def pixels(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def losses(classes: int = 4) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    rows = F.normalize(torch.randn(classes, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    labels, teacher = torch.tensor([0, 1, 2]), torch.randn(3, classes, generator=torch.Generator().manual_seed(2))
    return (
        lambda features: F.cross_entropy(9 * features @ rows.mT, labels),
        lambda features: distillation(9 * features @ rows.mT, teacher),
    )


def test_a_mask_at_its_start_changes_no_bit(vit) -> None:
    mask = BinaryMask(maskable(vit, "all"))
    plain = F.normalize(vit.encode_pixels(pixels()), dim=-1)
    assert torch.equal(Masked(vit)(pixels(), mask.effective()), plain)


def test_a_weight_is_itself_where_the_bit_is_one_and_zero_elsewhere(vit) -> None:
    before = vit.digest()
    mask = BinaryMask(maskable(vit))
    for real in mask.real.values():
        real.view(-1)[::3] = 0.005  # the threshold itself counts as off
    for name, tried in mask.effective().items():
        flat, weight = tried.detach().view(-1), mask.weights[name].view(-1)
        assert not flat[::3].any()
        assert torch.equal(flat[1::3], weight[1::3])
        assert torch.equal(flat[2::3], weight[2::3])
    main, guide = losses()
    mask.step(lambda tried: Masked(vit)(pixels(), tried), main, guide, lr=0.1)
    assert vit.digest() == before  # biases and all else too


def test_the_variants_mask_what_they_say(vit) -> None:
    tower = "network.vision_model."
    patch = f"{tower}embeddings.patch_embedding.weight"
    layers = [f"{tower}encoder.layers.{layer}." for layer in (0, 1)]
    attention = {f"{layer}self_attn.{name}_proj.weight" for layer in layers for name in ("q", "k", "v", "out")}
    mlp = {f"{layer}mlp.{name}.weight" for layer in layers for name in ("fc1", "fc2")}
    assert set(maskable(vit, "attention")) == attention | {patch}
    assert set(maskable(vit, "mlp")) == mlp | {patch}
    assert set(maskable(vit, "all")) == attention | mlp | {patch}


def test_all_kernels_of_a_convolutional_tower_are_masked_and_nothing_else() -> None:
    model = tiny_dual_encoder("cnn")
    kernels = {
        f"network.vision_model.{name}"
        for name, parameter in model.image_tower.named_parameters()
        if parameter.ndim == 4
    }
    assert kernels
    assert set(maskable(model, "attention")) == kernels == set(maskable(model, "mlp"))


def test_the_straight_through_gradient_is_that_of_autograd(vit) -> None:
    mask = BinaryMask(maskable(vit))
    for real in mask.real.values():
        real.view(-1)[::4] = 0.0
    main, _ = losses()
    real = {name: each.clone().requires_grad_() for name, each in mask.real.items()}
    explicit = {  # the value of the bit with the gradient of M
        name: ((each > 0.005).float() + each - each.detach()) * mask.weights[name] for name, each in real.items()
    }
    wanted = torch.autograd.grad(main(Masked(vit)(pixels(), explicit)), list(real.values()))
    tried = mask.effective()
    found = torch.autograd.grad(main(Masked(vit)(pixels(), tried)), list(tried.values()))
    ours = mask.straight_through(found)
    for each, expected in zip(ours.values(), wanted, strict=True):
        torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-8)


def test_a_step_gates_the_gradient_of_one_loss_by_that_of_the_other(vit) -> None:
    weights = maskable(vit)
    main, guide = losses()

    def gradient(loss: Callable[[Tensor], Tensor]) -> list[Tensor]:
        tried = BinaryMask(weights).effective()
        found = torch.autograd.grad(loss(Masked(vit)(pixels(), tried)), list(tried.values()))
        return [each * weight for each, weight in zip(found, weights.values(), strict=True)]

    mask, generator = BinaryMask(weights), torch.Generator().manual_seed(5)
    mask.step(
        lambda tried: Masked(vit)(pixels(), tried), main, guide, lr=1e-3, generator=torch.Generator().manual_seed(5)
    )
    for real, a, b in zip(mask.real.values(), gradient(main), gradient(guide), strict=True):
        start = torch.full_like(a, 0.01)
        a = a + 1e-4 * start / start.norm()
        expected = dropped(a, b, 1.0, generator=generator)
        torch.testing.assert_close(mask.adam.state[real]["exp_avg"], 0.1 * expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("form", ["code", "figure"])
def test_entries_are_kept_as_often_as_the_formula_says(pair: tuple[float, float], form) -> None:
    a, b = (torch.full((DRAWS,), value) for value in pair)
    expected = 1.0 if pair[0] * pair[1] >= 0 else abs(pair[0]) / (abs(pair[0]) + abs(pair[1]))
    if form == "figure" and pair[0] * pair[1] < 0:
        expected = 1 - expected
    assert float(keep_probability(a, b, form=form)[0]) == pytest.approx(expected, abs=1e-6)
    kept = dropped(a, b, 1.0, form=form, generator=torch.Generator().manual_seed(3)) != 0
    sigma = (expected * (1 - expected) / DRAWS) ** 0.5
    assert abs(float(kept.float().mean()) - expected) <= 3 * sigma


def test_the_expected_gradient_is_that_of_the_formula() -> None:
    a, b, strength = torch.full((DRAWS,), 0.2), torch.full((DRAWS,), -0.6), 0.3
    found = dropped(a, b, strength, generator=torch.Generator().manual_seed(4)).double().mean()
    sigma = strength * 0.2 * (0.25 * 0.75 / DRAWS) ** 0.5
    assert abs(float(found) - (1 - strength + strength * 0.25) * 0.2) <= 3 * sigma


def test_no_dropout_is_the_plain_gradient_bit_for_bit() -> None:
    a, b = (torch.randn(1000, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(dropped(a, b, 0.0), a)


def test_a_guide_that_agrees_never_drops() -> None:
    a = torch.randn(DRAWS, generator=torch.Generator().manual_seed(0))
    for factor in (0.01, 1.0, 50.0):
        found = dropped(a, factor * a, 1.0, generator=torch.Generator().manual_seed(1))
        assert torch.equal(found[a.abs() > 1e-3], a[a.abs() > 1e-3])  # below, the 1e-8 of the code can matter


def test_without_a_guide_a_step_is_that_of_a_guide_of_no_strength(vit) -> None:
    main, guide = losses()
    masks = [BinaryMask(maskable(vit)) for _ in range(2)]
    for mask, beside, strength in zip(masks, (None, guide), (1.0, 0.0), strict=True):
        for _ in range(3):
            mask.step(lambda tried: Masked(vit)(pixels(), tried), main, beside, lr=2e-3, strength=strength)
    assert masks[0].share > 0
    for one, other in zip(masks[0].real.values(), masks[1].real.values(), strict=True):
        assert torch.equal(one, other)


def test_a_tensor_no_loss_reaches_keeps_its_bits() -> None:
    mask = BinaryMask({"used": torch.ones(3), "unused": torch.ones(3)})
    for _ in range(5):
        mask.step(lambda tried: tried["used"].sum()[None], lambda out: out.sum(), None, lr=0.01)
    assert mask.share == 0.5
    assert mask.bits()["unused"].all()


@pytest.mark.parametrize("shape", [(8,), (5, 7), (3, 4, 2, 2), (1,)])
def test_packed_bits_come_back(shape: tuple[int, ...]) -> None:
    bits = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    packed = packed_bits({"w": bits})
    assert len(packed["w"]) == -(-bits.numel() // 8)
    assert torch.equal(unpacked_bits(packed, {"w": shape})["w"], bits)


def test_packed_bits_are_the_highest_first() -> None:
    assert packed_bits({"w": torch.tensor([1, 0, 0, 0, 0, 0, 0, 1, 1])}) == {"w": bytes([0b10000001, 0b10000000])}


def test_packed_bits_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(EditError, match="w: expected 2 bytes for a mask of 9 bits, found 1"):
        unpacked_bits({"w": b"a"}, {"w": (3, 3)})


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.4, 0.5, 0.6])
def test_the_positions_of_a_mask_cost_no_more_than_its_bits(share: float) -> None:
    """Beyond four tenths of zeros the code is the bits themselves, after four bytes that say so."""
    size = 128 * 128
    positions = (torch.rand(size, generator=torch.Generator().manual_seed(1)) < share).nonzero().flatten()
    spare = 4 if share > 0.4 else 0
    assert len(encode(positions.numpy(), size, row=128)) <= -(-size // 8) + spare
