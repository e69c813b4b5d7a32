"""Layer masking: what is left out is not seen whatever it is, tokens are dropped, and LIME finds the cells that count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from photopic.core.nn.layer_masking import filled, masked_layers
from photopic.locate.attribution.layer_masking import LayerMaskingConfig, fitted, layer_masking, seen_through
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing
from tests.locate.attribution.test_grad_cam import transformers


def left_half(size: int, count: int = 1) -> torch.Tensor:
    mask = torch.zeros(count, 1, size, size)
    mask[..., : size // 2] = 1
    return mask


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_what_is_left_out_is_not_seen(kind: str) -> None:
    model, mask = transformers(kind), left_half(32)
    draw = torch.Generator().manual_seed(0)
    first, second = torch.rand(1, 3, 32, 32, generator=draw), torch.rand(1, 3, 32, 32, generator=draw)
    other = mask * first + (1 - mask) * second  # the same inside, another picture outside
    seen = [seen_through(model, each, mask) for each in (first, other)]
    torch.testing.assert_close(seen[0], seen[1], atol=1e-5, rtol=1e-5)
    inside = second * mask + first * (1 - mask)
    assert not torch.allclose(seen_through(model, inside, mask), seen[0], atol=1e-4)
    for fill in ("grey", "layers"):
        whole = seen_through(model, first, torch.ones(1, 1, 32, 32), fill)  # type: ignore[arg-type]
        torch.testing.assert_close(
            whole, model.forward(first), atol=1e-4, rtol=1e-4
        )  # nothing left out, nothing changed


def test_masks_of_a_batch_do_not_meet_and_hooks_are_gone() -> None:
    model = transformers("resnet")
    pixels, masks = (
        torch.rand(1, 3, 32, 32),
        torch.cat([left_half(32), torch.ones(1, 1, 32, 32), left_half(32).flip(3)]),
    )
    together = seen_through(model, pixels, masks)
    alone = torch.cat([seen_through(model, pixels, mask[None]) for mask in masks])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.network.modules())


def test_a_flat_picture_stays_flat_at_the_border() -> None:
    """The mean of the neighbours: a constant is continued, so no edge comes in where a mask ends."""
    edges = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    edges.weight.data = torch.tensor([[[[0.0, 0.0, 0.0], [-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]])
    flat, mask = torch.full((1, 1, 8, 8), 3.0), left_half(8)
    with torch.no_grad(), masked_layers(edges, mask):
        masked = edges(flat)
        assert torch.equal(edges(flat), masked)  # the next run begins with the same mask
    assert masked[..., 1:4].abs().max() == 0  # up to the border of the mask, away from that of the picture
    assert edges(flat * mask)[..., 3].abs().max() == 3.0  # painted over, the border is the strongest edge there is
    ramp = torch.arange(1.0, 9.0).view(1, 1, 1, 8)
    assert filled(ramp, left_half(8)[:, :, :1], 1)[0, 0, 0].tolist() == [1, 2, 3, 4, 4, 0, 0, 0]


def test_the_global_mean_is_that_of_what_is_seen() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1)).eval()
    network[0].bias.data.fill_(2.0), network[1].bias.data.fill_(-3.0)
    flat = torch.full((1, 3, 8, 8), 0.4)
    with torch.no_grad():
        whole = network(flat)
        with masked_layers(network, left_half(8)):
            torch.testing.assert_close(network(flat), whole)  # neither zeros nor biases outside count


def test_lime_finds_the_cells_of_a_linear_model() -> None:
    draw = torch.Generator().manual_seed(1)
    there = torch.randint(0, 2, (300, 16), generator=draw).float()
    weights = torch.randn(16, 2, generator=draw)
    found = fitted(there, there @ weights + 5.0, LayerMaskingConfig(ridge=0.0))
    torch.testing.assert_close(found, weights, atol=1e-4, rtol=1e-4)  # whatever the intercept and the kernel


@pytest.mark.parametrize("fill", ["layers", "grey", "black"])
def test_a_red_corner_is_found(fill: str) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False)
    )
    network[0].weight.data = torch.tensor([[6.0, -3.0, -3.0], [0.0, 0.0, 0.0]]).view(2, 3, 1, 1)
    network[3].weight.data = torch.eye(2) * 4
    model = Classifier(network, preprocess=Preprocessing(), labels=["red", "not"])
    picture = np.full((1, 16, 16, 3), 90, np.uint8)
    picture[:, :4, :4] = (250, 0, 0)
    found = layer_masking(model, picture, classes=["red"], config=LayerMaskingConfig(cells=4, fill=fill))  # type: ignore[arg-type]
    values = found.values[0, 0]
    assert values.argmax() == 0 and values[0, 0] > 3 * np.abs(np.delete(values.ravel(), 0)).max()
