"""General knowledge transfer: teach a classifier what any other one knows better, without losing what it knows itself.

Of two classifiers each is right where the other is wrong, the weaker one too (`measure flips`). Plain distillation copies a teacher
with its mistakes. Here each picture is taught by whoever is surer of it: the teacher, or the student as it was before.

Paper: *Fantastic Gains and Where to Find Them: On the Existence and Prospect of General Knowledge Transfer between Any Pretrained
Model* (ICLR 2024, arXiv:2310.17653). Changed: AdamW without decay along a half cosine, normalisation keeps its statistics. Plain
KL divergence and weight interpolation stand beside it as in the paper. Claims ``transfer.*`` of benchmarks/train/distillation.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from photopic.core.edits import Edit
from photopic.core.errors import DataError
from photopic.core.events import Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.class_folder import ClassFolder
from photopic.data.few_shot import LabelledImages
from photopic.learning.few_shot_batches import RunningShare, Training, drawn, pictures_of
from photopic.learning.losses.distillation import distillation
from photopic.learning.shared_classes import class_order, shown_classes
from photopic.learning.trained_weights import learnt_edit, weight_copies
from photopic.models.classifier import Classifier

Partition = Literal["confidence", "labels", "none"]


@dataclass(frozen=True, kw_only=True)
class KnowledgeTransferConfig(Training):
    """How to teach."""

    lr: Annotated[float, Gt(0)] = 1e-4  # size of a step of AdamW at first; it falls along a half cosine
    batch: Annotated[int, Ge(1)] = 64  # pictures a step, all where there are fewer; lower it when memory is short
    augment: bool = (
        False  # crop pictures at random; both teachers are then asked anew at every step, which takes twice as long
    )
    # who teaches a picture: the surer of its likeliest class (confidence), the surer of its true class (labels), or always the
    # teacher (none), which is plain distillation
    partition: Partition = "confidence"
    temperature: Annotated[float, Gt(0)] = 1.0  # both sides are softened by; above 1 unlikely classes count more
    # share of the slow weights kept at a step, the rest comes from those that are trained, and the slow ones are the result;
    # 0 keeps the trained ones
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0


@method(
    paper="arXiv:2310.17653",
    claims="transfer.",
    command="train distill",
    examples=(
        "Example: photopic train distill emoji-vit-256-0 emoji-resnet-64-0 pictures/ -o taught.edit",
        "Plain distillation: add --partition none; with weight interpolation: add --momentum 0.98",
    ),
)
def knowledge_transfer(
    model: Classifier,
    teacher: Classifier,
    data: ClassFolder | LabelledImages,
    *,
    config: KnowledgeTransferConfig = KnowledgeTransferConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Teach a classifier what another one of the same classes knows better, without losing what it knows itself.

    Args:
        model: The student: a bundled name, a folder of transformers, a hub id, or module:factory.
        teacher: Any other classifier of the same classes, better or worse; an ONNX file will do.
        data: Pictures, which need no classes but for --partition labels.
        config: How to teach.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        What was added to the student's weights.

    Raises:
        ModelError: If the classes differ, or the student is an exported program.
        DataError: If there is no picture, or the partition is by labels and there are none.

    Example:
        >>> edit = knowledge_transfer(model, teacher, load_classes("pictures"))  # doctest: +SKIP
        >>> with model.edits.applied(edit):  # doctest: +SKIP
        ...     model.logits(images)
    """
    model.check_layers("learning")
    learner = _Transfer(model, teacher, data, config)
    yield from fit(learner, config.steps, run=run)
    facts = {"pictures": len(data), "teacher": teacher.name, "taught": round(learner.taught.value.item(), 4)}
    return learnt_edit(model, learner.slow or learner.tensors, facts)


