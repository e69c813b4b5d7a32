"""NormGrad: the gradient of a real identity convolution, its other identities, several layers, and the step of the meta maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from photopic.locate.attribution.grad_cam import GradCAMConfig, grad_cam
from photopic.locate.attribution.normgrad import NormGradConfig, combined, copied, normgrad, step_down
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing
from tests.locate.attribution.test_grad_cam import transformers


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def small(extra: nn.Module | None = None) -> Classifier:
    """Two convolutions, and between them whatever is given."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, last = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Tanh()), nn.Conv2d(4, 5, 3)
        parts = [first, extra or nn.Identity(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)]
    return Classifier(nn.Sequential(*parts), preprocess=Preprocessing(resize=(12, 12)), labels=["a", "b", "c"])


def test_a_map_is_what_each_position_adds_to_the_gradient_of_an_identity_convolution(images: np.ndarray) -> None:
    identity = nn.Conv2d(4, 4, 1, bias=False)
    identity.weight.data = torch.eye(4).view(4, 4, 1, 1)
    model = small(identity)
    found = normgrad(small(), images, classes=["b"], config=NormGradConfig(layers=("0",))).values[:, 0]
    for number, image in enumerate(images):
        inside = model.network[0](model.preprocess(image))
        for row in range(inside.shape[2]):
            for column in range(inside.shape[3]):
                # only this position goes through the convolution, the others around it
                here = torch.zeros(1, 1, *inside.shape[2:])
                here[..., row, column] = 1
                weight = identity.weight.detach().clone().requires_grad_()
                mixed = here * functional.conv2d(inside, weight) + (1 - here) * inside
                logit = model.network[2:](mixed)[0, 1]
                (gradient,) = torch.autograd.grad(logit, weight)
                assert found[number, row, column] == pytest.approx(gradient.norm().item(), rel=1e-4, abs=1e-7)


def test_the_other_identities_are_a_factor_and_a_bias(images: np.ndarray) -> None:
    norms = {
        each: normgrad(transformers("resnet"), images, classes=["thing 1"], config=NormGradConfig(virtual=each)).values  # type: ignore[arg-type]
        for each in ("convolution", "scaling", "bias")
    }
    assert (norms["scaling"] <= norms["convolution"] + 1e-7).all()  # |x g| <= |x| |g|
    ratio = norms["convolution"] / norms["bias"]  # |x_u|: does not depend on the class
    other = NormGradConfig(), NormGradConfig(virtual="bias")
    again = [normgrad(transformers("resnet"), images, classes=["thing 3"], config=each).values for each in other]
    np.testing.assert_allclose(again[0] / again[1], ratio, rtol=1e-3)


def test_several_layers_are_their_geometric_mean(images: np.ndarray) -> None:
    model, names = transformers("resnet"), model_layers()
    alone = [
        normgrad(model, images, classes=["thing 0"], config=NormGradConfig(layers=(name,))).values for name in names
    ]
    both = normgrad(model, images, classes=["thing 0"], config=NormGradConfig(layers=tuple(names)))
    np.testing.assert_allclose(both.values, combined([torch.tensor(each) for each in alone]), rtol=1e-5)
    assert both.provenance["layers"] == names and both.values.shape[2:] == max(each.shape[2:] for each in alone)
    assert combined([torch.tensor([[[[4.0]]]]), torch.tensor([[[[0.0]]]])]).item() == 0.0


def model_layers() -> list[str]:
    return ["resnet.encoder.stages.0.layers.0", "resnet.encoder.stages.1.layers.1"]


def test_the_meta_step_lowers_the_loss_of_the_class_and_leaves_the_model(images: np.ndarray) -> None:
    model = small()
    before, pixels = model.digest(), model.preprocess(images[:1])
    moving = copied(model)
    for index in (0, 2):  # from the model's own weights each time
        step_down(moving, model, pixels, index, 0.05)
    once = copied(model)
    step_down(once, model, pixels, 2, 0.05)
    assert torch.equal(moving.forward(pixels), once.forward(pixels))
    loss = [-each.forward(pixels).log_softmax(1)[0, 2].item() for each in (model, moving)]
    assert loss[1] < loss[0] and model.digest() == before
    plain = normgrad(model, images, classes=["c", "a"], config=NormGradConfig(layers=("0",))).values
    tiny = normgrad(model, images, classes=["c", "a"], config=NormGradConfig(layers=("0",), meta=1e-9)).values
    np.testing.assert_allclose(tiny, plain, rtol=1e-4)  # no step, no change
    assert not np.allclose(
        normgrad(model, images, classes=["c", "a"], config=NormGradConfig(layers=("0",), meta=1.0)).values, plain
    )


def test_where_gradients_cancel_grad_cam_is_empty_and_normgrad_is_not() -> None:
    """Two channels whose weights cancel over the positions: the mean gradient is 0, its norm is not."""
    head = nn.Linear(4, 2, bias=False)
    head.weight.data = torch.tensor([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 1.0]])
    network = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.Identity(), nn.Flatten(), head)
    network[0].weight.data = torch.ones(1, 3, 1, 1)
    model = Classifier(network, preprocess=Preprocessing(), labels=["checked", "corner"], blocks=["1"])
    picture = np.full((1, 2, 2, 3), 200, np.uint8)
    with pytest.warns(UserWarning, match="every map is empty"):
        assert not grad_cam(model, picture, classes=["checked"], config=GradCAMConfig(layer="1")).values.any()
    assert (normgrad(model, picture, classes=["checked"]).values > 0).all()
