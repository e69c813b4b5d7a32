"""StyleGAN2 state dicts under the names of two PyTorch releases, against a forward written here from the paper's formulas."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

import photopic
from photopic.core.errors import ModelError
from photopic.models.generator import Generator

CHANNELS, DEPTH, D, Z = (6, 5, 4), 3, 7, 5  # at 4, 8 and 16 pixels
FILTER = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


def weights() -> dict[str, Tensor]:
    """Random ones under names of this test's own: ``map.0.w``, ``conv.2.w``, ``conv.2.style_w``, ``rgb.1.b``."""
    drawn = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=drawn)

    found = {"const": normal(1, CHANNELS[0], 4, 4)}
    for k in range(DEPTH):
        found |= {f"map.{k}.w": normal(D, Z if k == 0 else D) * 100, f"map.{k}.b": normal(D) * 10}
    sizes = [(CHANNELS[0], CHANNELS[0], 4)]
    for k in range(1, len(CHANNELS)):
        sizes += [(CHANNELS[k - 1], CHANNELS[k], 4 << k), (CHANNELS[k], CHANNELS[k], 4 << k)]
    for k, (a, b, side) in enumerate(sizes):
        found |= {
            f"conv.{k}.w": normal(b, a, 3, 3), f"conv.{k}.b": normal(b), f"conv.{k}.style_w": normal(a, D),
            f"conv.{k}.style_b": normal(a) + 1, f"conv.{k}.gain": normal(1)[0], f"conv.{k}.noise": normal(side, side),
        }  # fmt: skip
    for k, a in enumerate(CHANNELS):
        found |= {
            f"rgb.{k}.w": normal(3, a, 1, 1), f"rgb.{k}.b": normal(3), f"rgb.{k}.style_w": normal(a, D),
            f"rgb.{k}.style_b": normal(a) + 1,
        }  # fmt: skip
    return found


def spread(x: Tensor, before: int, after: int) -> Tensor:
    """Zeros between pixels, padding, then the filter."""
    b, c, h, w = x.shape
    wide = torch.zeros(b, c, h, 2, w, 2)
    wide[:, :, :, 0, :, 0] = x
    wide = F.pad(wide.reshape(b, c, 2 * h, 2 * w), (before, after, before, after))
    return F.conv2d(wide.reshape(b * c, 1, *wide.shape[2:]), FILTER[None, None] * 4).reshape(b, c, 2 * h, 2 * w)


def reference(p: dict[str, Tensor], z: Tensor) -> Tensor:
    """Pictures by StyleGAN2's equations, picture by picture and with every weight modulated for itself."""
    x = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for k in range(DEPTH):
        weight = p[f"map.{k}.w"] * 0.01 / math.sqrt(p[f"map.{k}.w"].shape[1])
        x = F.leaky_relu(x @ weight.T + p[f"map.{k}.b"] * 0.01, 0.2) * math.sqrt(2)

    def modulated(name: str, w: Tensor, demodulate: bool) -> Tensor:
        style = w @ p[f"{name}.style_w"].T / math.sqrt(D) + p[f"{name}.style_b"]
        weight = p[f"{name}.w"] / math.sqrt(p[f"{name}.w"][0].numel()) * style[None, :, None, None]
        return weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt() if demodulate else weight

    def layer(maps: Tensor, k: int, w: Tensor) -> Tensor:
        weight = modulated(f"conv.{k}", w, True)
        if k % 2:  # twice the size: a transposed convolution, then the filter over 2h + 1 pixels
            wide = F.conv_transpose2d(maps, weight.transpose(0, 1), stride=2)
            c = wide.shape[1]
            maps = F.conv2d(
                F.pad(wide, (1, 1, 1, 1)).reshape(c, 1, *(s + 2 for s in wide.shape[2:])), FILTER[None, None] * 4
            )
            maps = maps.reshape(1, c, *maps.shape[2:])
        else:
            maps = F.conv2d(maps, weight, padding=1)
        maps = maps + p[f"conv.{k}.gain"] * p[f"conv.{k}.noise"] + p[f"conv.{k}.b"][None, :, None, None]
        return F.leaky_relu(maps, 0.2) * math.sqrt(2)

    pictures = []
    for w in x:
        maps, picture = layer(p["const"], 0, w), torch.zeros(1, 3, 2, 2)
        for k in range(len(CHANNELS)):
            if k:
                maps = layer(layer(maps, 2 * k - 1, w), 2 * k, w)
            colours = F.conv2d(maps, modulated(f"rgb.{k}", w, False), p[f"rgb.{k}.b"])
            picture = spread(picture, 2, 1) + colours
        pictures.append(picture)
    return torch.cat(pictures)


