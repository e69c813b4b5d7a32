"""Domain-adversarial training on a tiny real classifier: what learns from what, and that it carries over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from photopic.core.errors import DataError
from photopic.data.few_shot import LabelledImages
from photopic.measure.transfer_score import transfer_score
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing
from photopic.train.adaptation.domain_adversarial import DomainAdversarialConfig, _Adversarial, domain_adversarial

QUICK = DomainAdversarialConfig(steps=3, batch=8, augment=False, hidden=8)


def classifier(seed: int = 0) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 2))
    return Classifier(network, preprocess=Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3), labels=("bear", "mug"))


def domain(bright: bool, count: int = 60, seed: int = 0) -> LabelledImages:
    """Two classes by one pixel, and a little by another, which in the target says nothing and is brighter."""
    rng = np.random.default_rng((seed, bright))
    labels = rng.integers(0, 2, count)
    pixels = rng.normal(128, 12, (count, 2, 2, 3))
    pixels[:, 0, 0] += 20 * (labels[:, None] - 0.5)
    pixels[:, 1, 1] += 40 if bright else 12 * (labels[:, None] - 0.5)
    return LabelledImages(pixels.clip(0, 255).astype(np.uint8), labels, ("bear", "mug"))


def learner(config: DomainAdversarialConfig = QUICK) -> _Adversarial:
    return _Adversarial(classifier(), domain(False), domain(True).images, config)


def test_at_strength_zero_only_the_domain_head_sees_the_target() -> None:
    """The same target or another: the network's weights are the source's alone, to the last bit."""
    model, source = classifier(), domain(False)
    found = [
        domain_adversarial(model, source, target.images, config=replace(QUICK, strength=0.0))
        for target in (domain(True), domain(True, seed=1))
    ]
    for name, delta in found[0].parts[0].deltas.items():
        assert torch.equal(found[1].parts[0].deltas[name], delta)
    other = domain_adversarial(model, source, domain(True).images, config=QUICK)
    assert not torch.equal(other.parts[0].deltas["network.1.weight"], found[0].parts[0].deltas["network.1.weight"])
    assert set(other.base.shapes) == {"network.1.weight", "network.1.bias", "network.3.weight", "network.3.bias"}


def test_the_network_goes_up_the_domain_loss_and_the_domain_head_down() -> None:
    """One step at a known strength against the gradients of both losses by hand."""
    one = learner(replace(QUICK, batch=60, steps=2))
    one.step(0)  # at progress 0 the strength is 0
    strength = 2 / (1 + np.exp(-5.0)) - 1
    sides = [torch.from_numpy(each).permute(0, 3, 1, 2) / 255 for each in (domain(False).images, domain(True).images)]
    pixels = (torch.cat(sides) - 0.5) / 0.25
    weights = {name: each.detach().clone().requires_grad_() for name, each in one.tensors.items()}
    features = torch.relu(pixels.flatten(1) @ weights["network.1.weight"].mT + weights["network.1.bias"])
    logits = features[:60] @ weights["network.3.weight"].mT + weights["network.3.bias"]
    named = nn.functional.cross_entropy(logits, torch.from_numpy(domain(False).labels))
    hidden = torch.relu(features @ weights["domain.0.weight"].mT + weights["domain.0.bias"])
    told = (hidden @ weights["domain.2.weight"].mT + weights["domain.2.bias"])[:, 0]
    apart = nn.functional.binary_cross_entropy_with_logits(told, torch.cat([torch.zeros(60), torch.ones(60)]))
    trunk, head = weights["network.1.weight"], weights["domain.2.weight"]
    of_classes, of_domains = (torch.autograd.grad(each, trunk, retain_graph=True)[0] for each in (named, apart))
    (of_head,) = torch.autograd.grad(apart, head)
    one.step(1)
    torch.testing.assert_close(
        one.tensors["network.1.weight"].grad, of_classes - strength * of_domains, rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(one.tensors["domain.2.weight"].grad, of_head, rtol=1e-3, atol=1e-5)


def test_what_is_learnt_without_labels_carries_over_and_its_checkpoints_have_a_transfer_score() -> None:
    target, found, told = domain(True, 300, seed=5), {}, {}
    for strength in (0.0, 1.0):
        model = classifier()
        config = DomainAdversarialConfig(steps=300, batch=60, augment=False, strength=strength, lr=5e-3, hidden=64)
        edit = domain_adversarial(model, domain(False, 300), domain(True, 300).images, config=config)
        with model.edits.applied(edit):
            found[strength] = float(np.mean(model.logits(target.images).argmax(1).numpy() == target.labels))
            assert np.isfinite(transfer_score(model, target.images).values["transfer_score"])
        told[strength] = edit.provenance["told_apart"]
    assert found[1.0] > found[0.0] + 0.15 and told[1.0] < told[0.0] - 0.3


def test_domains_without_pictures_or_classes_are_refused() -> None:
    source = domain(False)
    with pytest.raises(DataError, match="target: expected one picture or more"):
        domain_adversarial(classifier(), source, source.images[:0])
    with pytest.raises(DataError, match="pictures: expected one or more"):
        domain_adversarial(classifier(), source.take([]), source.images)
