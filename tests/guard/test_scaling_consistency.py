"""The firewall's exact facts on tiny real networks, and its score on a digit classifier with a real backdoor."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from photopic.core.errors import DataError, ModelError
from photopic.core.nn.hooks import tap
from photopic.core.nn.replay import order_of
from photopic.guard._scaling_scores import Fitted
from photopic.guard.amplified_norms import Amplified
from photopic.guard.scaling_consistency import ScalingConsistency, ScalingConsistencyConfig
from photopic.metrics.conformal import conformal_rank
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

CLASSES = 4
GIVEN = ScalingConsistencyConfig(threshold=0.5, error_bound=0.5)


def handle(network: nn.Module) -> Classifier:
    return Classifier(network, preprocess=Preprocessing(resize=(16, 16)), labels=[f"class {i}" for i in range(CLASSES)])


def resnet() -> Classifier:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=CLASSES)
    network = ResNetForImageClassification(config)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.5)
    return handle(network)


def vit() -> Classifier:
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16,
                       patch_size=4, num_labels=CLASSES)  # fmt: skip
    return handle(ViTForImageClassification(config))


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8)


def predicted(model: Classifier, images: np.ndarray) -> np.ndarray:
    return model.logits(images).argmax(1).numpy()


def logits_of_copy(model: Classifier, wall: ScalingConsistency, size: int, images: np.ndarray) -> torch.Tensor:
    """A copy of the network with some layers scaled, as the released code does it."""
    assert wall.fitted is not None
    other = copy.deepcopy(model.network)
    parts = dict(other.named_modules())
    with torch.no_grad():
        for layer in wall.fitted.layers[:size]:
            for each in parts[layer].parameters(recurse=False):
                each.mul_(wall.fitted.omega)
        return other(model.preprocess(images)).logits


def by_hand(model: Classifier, wall: ScalingConsistency, images: np.ndarray) -> np.ndarray:
    """The score of such copies, one a member."""
    assert wall.fitted is not None
    label = torch.from_numpy(predicted(model, images))
    found = [logits_of_copy(model, wall, size, images).double().softmax(1) for size in wall.fitted.sizes]
    return torch.stack([each.gather(1, label[:, None])[:, 0] for each in found]).mean(0).numpy()


class Probabilities(nn.Module):
    """A network with a softmax at its end."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(pixels).logits.softmax(1)


@pytest.mark.parametrize("build", [resnet, vit])
@pytest.mark.parametrize("compat", ["paper", "published-code"])
def test_scores_are_those_of_scaled_copies_and_the_model_keeps_every_bit(build, compat: str) -> None:  # type: ignore[no-untyped-def]
    model, images = build(), pictures(40)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    wall = ScalingConsistency(model, replace(GIVEN, compat=compat, error_bound=0.3)).fit(
        images, predicted(model, images)
    )
    scores = wall.score(pictures(9, 1), batch=4)
    np.testing.assert_allclose(scores, by_hand(model, wall, pictures(9, 1)), atol=1e-6)
    assert scores.min() >= 0 and scores.max() <= 1
    after = model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any("forward" in part.__dict__ for part in model.network.modules())