class _Transfer(OptimizedTensors):
    """The student's weights; the student as it was and the teacher only answer."""

    def __init__(
        self,
        model: Classifier,
        teacher: Classifier,
        data: ClassFolder | LabelledImages,
        config: KnowledgeTransferConfig,
    ):
        self.model, self.teacher, self.config = model, teacher, config
        self.order = class_order(model, teacher)
        self.images, self.labels = shown_classes(data, model.labels)
        if config.partition == "labels" and self.labels is None:
            raise DataError(
                "pictures: expected sub-folders named as the classes for --partition labels, found pictures alone; sort them, or "
                "use --partition confidence"
            )
        tensors = weight_copies(model)
        # no decay: what the teacher does not move stays where it was
        optimizer = torch.optim.AdamW(tensors.values(), lr=config.lr, weight_decay=0.0)
        super().__init__(tensors, optimizer, config.rate)
        self.slow = {name: each.detach().clone() for name, each in tensors.items()} if config.momentum else {}
        self.taught = RunningShare()
        self.kept: tuple[Tensor, Tensor] | None = None
        if not (config.augment or config.flip):  # each picture is always seen as it is: both are asked once
            self.kept = model.logits(self.images), teacher.logits(self.images)[:, self.order]

    def step(self, step: int) -> Mapping[str, float]:
        index = drawn(len(self.images), self.config, step)
        pictures = pictures_of(self.images, index, self.config, step)
        pixels = self.model.preprocess(pictures)
        own, taught = self.answers(index, pictures, pixels)  # (n, classes)
        labels = None if self.labels is None else torch.from_numpy(self.labels[index]).to(own.device)
        by_teacher = partition(own, taught, self.config.partition, labels)
        logits = self.model.functional(self.tensors)(pixels)
        loss = distillation(logits, torch.where(by_teacher[:, None], taught, own), self.config.temperature)
        self.update(loss, step=step)
        with torch.no_grad():
            for name, slow in self.slow.items():  # eq. 3: slow <- tau slow + (1 - tau) fast
                slow.lerp_(self.tensors[name], 1 - self.config.momentum)
        return {"loss": loss.item(), "taught": self.taught.update(by_teacher.float().mean().item())}

    @torch.no_grad()
    def answers(self, index: Int64[np.ndarray, " n"], pictures: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the student as it was and of the teacher, in the student's order of classes."""
        if self.kept is not None:
            return self.kept[0][index].to(pixels), self.kept[1][index].to(pixels)
        taught = self.teacher.forward(self.teacher.preprocess(pictures))[:, self.order]
        return self.model.forward(pixels), taught.to(pixels)

    def state(self) -> dict[str, Tensor]:
        return (
            super().state() | {f"slow.{name}": each for name, each in self.slow.items()} | {"taught": self.taught.value}
        )

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        for name, slow in self.slow.items():
            slow.copy_(state[f"slow.{name}"])
        self.taught.value.copy_(state["taught"])


def partition(
    own: Float[Tensor, "n classes"],
    taught: Float[Tensor, "n classes"],
    how: Partition,
    labels: Int64[Tensor, " n"] | None = None,
) -> Bool[Tensor, " n"]:
    """Which pictures the teacher teaches: those it is surer of than the student was; the others the student keeps.

    Args:
        own: Logits of the student as it was.
        taught: Those of the teacher, in the same order of classes.
        how: Sure of the true class (``labels``) or of the likeliest (``confidence``); ``none`` gives all to the teacher.
        labels: The true classes, for ``labels``.

    Example:
        >>> own, taught = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[0.0, 3.0], [0.0, 1.0]])
        >>> partition(own, taught, "confidence"), partition(own, taught, "labels", torch.tensor([0, 0]))
        (tensor([ True, False]), tensor([False,  True]))
    """
    if how == "none":
        return torch.ones(len(own), dtype=torch.bool, device=own.device)
    chances: Any = [each.softmax(1) for each in (own, taught)]  # (n, classes)
    if how == "labels":
        assert labels is not None
        mine, others = (each.gather(1, labels[:, None])[:, 0] for each in chances)  # of the true class
    else:
        mine, others = (each.amax(1) for each in chances)
    found: Tensor = others > mine
    return found
