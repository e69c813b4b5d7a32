"""A network with its last normalisations amplified, run on what an earlier run left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from photopic.core.errors import DataError, ModelError
from photopic.core.fingerprint import module_at
from photopic.core.nn.replay import Order, order_of, recorded, replayed
from photopic.guard._plain import BoundWeights, Plain, plain_pass
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)
BATCH_NORM_OMEGAS, LAYER_NORM_OMEGAS = (1.5,), (1.5, 2.0, 3.0, 5.0, 8.0)
TOGETHER = 10  # members that one plain pass keeps outputs for at most: no more memory than a step of training takes

Scaled = dict[str, nn.Parameter]  # scale and shift of one normalisation times omega


class Amplified:
    """The members F_i of one factor: scale and shift of the last i normalisations times omega, for the time of a run.

    The amplified tensors take the places of the model's own, which are never written.

    Args:
        model: The classifier.
        order: Of its modules in a run.
        layers: Dotted names of normalisations, the last one first.
        omega: The factor.
    """

    def __init__(self, model: Classifier, order: Order, layers: Sequence[str], omega: float):
        self.model, self.omega, self.layers, self._order = model, omega, tuple(layers), order
        self._weights = BoundWeights(model)
        self._scaled: dict[str, Scaled] = {}  # by layer
        self._written: set[str] = set()  # modules whose outputs the network writes to, which have to be copied
        self._before: dict[int, tuple[str, ...]] = {}  # by size

    def plain(
        self, pixels: Float[Tensor, "n channels height width"], sizes: Sequence[int], *, features: bool = False
    ) -> Plain:
        """The network as it is, and what members of these sizes can go on from.

        Args:
            pixels: As ``Classifier.preprocess`` gives them.
            sizes: Of the members that come.
            features: Whether to keep what enters the head.

        Raises:
            ModelError: If the weights are not those of before any more.
        """
        if self._weights.moved():
            self._scaled.clear()
        keep = {name for size in sizes for name in self.before(size)}
        return plain_pass(self.model, pixels, keep=sorted(keep), written=self._written, features=features)

    def member(self, plain: Plain, size: int, rows: Tensor | None = None) -> Float[Tensor, "rows classes"]:
        """Logits of the member that amplifies ``size`` layers.

        Args:
            plain: The same pictures' plain pass; what it did not keep is computed.
            size: How many.
            rows: Numbers of the samples wanted; None: all.
        """
        chosen = plain.pixels if rows is None else plain.pixels[rows]
        return self._run(chosen, size, plain.kept, rows)

    def members(
        self, pixels: Float[Tensor, "n channels height width"], sizes: Sequence[int], plain: Plain | None = None
    ) -> Iterator[Float[Tensor, "n classes"]]:
        """Logits of members of ascending sizes, one after the other.

        Args:
            pixels: As ``Classifier.preprocess`` gives them.
            sizes: Ascending.
            plain: The same pictures' plain pass for these sizes; without one the first member runs from the start, and the others
                go on from what it leaves, since what ends before a larger member's first amplified layer is amplified in neither.
        """
        if plain is not None:
            kept = plain.kept
        else:
            first, *sizes = sizes
            keep = sorted({name for size in sizes for name in self.before(size)})
            with recorded(self.model.network, keep, self._written) as kept:
                logits = self._run(pixels, first, {})
            yield logits
        for size in sizes:
            yield self._run(pixels, size, kept)

    def _run(
        self, pixels: Float[Tensor, "n channels height width"], size: int, kept: Mapping[str, Any], rows: Any = None
    ) -> Float[Tensor, "n classes"]:
        outputs = {name: kept[name] for name in self.before(size) if name in kept}
        again = replayed(self.model.network, outputs, rows, written=self._written)
        with torch.no_grad(), self._in_place(size), again:
            return self.model.forward(pixels).float()

    def before(self, size: int) -> tuple[str, ...]:
        """What has ended when the first of ``size`` amplified layers starts."""
        if size not in self._before:
            first = min(self.layers[:size], key=self._order.starts.__getitem__)
            self._before[size] = self._order.before(first)
        return self._before[size]

    @contextmanager
    def _in_place(self, size: int) -> Iterator[None]:
        """Amplified tensors in the places of the model's own; twice ``finally``, as an interrupt may hit the first."""
        parts = {layer: module_at(self.model.network, layer) for layer in self.layers[:size]}
        held = [(part._parameters, self._of(layer, part)) for layer, part in parts.items()]
        own = [(places, {name: places[name] for name in scaled}) for places, scaled in held]

        def put_back() -> None:
            for places, parameters in own:
                places.update(parameters)

        try:
            try:
                for places, scaled in held:
                    places.update(scaled)
                yield
            finally:
                put_back()
        finally:
            put_back()

    def _of(self, layer: str, part: nn.Module) -> Scaled:
        if layer not in self._scaled:
            self._scaled[layer] = {
                name: nn.Parameter((own.detach().cpu().double() * self.omega).to(own), requires_grad=False)
                for name, own in part.named_parameters(recurse=False)
            }
        return self._scaled[layer]


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
    batches: Sequence[Float[Tensor, "_ channels height width"]],
    truth: Int[np.ndarray, "n"],
    bound: float,
    look: Callable[[Plain], None],
    *,
    features: bool,
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
        look: Shown the plain pass of each batch, once.
        features: Whether with what enters the head.
    """
    if omegas is None:
        found = norms(model.network)
        has_batch_norm = any(isinstance(found[name], BATCH_NORMS) for name in layers)
        omegas = BATCH_NORM_OMEGAS if has_batch_norm else LAYER_NORM_OMEGAS
    for omega in omegas:
        amplified, errors = Amplified(model, order, layers, omega), list[float]()
        while len(errors) < len(layers):
            sizes = range(len(errors) + 1, min(len(errors) + TOGETHER, len(layers)) + 1)
            first_time = not errors and omega == omegas[0]
            plains = _seen(amplified, batches, sizes, look, features) if first_time else [None] * len(batches)
            runs = (amplified.members(pixels, sizes, plain) for pixels, plain in zip(batches, plains, strict=True))
            for error in _errors(len(sizes), runs, truth, bound):
                errors.append(error)
                if error > bound:
                    return amplified, errors
    return amplified, errors


def _seen(
    amplified: Amplified,
    batches: Sequence[Float[Tensor, "_ channels height width"]],
    sizes: Sequence[int],
    look: Callable[[Plain], None],
    features: bool,
) -> Iterator[Plain]:
    for pixels in batches:
        plain = amplified.plain(pixels, sizes, features=features)
        look(plain)
        yield plain


def _errors(
    count: int, runs: Iterable[Iterator[Float[Tensor, "_ classes"]]], truth: Int[np.ndarray, "n"], bound: float
) -> list[float]:
    """Top-1 errors of the first of ``count`` members, one or more; of each batch the logits come one member after the other.

    The first batch says how many: up to the member whose error on it exceeds the bound.
    """
    wrong, done = np.zeros(count, int), 0
    for members in runs:
        for column, logits in zip(range(count), members, strict=False):
            expected = truth[done : done + len(logits)]
            missed = int((logits.argmax(1).cpu().numpy() != expected).sum())
            wrong[column] += missed
            if not done and missed / len(expected) > bound:
                count = column + 1
                break
        done += len(expected)
    return [float(each) for each in wrong[:count] / len(truth)]


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
