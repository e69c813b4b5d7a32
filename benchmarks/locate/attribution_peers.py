"""Grad-CAM beside captum's and pytorch-grad-cam's: the same maps of the same networks and pictures, and the seconds of a hundred.

    python -m benchmarks attribution-peers      # writes benchmarks/results/attribution-peers.json; needs captum and grad-cam

Maps are compared before ReLU, which leaves most of them empty, at every block of the bundled ResNet and, with pytorch-grad-cam, of
the ViT. Seconds are the processor's, from pictures to maps of one class at the layer that Grad-CAM chooses, in turns, in batches of
one size.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.timing import median_ratio, side_by_side
from benchmarks.locate.scene_classifiers import scenes
from photopic.core.config import Config
from photopic.core.errors import ModelError
from photopic.locate.attribution._common import BATCH, last_layer
from photopic.locate.attribution.grad_cam import GradCAMConfig, grad_cam
from photopic.models.classifier import Classifier

FIRST = 20_000  # of the scenes
CLAIMS = (
    Claim("grad_cam.captum_difference", "<= 1e-5", "largest difference over the largest value, all maps of the ResNet"),
    Claim("grad_cam.pytorch_grad_cam_difference", "<= 1e-5", "the same, all maps of the ResNet and the ViT"),
    Claim("attribution.seconds_vs_captum", "<= 1.1", "seconds of a hundred pictures over captum's"),
    Claim("attribution.processor_seconds_vs_captum", "", "the same in seconds of the processor"),
)
BESIDE = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "cv2")


@dataclass(frozen=True)
class PeerConfig(Config):
    """How much is compared."""

    pictures: Annotated[int, Ge(2)] = 20  # whose maps are compared
    timed: Annotated[int, Ge(2)] = 100  # pictures a round
    rounds: Annotated[int, Ge(1)] = 41  # each times both


class Absent(ModuleType):
    """In the place of a package that a peer imports for its own pictures, and that no map needs."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def peers() -> tuple[Any, Any]:
    """Captum's and pytorch-grad-cam's Grad-CAM.

    Raises:
        SystemExit: If one of them is not installed.
    """
    sys.modules |= {name: Absent(name) for name in BESIDE if name not in sys.modules}
    try:
        from captum.attr import LayerGradCam
        from pytorch_grad_cam import GradCAM
    except ImportError as error:
        sys.exit(f"attribution-peers: {error}; pip install --no-deps captum grad-cam ttach")
    finally:
        for name in BESIDE:
            if isinstance(sys.modules[name], Absent):
                del sys.modules[name]
    return LayerGradCam, GradCAM


class Logits(torch.nn.Module):
    """A network whose output is its logits, as both peers take it."""

    def __init__(self, model: Classifier):
        super().__init__()
        self.network = model.network

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.network(pixels).logits
        return found


def by_captum(
    layer_grad_cam: Any, model: Classifier, layer: str, pixels: Tensor, index: int, *, relu: bool
) -> np.ndarray:
    """Captum's maps (n, rows, columns)."""
    cam = layer_grad_cam(Logits(model), model.network.get_submodule(layer))
    found: Tensor = cam.attribute(pixels, target=index, relu_attributions=relu)
    return found[:, 0].detach().numpy()


def by_pytorch_grad_cam(grad_cam_class: Any, model: Classifier, layer: str, pixels: Tensor, index: int) -> np.ndarray:
    """Pytorch-grad-cam's maps before it scales them to 0 to 1 and to the picture."""
    network, place = Logits(model), model.network.get_submodule(layer)

    def grid(value: Any) -> Tensor:
        """Tokens as the patches they stand for, as its documentation does for a ViT."""
        value = value[0] if isinstance(value, tuple) else value
        side = int((value.shape[1] - 1) ** 0.5)
        return value[:, 1:].transpose(1, 2).unflatten(2, (side, side)) if value.ndim == 3 else value

    network.requires_grad_(True)  # it hooks only what has gradients
    cam = grad_cam_class(model=network, target_layers=[place], reshape_transform=grid)
    seen = cam.activations_and_grads
    cam.model.zero_grad()
    seen(pixels)[:, index].sum().backward()
    activations, gradients = seen.activations[0].numpy(), seen.gradients[0].numpy()
    found: np.ndarray = cam.get_cam_image(pixels, place, [index], activations, gradients)
    seen.release()
    network.requires_grad_(False)
    return found


def differences(model: Classifier, pictures: np.ndarray, theirs: Any) -> list[float]:
    """At every block with positions, the largest difference over our largest value."""
    index, pixels, found = int(model.logits(pictures[:1]).argmax()), model.preprocess(pictures), []
    for layer in model.blocks:
        try:
            ours = grad_cam(
                model, pictures, classes=[model.labels[index]], config=GradCAMConfig(layer=layer, relu=False)
            )
        except ModelError:  # has no positions, or the logits do not depend on them
            continue
        values = ours.values[:, 0]
        found.append(float(np.abs(values - theirs(layer, pixels, index)).max() / np.abs(values).max()))
    return found


def rows(bench: Bench[PeerConfig, Any]) -> Iterator[Row]:
    """Differences and seconds."""
    captum, pytorch_grad_cam = peers()
    config = bench.config
    resnet, vit = (Classifier.load(name, "cpu") for name in ("emoji-resnet-64-0", "emoji-vit-64-0"))
    pictures = np.stack(
        [scene.image for scene in scenes(resnet.labels, FIRST, config.timed, size=64, objects=(1, 0, 0, 0))]
    )
    few = pictures[: config.pictures]
    first = differences(resnet, few, lambda *place: by_captum(captum, resnet, *place, relu=False))
    yield row("grad_cam.captum_difference", max(first), n=len(first) * len(few), note=f"{len(first)} layers")
    second = [
        each
        for model in (resnet, vit)
        for each in differences(
            model, few, lambda *place, model=model: by_pytorch_grad_cam(pytorch_grad_cam, model, *place)
        )
    ]
    yield row(
        "grad_cam.pytorch_grad_cam_difference", max(second), n=len(second) * len(few), note=f"{len(second)} layers"
    )
    layer, label = last_layer(resnet, resnet.preprocess(few[:1]), 0), resnet.labels[0]
    settings = GradCAMConfig(layer=layer)

    def theirs() -> None:
        for start in range(0, len(pictures), BATCH):
            by_captum(captum, resnet, layer, resnet.preprocess(pictures[start : start + BATCH]), 0, relu=True)

    calls = [lambda: grad_cam(resnet, pictures, classes=[label], config=settings), theirs]
    for claim, clock in {"seconds": time.perf_counter, "processor_seconds": time.process_time}.items():
        seconds = side_by_side(calls, config.rounds, warm_up=2, clock=clock)
        middle = [float(np.median(each)) for each in seconds]
        note = f"{middle[0]:.3f} s for {config.timed} pictures, captum {middle[1]:.3f} s"
        ratio = median_ratio(*seconds)
        yield row(f"attribution.{claim}_vs_captum", ratio, n=config.rounds, baseline=1.0, note=note)


QUICK = PeerConfig(2, 4, 1)
BENCHMARKS = (Benchmark("attribution-peers", __doc__, PeerConfig(), QUICK, CLAIMS, rows, seeds=(FIRST,)),)
