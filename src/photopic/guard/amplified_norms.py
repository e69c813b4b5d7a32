"""A network with its last normalisations amplified, run on what an earlier run left behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from photopic.core.edits import Edit, EditStack, SparseWeights
from photopic.core.errors import DataError, ModelError
from photopic.core.nn.replay import Order, order_of, recorded, replayed
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)
BATCH_NORM_OMEGAS, LAYER_NORM_OMEGAS = (1.5,), (1.5, 2.0, 3.0, 5.0, 8.0)


class Amplified:
    """The members F_i of one factor: scale and shift of the last i normalisations times omega, put in as an edit.

    Args:
        model: The classifier.
        order: Of its modules in a run.
        layers: Dotted names of normalisations, the last one first.
        omega: The factor.
    """

    def __init__(self, model: Classifier, order: Order, layers: Sequence[str], omega: float):
        self.model, self.omega, self.layers, self._order = model, omega, tuple(layers), order
        self._stack = EditStack({"network": model.network}, name=model.name)
        self._edits: dict[int, Edit] = {}
        self._starts: dict[int, tuple[str, ...]] = {}

    def plain(
        self, pixels: Float[Tensor, "n 3 height width"], sizes: Sequence[int]
    ) -> tuple[Float[Tensor, "n classes"], dict[str, Any]]:
        """Logits of the network as it is, and what members of these sizes can go on from."""
        names = {name for size in sizes for name in self._before(size)}
        with torch.no_grad(), recorded(self.model.network, sorted(names)) as kept:
            logits = self.model.forward(pixels)
        return logits.float(), kept

    def member(
        self, pixels: Float[Tensor, "n 3 height width"], size: int, kept: dict[str, Any], rows: Tensor | None = None
    ) -> Float[Tensor, "rows classes"]:
        """Logits of the member that amplifies ``size`` layers.

        Args:
            pixels: As ``plain`` had them.
            size: How many.
            kept: From ``plain``; what is missing is computed.
            rows: Numbers of the samples wanted; None: all.
        """
        outputs = {name: kept[name] for name in self._before(size) if name in kept}
        chosen = pixels if rows is None else pixels[rows]
        with torch.no_grad(), self._stack.applied(self._edit(size)), replayed(self.model.network, outputs, rows):
            return self.model.forward(chosen).float()

    def _before(self, size: int) -> tuple[str, ...]:
        """What has ended when the first amplified layer starts."""
        if size not in self._starts:
            first = min(self.layers[:size], key=self._order.starts.__getitem__)
            self._starts[size] = self._order.before(first)
        return self._starts[size]

    def _edit(self, size: int) -> Edit:
        if size not in self._edits:
            values = {}
            parts = dict(self.model.network.named_modules())
            for layer in self.layers[:size]:
                for name, parameter in parts[layer].named_parameters(recurse=False):
                    values[f"network.{layer}.{name}"] = (
                        (parameter.detach().double() * self.omega).float().flatten().cpu()
                    )
            indices = {name: torch.arange(value.numel()) for name, value in values.items()}
            base = self._stack.fingerprint(*values)
            about = {"method": "scaling_consistency", "omega": self.omega, "layers": size}
            self._edits[size] = Edit((SparseWeights(indices, values, bits=32),), base, about)
        return self._edits[size]


def norms(network: nn.Module) -> dict[str, nn.Module]:
    """Normalisations with a scale, by dotted name, as they are registered."""
    return {
        name: part
        for name, part in network.named_modules()
        if isinstance(part, NORMS) and getattr(part, "weight", None) is not None
    }


def ordered(model: Classifier, images: Images, *, as_registered: bool) -> tuple[Order, tuple[str, ...]]:
    """When modules run, and the normalisations, the last first: in the order of a run, or as the released code takes them."""
    pixels = model.preprocess(images)
    order = order_of(model.network, lambda: model.forward(pixels))
    found = norms(model.network)
    for name, part in found.items():
        if is_parametrized(part):
            raise ModelError(
                f"{model.name}: the normalisation {name} is parametrised, so its scale cannot be amplified; bake it in with "
                "torch.nn.utils.parametrize.remove_parametrizations"
            )
    called = [name for name in found if name in order.starts]
    return order, tuple(reversed(called if as_registered else order.sorted(called)))


def first_failing(
    model: Classifier,
    order: Order,
    layers: tuple[str, ...],
    omegas: Sequence[float] | None,
    batches: Sequence[Float[Tensor, "_ 3 height width"]],
    truth: Int[np.ndarray, "n"],
    bound: float,
) -> tuple[Amplified, list[float]]:
    """The first factor, and the errors with 1, 2, ... layers amplified until one exceeds the bound; else the last factor.

    Args:
        model: The classifier.
        order: Of its modules in a run.
        layers: Normalisations, the last one first.
        omegas: Tried in turn; None: what suits the kind of normalisation.
        batches: Pixel values of clean images.
        truth: Their classes.
        bound: Of the top-1 error.
    """
    if omegas is None:
        found = norms(model.network)
        has_batch_norm = any(isinstance(found[name], BATCH_NORMS) for name in layers)
        omegas = BATCH_NORM_OMEGAS if has_batch_norm else LAYER_NORM_OMEGAS
    for omega in omegas:
        amplified, errors = Amplified(model, order, layers, omega), list[float]()
        for size in range(1, len(layers) + 1):
            predicted = torch.cat([amplified.member(pixels, size, {}).argmax(1) for pixels in batches])
            errors.append(float((predicted.cpu().numpy() != truth).mean()))
            if errors[-1] > bound:
                return amplified, errors
    return amplified, errors


def checked_labels(images: Images, labels: Sequence[int] | Int[np.ndarray, "_"], classes: int) -> Int[np.ndarray, "n"]:
    """Class numbers as an array.

    Raises:
        DataError: If they are no class numbers, or not as many as images.
    """
    truth = np.asarray(labels)
    if truth.shape != (len(images),) or truth.dtype.kind not in "iu":
        raise DataError(
            f"labels: expected a class number for each of {len(images)} images, found {truth.dtype} {truth.shape}"
        )
    if len(truth) and (truth.min() < 0 or truth.max() >= classes):
        raise DataError(f"labels: expected 0 to {classes - 1}, found {truth.min()} to {truth.max()}")
    return truth


def taken(images: Images, rows: Int[np.ndarray, "_"]) -> Any:
    """Some of the images, in the same form."""
    found: Any = images
    return [found[row] for row in rows] if isinstance(images, list | tuple) else found[rows]
