"""The style-based generator: halves that make the whole, stored noise, edits of latents, three kinds of noise, files and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.func import jvp, vmap

import photopic
from photopic.core.edits import Edit, SteeringVector
from photopic.core.errors import FieldError, ModelError
from photopic.models.generator import Generator, GeneratorConfig
from photopic.models.style_networks import StyleLayer

TINY = GeneratorConfig(resolution=16, channels=(8, 8, 4), z_width=6, w_width=5, mapping_layers=2)


def tiny(**changes: object) -> Generator:
    """With noise that shows: a fresh generator's strengths are 0."""
    model = Generator.fresh(replace(TINY, **changes))
    for layer in model.synthesis.convs:
        if layer.strength is not None:
            layer.strength.fill_(0.3)
    return model


def test_both_halves_and_both_spaces_make_the_same_pictures():
    model = tiny()
    w = model.map(model.sample_z(3, seed=1))
    pictures = model.synthesize(w)
    torch.testing.assert_close(pictures, model.synthesize(w[:, None].repeat(1, model.layers, 1)))
    assert torch.equal(pictures, model.synthesize_styles(model.styles(w)))
    assert torch.equal(pictures, model.functional({})(w)) and len(model.styles(w)) == len(model.style_names)
    assert model.layers == 2 * 4 - 2  # 16 pixels: 2 log2(resolution) - 2
    only_last = model.in_layers(w).clone()
    only_last[:, -1] += 1  # colours of the last size alone
    assert float((pictures - model.synthesize(only_last)).abs().max()) > 0.01


def test_noise_is_stored_and_changes_only_when_it_is_drawn():
    model = tiny()
    w = model.map(model.sample_z(2, seed=1))
    assert torch.equal(model.synthesize(w), model.synthesize(w))
    drawn = model.synthesize(w, model.draw_noise(3))
    assert torch.equal(drawn, model.synthesize(w, model.draw_noise(3)))
    assert not torch.allclose(drawn, model.synthesize(w)) and not torch.allclose(drawn, model.synthesize(w, "none"))
    with pytest.raises(ModelError, match="draw it once by draw_noise"):
        model.synthesize(w, "random")
    with pytest.raises(ModelError, match=r"noise of layer 0: expected .* 4, 4"):
        model.synthesize(w, model.draw_noise(3)[1:])