def rosinality(p: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {"input.input": p["const"]}
    for k in range(DEPTH):
        found |= {f"style.{k + 1}.weight": p[f"map.{k}.w"], f"style.{k + 1}.bias": p[f"map.{k}.b"]}
    for k in range(2 * len(CHANNELS) - 1):
        name = "conv1" if k == 0 else f"convs.{k - 1}"
        found |= {
            f"{name}.conv.weight": p[f"conv.{k}.w"][None], f"{name}.activate.bias": p[f"conv.{k}.b"],
            f"{name}.conv.modulation.weight": p[f"conv.{k}.style_w"], f"{name}.noise.weight": p[f"conv.{k}.gain"][None],
            f"{name}.conv.modulation.bias": p[f"conv.{k}.style_b"], f"noises.noise_{k}": p[f"conv.{k}.noise"][None, None],
            f"{name}.conv.blur.kernel": FILTER * 4,
        }  # fmt: skip
    for k in range(len(CHANNELS)):
        name = "to_rgb1" if k == 0 else f"to_rgbs.{k - 1}"
        found |= {
            f"{name}.conv.weight": p[f"rgb.{k}.w"][None], f"{name}.bias": p[f"rgb.{k}.b"].reshape(1, 3, 1, 1),
            f"{name}.conv.modulation.weight": p[f"rgb.{k}.style_w"], f"{name}.conv.modulation.bias": p[f"rgb.{k}.style_b"],
        }  # fmt: skip
    return found


def nvidia(p: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {"synthesis.b4.const": p["const"][0], "mapping.w_avg": torch.zeros(D)}
    for k in range(DEPTH):
        found |= {f"mapping.fc{k}.weight": p[f"map.{k}.w"], f"mapping.fc{k}.bias": p[f"map.{k}.b"]}
    for k in range(2 * len(CHANNELS) - 1):
        name = f"synthesis.b{4 << (k + 1) // 2}.conv{(k + 1) % 2}"
        found |= {
            f"{name}.weight": p[f"conv.{k}.w"], f"{name}.bias": p[f"conv.{k}.b"], f"{name}.noise_strength": p[f"conv.{k}.gain"],
            f"{name}.affine.weight": p[f"conv.{k}.style_w"], f"{name}.affine.bias": p[f"conv.{k}.style_b"],
            f"{name}.noise_const": p[f"conv.{k}.noise"], f"{name}.resample_filter": FILTER.clone(),
        }  # fmt: skip
    for k in range(len(CHANNELS)):
        name = f"synthesis.b{4 << k}.torgb"
        found |= {
            f"{name}.weight": p[f"rgb.{k}.w"], f"{name}.bias": p[f"rgb.{k}.b"],
            f"{name}.affine.weight": p[f"rgb.{k}.style_w"], f"{name}.affine.bias": p[f"rgb.{k}.style_b"],
        }  # fmt: skip
    return found


@pytest.mark.parametrize("names", [rosinality, nvidia])
@pytest.mark.parametrize("prefix", ["", "g_ema."])
def test_a_state_dict_draws_what_the_formulas_say(names, prefix: str, tmp_path: Path):
    p = weights()
    save_file({prefix + key: value.contiguous() for key, value in names(p).items()}, tmp_path / "network.safetensors")
    model = photopic.load(str(tmp_path), device="cpu")
    assert isinstance(model, Generator) and (model.resolution, model.layers, model.config.channels) == (16, 6, CHANNELS)
    z = torch.randn(3, Z, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        drawn, expected = model.synthesize(model.map(z)), reference(p, z)
    assert float((drawn - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_what_is_not_whole_or_has_classes_is_refused(tmp_path: Path):
    tensors = {key: value.contiguous() for key, value in nvidia(weights()).items()}
    file = tmp_path / "network.safetensors"
    save_file(tensors | {"mapping.embed.weight": torch.zeros(4, 4)}, file)
    with pytest.raises(ModelError, match="without classes"):
        photopic.load(str(tmp_path))
    save_file({key: value for key, value in tensors.items() if key != "synthesis.b8.conv0.bias"}, file)
    with pytest.raises(ModelError, match=r"it lacks synthesis\.b8\.conv0\.bias"):
        photopic.load(str(file))
