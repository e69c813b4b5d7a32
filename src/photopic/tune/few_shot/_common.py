"""What the few-shot methods share: a learner over the same batches, held-back shots, what a result says and shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.core.edits import Edit, Part
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.runs import Run
from photopic.core.view import Section, Table, Text, View
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.few_shot_batches import RunningShare, Training, batch_at, check_trainable
from photopic.learning.tuned_classifier import classifier_of
from photopic.metrics.intervals import wilson
from photopic.models.dual_encoder import TEMPLATES, DualEncoder

IMAGE_TOWER = "network.vision_model."  # how edits call its parameters
R = TypeVar("R")
S = TypeVar("S")


class Classifying(OptimizedTensors):
    """Tensors learnt by the cross-entropy of the logits that they give each batch.

    Args:
        model: Prepares the pictures.
        data: What to learn from.
        config: Steps, rates, batches and seed.
        tensors: What is learnt, by name; requires gradients.
        logits: From pixel values to logits, through the tensors.
        optimizer: Adam by default.
    """

    def __init__(
        self,
        model: DualEncoder,
        data: LabelledImages,
        config: Training,
        tensors: Mapping[str, Tensor],
        logits: Callable[[Float[Tensor, "n 3 height width"]], Float[Tensor, "n classes"]],
        optimizer: torch.optim.Optimizer | None = None,
    ):
        super().__init__(tensors, optimizer or torch.optim.Adam(tensors.values(), lr=config.lr), config.rate)
        self.model, self.data, self.config, self.logits = model, data, config, logits
        self.accuracy = RunningShare()

    def step(self, step: int) -> Mapping[str, float]:
        """One step down the cross-entropy of a batch."""
        _, pixels, labels = batch_at(self.model, self.data, self.config, step)
        logits = self.logits(pixels)  # (batch, classes)
        loss = F.cross_entropy(logits, labels)
        self.update(loss, step=step)
        right = float((logits.argmax(1) == labels).float().mean())
        return {"loss": loss.item(), "accuracy": self.accuracy.update(right)}

    def state(self) -> dict[str, Tensor]:
        """What the optimizer has, and the running accuracy."""
        return super().state() | {"accuracy": self.accuracy.value}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""
        super().restore(state)
        self.accuracy.value.copy_(state["accuracy"])


def prepared(
    model: DualEncoder, data: FewShotTask, templates: Sequence[str] = TEMPLATES
) -> Steps[Float[Tensor, "classes dim"]]:
    """The classifier of the class names, once there is enough to learn from.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.
    """
    check_trainable(data.train)
    rows = unit_rows(model, data.train, templates)
    yield Event("preparing")
    return rows


def learn_weights(
    model: DualEncoder,
    data: LabelledImages,
    config: Training,
    names: Sequence[str],
    rows: Float[Tensor, "classes dim"],
    run: Run | None,
) -> Steps[dict[str, Tensor]]:
    """Train copies of parameters of the image tower for given class rows; the model's own are never written."""
    tensors = {name: each.detach().clone().requires_grad_() for name, each in model.parameters(*names).items()}
    features = model.functional(tensors)  # pixels (n, 3, height, width) -> (n, dim) through the copies
    learner = Classifying(model, data, config, tensors, lambda pixels: cosines(model, features(pixels), rows))
    yield from fit(learner, config.steps, run=run)
    return {name: tensor.detach() for name, tensor in tensors.items()}


def image_parameters(model: DualEncoder) -> dict[str, Tensor]:
    """The parameters of the image tower, as edits call them."""
    return {IMAGE_TOWER + name: each for name, each in model.image_tower.named_parameters()}


def cosines(model: DualEncoder, features: Float[Tensor, "n dim"], rows: Float[Tensor, "k dim"]) -> Float[Tensor, "n k"]:
    """Scaled cosines of features of any length and rows of length 1."""
    return model.logit_scale * F.normalize(features, dim=-1) @ rows.mT  # (n, dim) @ (dim, k) -> (n, k)


@torch.no_grad()
def frozen_features(model: DualEncoder, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
    """Features of length 1 of a tower that is not learnt."""
    return F.normalize(model.encode_pixels(pixels), dim=-1)


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


def best_setting(
    settings: Iterable[S], logits_of: Callable[[S], Float[Tensor, "n classes"]], labels: Int64[Tensor, " n"]
) -> S:
    """The setting whose logits name most pictures right; of several the one with the least cross-entropy."""

    def rank(setting: S) -> tuple[int, float]:
        logits = logits_of(setting)
        # compared in this order
        return int((logits.argmax(1) == labels).sum()), -F.cross_entropy(logits, labels).item()

    return max(settings, key=rank)


def unit_rows(
    model: DualEncoder, data: LabelledImages, templates: Sequence[str], given: Tensor | None = None
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


def as_edit(
    parts: Sequence[Part],
    names: Sequence[str],
    model: DualEncoder,
    task: FewShotTask,
    rows: Float[Tensor, "classes dim"],
    **facts: Any,
) -> Edit:
    """An edit of what was learnt, with the classes it was learnt from and how it does on the pictures kept apart."""
    about = {"classes": list(task.train.names), "images": len(task.train), **facts}
    return measured(Edit(tuple(parts), model.fingerprint(*names), about), model, task.test, rows.cpu())


def measured(result: R, model: DualEncoder, test: LabelledImages | None, rows: Float[Tensor, "classes dim"]) -> R:
    """The result, with how many pictures that were not learnt from are named right without and with it."""
    if test is None or not len(test):
        return result
    ways = {"without": TextClassifier(model, rows), "with": classifier_of(model, result, rows)}
    right = {
        name: int((each.logits(test.images).argmax(1).numpy() == test.labels).sum()) for name, each in ways.items()
    }
    known: Any = result
    made: R = replace(known, provenance={**known.provenance, "test": {"pictures": len(test), "right": right}})
    return made


def accuracy_view(result: Any) -> View:
    """Accuracy on pictures not learnt from, without and with what was learnt, with 95 % intervals."""
    found, trained = result.provenance.get("test"), result.provenance.get("trained")
    count = [Text(f"{trained:,} trained numbers")] if trained else []
    if not found:
        text = "accuracy: not measured, since every picture was learnt from; lower --shots to keep some apart"
        return View("accuracy", [Section("", [*count, Text(text)])])
    rows = []
    for name, label in (("without", "names alone (zero-shot)"), ("with", "with what was learnt")):
        share, low, high = wilson(found["right"][name], found["pictures"])
        rows.append([label, f"{share:.1%}", f"{low:.1%} to {high:.1%}"])
    title = f"accuracy on {found['pictures']:,} pictures not learnt from"
    return View("accuracy", [Section("", [*count, Table(["", "accuracy", "95 % interval"], rows, caption=title)])])
