"""The noise layers: the gate's exact properties, what noise does to rank, and training that resumes to the same bytes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch.func import jacrev
from torch.nn import functional as F

from photopic.core.runs import Run
from photopic.data.picture_set import PictureSet
from photopic.models.generator import Generator, GeneratorConfig
from photopic.models.style_networks import Gate, StyleLayer
from photopic.train.adversarial.noise_injection import AdversarialLearner, NoiseInjectionConfig, noise_injection

DESIGN = GeneratorConfig(resolution=8, channels=(6, 5), z_width=3, w_width=4, mapping_layers=2, noise="gated")
SMALL = NoiseInjectionConfig(size=8, width=4, latent=4, steps=4, batch=8, lazy=2)


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gate(**options: str) -> Gate:
    torch.manual_seed(0)
    return Gate(8, GeneratorConfig(resolution=8, channels=(6, 5), **options)).requires_grad_(False)


@pytest.mark.parametrize(
    ("reduction", "scale"), list(product(["sum", "negative", "abs", "max"], ["max_abs", "shifted_max"]))
)
def test_the_gate_has_unit_mean_square_and_does_not_feel_the_size_of_its_map(reduction: str, scale: str):
    layer, x = gate(gate_reduction=reduction, gate_scale=scale), maps(5, 6, 8, 8)
    sigma = layer.sigma(x)
    torch.testing.assert_close(sigma.square().mean((1, 2, 3)).sqrt(), torch.ones(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(layer.sigma(3.7 * x), sigma, atol=1e-6, rtol=1e-5)
    alone = torch.cat([layer.sigma(each[None]) for each in x])
    torch.testing.assert_close(alone, sigma, atol=1e-6, rtol=0)  # a picture's gate does not see the others
    assert float(sigma.std((2, 3)).min()) > 0.05  # and it is no constant


def test_a_mix_of_one_is_the_usual_layer_to_the_bit():
    layer, x, noise = gate(), maps(2, 6, 8, 8), maps(2, 1, 8, 8, seed=1)
    layer.mix.fill_(1.0)
    assert torch.equal(layer.sigma(x), torch.ones(2, 1, 8, 8)) and torch.equal(layer(x, noise), x + noise)


def test_as_published_one_gain_scales_map_and_noise():
    layer, x, noise = gate(gate_norm="l2"), maps(2, 6, 8, 8), maps(2, 1, 8, 8, seed=1)
    m = x.sum(1, keepdim=True)
    m = m - m.mean((2, 3), keepdim=True)
    q = 0.5 * (layer.slope * m / m.abs().amax((2, 3), keepdim=True) + layer.offset) / 8**0.5 + 0.5  # alpha = 1 - mix
    sigma = q / q.square().sum((2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(layer(x, noise), layer.gain * sigma * x + layer.gain * sigma * noise)
    assert StyleLayer(6, 5, 8, False, GeneratorConfig(noise="gated", gate_norm="l2")).strength is None


def test_mean_and_variance_over_noise_are_those_of_the_formula():
    layer = StyleLayer(6, 5, 8, False, DESIGN).requires_grad_(False)
    layer.strength.fill_(0.4)
    x = maps(1, 5, 8, 8)
    drawn = torch.cat([layer.with_noise(x, maps(1, 1, 8, 8, seed=seed)) for seed in range(4000)])
    sigma = layer.gate.sigma(x)
    ratio = drawn.var(0) / (sigma[0] * 0.4).square()
    assert abs(float(ratio.mean()) - 1) < 0.01
    off = (drawn.mean(0) - sigma[0] * x[0]) / (sigma[0].abs() * 0.4 / 4000**0.5)
    assert float(off.abs().max()) < 5
    layer.strength.zero_()
    assert torch.equal(layer.with_noise(x, maps(1, 1, 8, 8)), layer.with_noise(x, None))


def test_noise_adds_rank_and_none_is_above_the_latents():
    model = Generator.fresh(DESIGN)
    for layer in model.synthesis.convs:
        layer.strength.fill_(0.3)
    model.mapping.double()
    model.synthesis.double()
    z, noise = model.sample_z(1, 0), model.draw_noise(0)

    def of_z(z: torch.Tensor) -> torch.Tensor:
        return model.synthesize(model.map(z), noise).flatten()

    def of_noise(*each: torch.Tensor) -> torch.Tensor:
        return model.synthesize(model.map(z), each).flatten()

    by_z = jacrev(of_z)(z).reshape(-1, 3)
    by_noise = torch.cat([each.reshape(len(by_z), -1) for each in jacrev(of_noise, (0, 1, 2))(*noise)], 1)
    rank = torch.linalg.matrix_rank
    assert int(rank(by_z)) <= 3 < int(rank(torch.cat([by_z, by_noise], 1)))


def test_rank_cannot_grow_along_a_chain():
    chain = [maps(4, 7).double(), maps(9, 4, seed=1).double(), maps(9, 9, seed=2).double()]

    def ranks(x: torch.Tensor) -> list[int]:
        found, jacobian = [], torch.eye(7, dtype=torch.float64)
        for weight in chain:
            x = weight @ x
            slope = torch.where(x > 0, 1.0, 0.2)
            jacobian, x = slope[:, None] * (weight @ jacobian), F.leaky_relu(x, 0.2)
            found.append(int(torch.linalg.matrix_rank(jacobian)))
        return found

    found = ranks(maps(7, seed=3).double())
    assert found == sorted(found, reverse=True) and found[0] == 4


def test_a_learner_goes_on_from_its_state_alone():
    images = PictureSet("emoji-scenes:8").read(8)
    whole, first, second = (AdversarialLearner(images, SMALL) for _ in range(3))
    for step in range(4):
        whole.step(step)
    for step in range(2):
        first.step(step)
    second.restore({name: value.clone() for name, value in first.state().items()})
    for step in range(2, 4):
        second.step(step)
    assert all(torch.equal(value, second.state()[name]) for name, value in whole.state().items())


def test_an_interrupted_run_ends_in_the_same_generator_and_saves(tmp_path: Path):
    data = PictureSet("emoji-scenes:8")
    whole = noise_injection(data, config=SMALL)
    events = noise_injection.events(data, config=SMALL, run=Run(tmp_path / "run"))
    for event in events:
        if event.done == 2:
            break
    events.close()  # type: ignore[attr-defined]
    again = noise_injection(data, config=SMALL, run=Run(tmp_path / "run"))
    assert again.digest() == whole.digest() and again.provenance["pictures"] == 8
    again.save(tmp_path / "mine")
    loaded = Generator.load(tmp_path / "mine")
    assert loaded.discriminator is not None and (loaded.generate(2) == again.generate(2)).all()


def test_r1_is_the_squared_slope_and_only_every_few_steps():
    images = PictureSet("emoji-scenes:8").read(8)
    learner, asked = AdversarialLearner(images, SMALL), []
    slope = learner.slope
    learner.slope = lambda real: asked.append(real) or slope(real)  # type: ignore[method-assign,func-returns-value]
    for step in range(4):
        learner.step(step)
    assert len(asked) == 2
    real, step = asked[0][:4], 1e-3
    way = maps(*real.shape, seed=4)
    with torch.no_grad():
        up, down = (learner.critic(real + sign * step * way).sum() for sign in (1, -1))
    at = real.clone().requires_grad_(True)
    gradient = torch.autograd.grad(learner.critic(at).sum(), at)[0]
    assert float((up - down) / (2 * step)) == pytest.approx(float((gradient * way).sum()), rel=0.02, abs=0.02)
    assert float(slope(real).detach()) == pytest.approx(float(gradient.square().sum() / 4), rel=1e-4)
