"""What the baselines share: one loop over the same batches, held-back shots, and weights tried without writing them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.edits import Edit, Part
from photopic.core.errors import DataError, EditError
from photopic.core.results import provenance
from photopic.core.view import Section, Table, Text, View
from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import TextClassifier, Tuned
from photopic.learning.few_shot_batches import Step, Training, batches, cosine, running
from photopic.metrics.intervals import wilson
from photopic.models.dual_encoder import DualEncoder

IMAGE_TOWER = "network.vision_model."  # how edits call its parameters


def fit(
    model: DualEncoder,
    data: LabelledImages,
    training: Training,
    parameters: Sequence[Tensor],
    logits: Callable[[Float[Tensor, "n 3 height width"]], Float[Tensor, "n classes"]],
) -> Iterator[Step]:
    """Train parameters in place with Adam on the cross-entropy, reporting after every step.

    Args:
        model: Prepares the pictures.
        data: What to learn from.
        training: Steps, rate, batch, augmentation and seed.
        parameters: What to train; they require gradients.
        logits: From pixel values to logits, through the parameters.

    Raises:
        DataError: If there is one class only, or a class without pictures.
    """
    began, accuracy = time.monotonic(), None
    optimizer = torch.optim.Adam(parameters, lr=training.lr)
    for step, pixels, labels in batches(model, data, training):
        optimizer.param_groups[0]["lr"] = training.lr * cosine(step, training.steps)
        found = logits(pixels)
        loss = F.cross_entropy(found, labels)
        gradients = torch.autograd.grad(
            loss, list(parameters), allow_unused=True
        )  # some towers do not use all they have
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        accuracy = running(accuracy, float((found.argmax(1) == labels).float().mean()))
        elapsed = time.monotonic() - began
        left = elapsed / (step + 1) * (training.steps - step - 1)
        yield Step("tuning", step + 1, training.steps, loss.item(), accuracy, elapsed_s=elapsed, eta_s=left)
    for parameter in parameters:
        parameter.grad = None


def done(training: Training, last: Step, tuned: Tuned) -> Step:
    """The last event, with what was learnt."""
    steps, edit = training.steps, getattr(tuned, "edit", None)
    return Step("done", steps, steps, last.loss, last.accuracy, elapsed_s=last.elapsed_s, edit=edit, tuned=tuned)


class TriedWeights(nn.Module):
    """The image encoder of a dual encoder with other tensors in place of some of its own, which are never written.

    Args:
        model: Whose encoder to use.
        names: Of parameters, as edits call them: ``network.vision_model....``.

    Attributes:
        tensors: Copies of these parameters by name, requiring gradients.
    """

    def __init__(self, model: DualEncoder, names: Sequence[str]):
        super().__init__()
        self.network = model.network
        self._encode = model.encode_pixels
        own = dict(self.named_parameters())
        self.tensors = {name: own[name].detach().clone().requires_grad_() for name in names}

    def forward(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        """Features with the network's own weights."""
        return self._encode(pixels)

    def features(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        """Features of any length with ``tensors`` in place; gradients flow to them."""
        found: Tensor = torch.func.functional_call(self, self.tensors, (pixels,))
        return found


def fit_weights(
    model: DualEncoder, data: LabelledImages, training: Training, names: Sequence[str], rows: Float[Tensor, "k dim"]
) -> Generator[Step, None, tuple[dict[str, Tensor], Step]]:
    """Train copies of parameters of the image tower for given class rows: yields as ``fit``; returns them and the last event."""
    tried = TriedWeights(model, names)
    last = Step("preparing")
    for last in fit(
        model,
        data,
        training,
        [*tried.tensors.values()],
        lambda pixels: cosines(model, tried.features(pixels), rows),
    ):
        yield last
    return {name: tensor.detach() for name, tensor in tried.tensors.items()}, last


def image_parameters(model: DualEncoder) -> dict[str, Tensor]:
    """The parameters of the image tower, as edits call them."""
    return {IMAGE_TOWER + name: each for name, each in model.image_tower.named_parameters()}


def cosines(model: DualEncoder, features: Float[Tensor, "n dim"], rows: Float[Tensor, "k dim"]) -> Float[Tensor, "n k"]:
    """Scaled cosines of features of any length and rows of length 1."""
    return model.logit_scale * F.normalize(features, dim=-1) @ rows.mT  # (n, dim) @ (dim, k) -> (n, k)


def check_bare(model: DualEncoder) -> None:
    """Refuse a model with edits applied, from which weights would be learnt that no base has.

    Raises:
        EditError: Names them.
    """
    if model.edits.list():
        raise EditError(f"{model.name}: has edits applied ({', '.join(model.edits.names())}); unload them first")


def edit_of(
    part: Part, names: Sequence[str], model: DualEncoder, data: LabelledImages, method: str, config: Any
) -> Edit:
    """An edit with one part, bound to the model, that says how it was found."""
    facts = {"config": asdict(config), "data": data.digest, "classes": list(data.names)}
    return Edit((part,), model.edits.fingerprint(*names), provenance(f"tune.few_shot.{method}", **facts))


def held_back(data: LabelledImages, seed: int) -> tuple[LabelledImages, LabelledImages] | None:
    """A quarter of the shots of every class, one at least, kept for choosing settings; None if a class has only one.

    Args:
        data: The shots; nothing but them is ever used to choose.
        seed: Of the draw.

    Returns:
        What to fit on, and what to choose on.
    """
    shots = min(data.counts)
    return data.draw(shots - max(1, shots // 4), seed) if shots > 1 else None


def best_setting(logits_by_setting: Mapping[Any, Float[Tensor, "n classes"]], labels: Int64[Tensor, " n"]) -> Any:
    """The setting whose logits name most pictures right; of several the one with the least cross-entropy."""

    def rank(setting: Any) -> tuple[int, float]:
        logits = logits_by_setting[setting]
        return int((logits.argmax(1) == labels).sum()), -F.cross_entropy(logits, labels).item()

    return max(logits_by_setting, key=rank)


def unit_rows(
    model: DualEncoder, data: LabelledImages, templates: Sequence[str], given: Tensor | None
) -> Float[Tensor, "classes dim"]:
    """The classifier to learn for, on the model's device: the given one, or that of the class names.

    Raises:
        DataError: If the given one has not a row a class, or a name has no token.
    """
    rows = model.class_features(data.names, templates) if given is None else given.detach().float()
    if rows.ndim != 2 or len(rows) != len(data.names):
        raise DataError(
            f"class_embeddings: expected one row for each of the {len(data.names)} classes, found shape {tuple(rows.shape)}"
        )
    return F.normalize(rows, dim=-1).to(model.device)


def measured(edit: Edit, model: DualEncoder, test: LabelledImages | None, rows: Float[Tensor, "classes dim"]) -> Edit:
    """The edit, with how many pictures that were not learnt from are named right without and with it."""
    if test is None or not len(test):
        return edit
    right = {
        name: int((TextClassifier(model, rows, each).logits(test.images).argmax(1).numpy() == test.labels).sum())
        for name, each in (("without", None), ("with", edit))
    }
    return replace(edit, provenance={**edit.provenance, "test": {"pictures": len(test), "right": right}})


def accuracy_view(edit: Edit) -> View:
    """Accuracy on pictures not learnt from, without and with the edit, with 95 % intervals."""
    found = edit.provenance.get("test")
    if not found:
        text = "accuracy: not measured, since every picture was learnt from; lower --shots to keep some apart"
        return View("accuracy", [Section("", [Text(text)])])
    rows = []
    for name, label in (("without", "names alone (zero-shot)"), ("with", "with the edit")):
        share, low, high = wilson(found["right"][name], found["pictures"])
        rows.append([label, f"{share:.1%}", f"{low:.1%} to {high:.1%}"])
    title = f"accuracy on {found['pictures']:,} pictures not learnt from"
    return View("accuracy", [Section("", [Table(["", "accuracy", "95 % interval"], rows, caption=title)])])