def test_with_codes_w_lies_near_one_of_them_and_what_is_added_is_of_the_other_half_of_z(tmp_path: Path):
    model = tiny(codes=7, mapping_layers=1)
    mapping = model.mapping
    z = torch.randn(4_000, 6, generator=torch.Generator().manual_seed(0))
    at = z * z.square().mean(1, keepdim=True).rsqrt()
    logits = 80 * (at[:, :3] @ mapping.keys.T + mapping.offset)
    added = torch.nn.functional.leaky_relu(mapping.layers[0](at[:, 3:]), 0.2) * 2**0.5
    w = torch.softmax(logits, 1) @ mapping.values + added
    torch.testing.assert_close(model.map(z), w / w.square().mean(1, keepdim=True).sqrt(), rtol=1e-4, atol=1e-5)
    chosen = mapping.choice(at[:, :3])
    torch.testing.assert_close(chosen.sum(1), torch.ones(len(z)))
    assert float((chosen.amax(1) > 0.9).float().mean()) > 0.9 and len(chosen.argmax(1).unique()) == 7
    model.save(tmp_path / "model")
    assert torch.equal(Generator.load(tmp_path / "model", device="cpu").map(z), model.map(z))
    with pytest.raises(FieldError, match="z_width: expected 2 or more with codes"):
        replace(TINY, codes=3, z_width=1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch compiles forward mode on first use
def test_forward_mode_is_finite_differences_and_maps_over_directions():
    model = Generator(*(part.double() for part in (tiny().mapping, tiny().synthesis)), TINY)
    w, ways = model.mean_w[None] + 0.1, torch.eye(5, dtype=torch.float64)

    def along(way: torch.Tensor) -> torch.Tensor:
        return jvp(model.synthesize, (w,), (way[None],))[1]

    all_ways, step = vmap(along)(ways), 1e-6
    central = (model.synthesize(w + step * ways[2]) - model.synthesize(w - step * ways[2])) / (2 * step)
    torch.testing.assert_close(all_ways[2], central, rtol=1e-6, atol=1e-8)


def test_truncation_goes_to_the_mean_and_a_direction_is_added_whole():
    model = tiny()
    z, way = model.sample_z(4, seed=2), torch.arange(5.0)
    w = model.map(z)
    torch.testing.assert_close(model.map(z, 0.0), model.mean_w.expand(4, -1))
    torch.testing.assert_close(model.map(z, 0.5), (w + model.mean_w) / 2)
    base = model.generate(4, seed=2)
    edit = Edit((SteeringVector({"mapping": way}),), model.fingerprint())
    with model.edits.applied(edit):
        torch.testing.assert_close(model.map(z, 0.5), (w + model.mean_w) / 2 + way)
        assert (model.generate(4, seed=2) != base).any()
    assert (model.generate(4, seed=2) == base).all() and (model.generate(2, seed=2, start=2) == base[2:]).all()


def test_a_direction_of_one_layer_moves_that_layer_alone():
    model, way = tiny(), torch.ones(5)
    w = model.in_layers(model.map(model.sample_z(2, seed=2)))
    moved = w.clone()
    moved[:, 3] += way
    edit = Edit((SteeringVector({"synthesis.style.3": way}),), model.fingerprint())
    with model.edits.applied(edit):
        torch.testing.assert_close(model.synthesize(w), Generator.synthesize(tiny(), moved))


def test_demodulation_is_scaling_the_weights_of_each_picture():
    layer = StyleLayer(3, 4, 8, False, TINY)
    x, style = torch.randn(2, 3, 8, 8), torch.rand(2, 3) + 0.5
    made = []
    for picture, each in zip(x, style, strict=True):  # the formula of StyleGAN2, picture by picture
        weight = layer.weight * layer.scale * each[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        made.append(torch.nn.functional.conv2d(picture[None], weight, padding=1))
    expected = torch.nn.functional.leaky_relu(torch.cat(made), 0.2) * 2**0.5
    torch.testing.assert_close(layer(x, style, None), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("noise", ["add", "gated", "none"])
def test_a_saved_generator_loads_with_the_same_pictures(noise: str, tmp_path: Path):
    model = tiny(noise=noise)
    model.save(tmp_path / "mine")
    again = photopic.load(str(tmp_path / "mine"), device="cpu")
    assert isinstance(again, Generator) and again.config == model.config and again.digest() == model.digest()
    assert (again.generate(2) == model.generate(2)).all()


def test_errors_name_what_was_expected(tmp_path: Path):
    model = tiny()
    with pytest.raises(ModelError, match=r"expected z of shape \(pictures, 6\), found \(2, 5\)"):
        model.map(torch.zeros(2, 5))
    with pytest.raises(
        ModelError, match=r"expected w of shape \(pictures, 5\) or \(pictures, 6, 5\), found \(2, 4, 5\)"
    ):
        model.synthesize(torch.zeros(2, 4, 5))
    with pytest.raises(FieldError, match="power of two"):
        GeneratorConfig(resolution=48)
    with pytest.raises(FieldError, match="expected 3 numbers"):
        replace(TINY, channels=(8, 8))
    model.save(tmp_path)
    (tmp_path / "generator.json").write_text(
        (tmp_path / "generator.json").read_text().replace('"w_width": 5', '"w_width": 7')
    )
    with pytest.raises(ModelError, match="expected shape"):
        Generator.load(tmp_path)
    model.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {key: value for key, value in tensors.items() if "to_rgb.1.bias" not in key}, tmp_path / "model.safetensors"
    )
    with pytest.raises(ModelError, match=r"its weights lack synthesis\.to_rgb\.1\.bias"):
        Generator.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"it has no model\.safetensors"):
        Generator.load(tmp_path)
