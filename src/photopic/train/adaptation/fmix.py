"""FMix: train a classifier on pictures cut together along the outlines of low-frequency noise, with labels mixed by area.

Such masks have any shape, unlike CutMix's boxes, and every pixel stays that of a real picture, unlike MixUp's. Both are options
beside it, so that they can be compared with everything else equal.

Paper: *FMix: Enhancing Mixed Sample Data Augmentation* (arXiv:2002.12047). Changed: the share of the loss is that of the mask after
rounding; edges stay hard; AdamW along a half cosine. Claims ``fmix.*`` of benchmarks/train/mixed_samples.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from photopic.core.edits import Edit
from photopic.core.errors import DataError
from photopic.core.events import Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.class_folder import ClassFolder
from photopic.data.few_shot import LabelledImages
from photopic.learning.few_shot_batches import Training, drawn, pictures_of
from photopic.learning.mixed_samples import Mixing, mixed
from photopic.learning.shared_classes import shown_classes
from photopic.learning.trained_weights import learnt_edit
from photopic.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class FMixConfig(Training):
    """How to train."""

    mixing: Mixing = "fmix"  # how two pictures become one: fmix, cutmix (a box), mixup (faded into each other) or none
    alpha: Annotated[float, Gt(0)] = 1.0  # shares are drawn from Beta(alpha, alpha): small ones lie near the ends
    decay: Annotated[float, Ge(0)] = 3.0  # of the mask's amplitudes with frequency; more gives larger, smoother parts
    steps: Annotated[int, Ge(1)] = 1000  # steps of learning; more takes longer
    lr: Annotated[float, Gt(0)] = 1e-3  # size of a step of AdamW at first; it falls along a half cosine
    batch: Annotated[int, Ge(2)] = 64  # pictures a step, all where there are fewer; they are mixed with each other
    weight_decay: Annotated[float, Ge(0)] = 0.05  # pull of matrices to 0, times the rate


@method(
    paper="arXiv:2002.12047",
    claims="fmix.",
    command="train fmix",
    examples=(
        "Example: photopic train fmix emoji-resnet-64-0 pictures/ -o mixed.edit",
        "The same steps with boxes: add --mixing cutmix",
    ),
)
def fmix(
    model: Classifier, data: ClassFolder | LabelledImages, *, config: FMixConfig = FMixConfig(), run: Run | None = None
) -> Steps[Edit]:
    """Train a classifier on mixed pictures: FMix, CutMix or MixUp.

    Args:
        model: A classifier of the classes: a bundled name, a folder of transformers, a hub id, or module:factory, also one with
            random weights.
        data: Pictures in one sub-folder a class, named as the class.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        What was added to all weights, and to the statistics of batch normalisation.

    Raises:
        DataError: If there are no sub-folders, fewer than two pictures, or a class is not the model's.
        ModelError: If the model is an exported program.

    Example:
        >>> edit = fmix(model, load_classes("pictures"), config=FMixConfig(steps=500))  # doctest: +SKIP
    """
    model.check_layers("learning")
    learner = MixedTraining(model, data, config)
    yield from fit(learner, config.steps, run=run)
    trained = sum(each.numel() for each in learner.tensors.values())
    return learnt_edit(model, learner.moved(), {"pictures": len(data), "trained": trained, "mixing": config.mixing})


class MixedTraining(OptimizedTensors):
    """A learner of a copy of a classifier, in training mode: dropout is on, and batch normalisation counts along."""

    def __init__(self, model: Classifier, data: ClassFolder | LabelledImages, config: FMixConfig):
        self.model, self.config = model, config
        self.images, labels = shown_classes(data, model.labels)
        if labels is None or len(labels) < 2:
            found = "pictures in no sub-folder" if labels is None else "one picture"
            raise DataError(f"pictures: expected two or more in sub-folders named as classes, found {found}")
        self.labels = labels
        self.network = deepcopy(model.network).train()
        tensors = {f"network.{name}": each.requires_grad_() for name, each in self.network.named_parameters()}
        groups = [
            {"params": [each for each in tensors.values() if (each.ndim > 1) == matrix], "weight_decay": decay}
            for matrix, decay in ((True, config.weight_decay), (False, 0.0))
        ]
        super().__init__(tensors, torch.optim.AdamW(groups, lr=config.lr), config.rate)

    def step(self, step: int) -> Mapping[str, float]:
        """One step down the loss of a mixed batch, a function of seed, step and weights."""
        index = drawn(len(self.images), self.config, step)
        pixels = self.model.preprocess(pictures_of(self.images, index, self.config, step))
        rng = np.random.default_rng((self.config.seed, 6, step))
        batch = mixed(pixels, self.config.mixing, rng, alpha=self.config.alpha, decay=self.config.decay)
        with torch.random.fork_rng(devices=[] if pixels.device.type == "cpu" else [pixels.device]):
            torch.manual_seed(self.config.seed * 1_000_003 + step)  # of dropout
            output = self.network(batch.pixels)
        labels = torch.from_numpy(self.labels[index]).to(pixels.device)
        loss = batch.loss(getattr(output, "logits", output), labels)
        self.update(loss, step=step)
        return {"loss": loss.item(), "share": batch.share}

    def moved(self) -> dict[str, Tensor]:
        """Weights and statistics, by the names of edits."""
        buffers = {f"network.{name}": each for name, each in self.network.named_buffers() if each.is_floating_point()}
        return dict(self.tensors) | buffers

    def state(self) -> dict[str, Tensor]:
        """The optimizer's, and the statistics."""
        return super().state() | self.moved()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""
        super().restore(state)
        with torch.no_grad():
            for name, tensor in self.moved().items():
                tensor.copy_(state[name])