def test_the_released_code_scales_one_layer_more_and_repeats_the_last() -> None:
    model, images = resnet(), pictures(40)
    truth = predicted(model, images)
    paper, code = (
        ScalingConsistency(model, replace(GIVEN, compat=compat, members=30, error_bound=0.3)).fit(images, truth).fitted
        for compat in ("paper", "published-code")
    )
    assert paper is not None and code is not None
    assert paper.sizes == tuple(range(paper.first, len(paper.layers) + 1))
    assert code.sizes[0] == code.first + 1 and len(code.sizes) == 30 and code.sizes[-1] == len(code.layers)
    registered = [name for name, part in model.network.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert list(code.layers) == registered[::-1] and sorted(paper.layers) == sorted(registered)


def test_omega_one_gives_the_largest_probability() -> None:
    model, images = resnet(), pictures(30)
    with pytest.warns(UserWarning, match="try larger omegas"):
        wall = ScalingConsistency(model, replace(GIVEN, omegas=(1.0,))).fit(images, predicted(model, images))
    expected = model.logits(images).double().softmax(1).max(1).values.numpy()
    np.testing.assert_allclose(wall.score(images), expected, atol=1e-6)


def test_a_batch_normalisation_puts_out_omega_times_as_much() -> None:
    model, images = resnet(), pictures(3)
    pixels = model.preprocess(images)
    order = order_of(model.network, lambda: model.forward(pixels))
    (last,) = list(order.sorted([n for n, part in model.network.named_modules() if isinstance(part, nn.BatchNorm2d)]))[
        -1:
    ]
    amplified = Amplified(model, order, [last], 1.5)
    plain = amplified.plain(pixels, [])
    with tap(model.network, last) as seen:
        model.forward(pixels)
        amplified.member(plain, 1)
    torch.testing.assert_close(seen[last][1], 1.5 * seen[last][0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.9])
def test_leaving_members_out_changes_no_verdict_and_runs_fewer(threshold: float) -> None:
    model, images = resnet(), pictures(40)
    wall = ScalingConsistency(model, replace(GIVEN, threshold=threshold, error_bound=0.3)).fit(
        images, predicted(model, images)
    )
    verdicts, scores = wall.predict(pictures(50, 2), batch=16), wall.score(pictures(50, 2), batch=16)
    assert [verdict.accepted for verdict in verdicts] == list(scores <= threshold)
    assert wall.purify(pictures(50, 2), batch=16).tolist() == list(scores <= threshold)
    assert wall.fitted is not None
    ran = [verdict.evidence["members"] for verdict in verdicts]
    assert min(ran) >= 1 and max(ran) <= len(wall.fitted.sizes)
    if threshold == 0.05 or threshold == 0.9:
        assert np.mean(ran) < len(wall.fitted.sizes)
    assert all(verdict.provenance["caveats"] for verdict in verdicts)


def test_the_threshold_keeps_the_rate_of_false_positives_on_clean_pictures() -> None:
    model, images = resnet(), pictures(400)
    config = replace(GIVEN, threshold=None, false_positive_rate=0.1, error_bound=0.3)
    wall = ScalingConsistency(model, config).fit(images, predicted(model, images))
    assert wall.fitted is not None and wall.fitted.clean == 200
    rejected = np.mean([not verdict.accepted for verdict in wall.predict(pictures(600, 3))])
    assert 0.03 < rejected < 0.19


def test_the_threshold_is_one_of_the_exact_scores_of_the_calibrating_half() -> None:
    model, images = resnet(), pictures(90)
    config = replace(GIVEN, threshold=None, false_positive_rate=0.1, error_bound=0.3)
    wall = ScalingConsistency(model, config).fit(images, predicted(model, images), batch=16)
    calibrating = images[np.random.default_rng(0).permutation(90)[45:]]
    scores = np.sort(by_hand(model, wall, calibrating))
    assert wall.fitted is not None and len(wall.fitted.sizes) > 1
    assert wall.fitted.threshold == pytest.approx(scores[conformal_rank(45, 0.1) - 1], abs=1e-6)


@pytest.mark.parametrize("together", [1, 2, 10])
def test_errors_are_those_of_scaled_copies_however_many_go_on_from_one_pass(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photopic.guard.amplified_norms.TOGETHER", together)
    model, images = resnet(), pictures(40)
    truth = predicted(model, images)
    wall = ScalingConsistency(model, replace(GIVEN, error_bound=0.6)).fit(images, truth, batch=7)
    assert wall.fitted is not None and len(wall.fitted.errors) > 2
    expected = [
        float((logits_of_copy(model, wall, size, images).argmax(1).numpy() != truth).mean())
        for size in range(1, len(wall.fitted.errors) + 1)
    ]
    assert wall.fitted.errors == pytest.approx(expected)
    assert all(each <= 0.6 for each in expected[:-1])


def test_a_member_that_amplifies_every_layer_runs_last() -> None:
    layers = tuple("abcde")
    fitted = Fitted(layers, 1.5, 3, (3, 4, 5), 0.9, (0.1, 0.5, 0.7), True, 0)
    assert fitted.as_run == (4, 3, 5) and replace(fitted, layers=(*layers, "f")).as_run == (5, 4, 3)


def test_an_interrupted_call_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = resnet(), pictures(40)
    wall = ScalingConsistency(model, replace(GIVEN, error_bound=0.3)).fit(images, predicted(model, images))
    before, plain = model.digest(), model.logits(images)
    (last,) = [part for part in model.network.modules() if isinstance(part, nn.Linear)]
    calls = []

    def stop(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    hook = last.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        wall.score(images)
    hook.remove()
    assert model.digest() == before and torch.equal(model.logits(images), plain)


def test_looking_in_training_mode_changes_no_byte_and_no_score() -> None:
    model, images = resnet(), pictures(40)
    wall = ScalingConsistency(model, replace(GIVEN, error_bound=0.3)).fit(images, predicted(model, images))
    scores, before = wall.score(images), model.digest()
    model.network.train()
    assert np.array_equal(wall.score(images), scores)
    model.logits(images), model.features(images)
    assert model.digest() == before
    assert all(part.training for part in model.network.modules())  # as its owner left it


def test_scores_of_1_are_still_told_apart() -> None:
    """Two heads so sure that their probability is 1 as a number: the surer one has less doubt, and can be rejected."""
    model, images = resnet(), pictures(400)
    with torch.no_grad():
        model.head.weight.mul_(1e4), model.head.bias.mul_(1e4)
    config = replace(GIVEN, threshold=None, false_positive_rate=0.05, error_bound=0.3)
    wall = ScalingConsistency(model, config).fit(images, predicted(model, images))
    assert wall.fitted is not None and wall.fitted.threshold == 1.0 and wall.fitted.bound < -50
    rejected = np.mean([not verdict.accepted for verdict in wall.predict(pictures(400, 3))])
    assert 0.01 < rejected < 0.12


def test_probabilities_and_labels_of_others_are_refused() -> None:
    model, images = resnet(), pictures(60)
    truth = predicted(model, images)
    with pytest.raises(DataError, match="right, as many as guessing; check that labels"):
        ScalingConsistency(model, GIVEN).fit(images, (truth + 1) % len(model.labels))
    sure = Classifier(
        Probabilities(model.network),
        preprocess=model.preprocess,
        labels=model.labels,
        name="sure",
        head="network.classifier.1",
    )
    with pytest.raises(ModelError, match="expected logits, found probabilities"):
        ScalingConsistency(sure, GIVEN).fit(images, truth)


def test_a_parametrised_normalisation_is_refused_by_name() -> None:
    model, images = resnet(), pictures(30)
    (name, norm), *_ = [(n, part) for n, part in model.network.named_modules() if isinstance(part, nn.BatchNorm2d)]
    nn.utils.parametrize.register_parametrization(norm, "weight", nn.Identity())
    with pytest.raises(ModelError, match=f"{name} is parametrised"):
        ScalingConsistency(model, GIVEN).fit(images, predicted(model, images))


def test_bad_input_is_refused_by_name() -> None:
    model, images = resnet(), pictures(30)
    with pytest.raises(ModelError, match="not fitted"):
        ScalingConsistency(model).score(images)
    with pytest.raises(DataError, match="30 images"):
        ScalingConsistency(model).fit(images, [0])
    with pytest.raises(DataError, match="expected 0 to 3, found 0 to 4"):
        ScalingConsistency(model).fit(images, [0] * 29 + [4])
    with pytest.raises(DataError, match="19 or more clean"):
        ScalingConsistency(model, replace(GIVEN, threshold=None, error_bound=0.3)).fit(images, predicted(model, images))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(768, CLASSES))
    with pytest.raises(ModelError, match="found none to amplify"):
        ScalingConsistency(handle(plain))
    for bad in ({"omegas": (0.5,)}, {"members": 0}, {"error_bound": 1.0}, {"false_positive_rate": 0.0}):
        with pytest.raises(DataError, match=next(iter(bad))):
            replace(GIVEN, **bad)
