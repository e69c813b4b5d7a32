"""aTLAS: task vectors are added with one learnt number for each of their parameter blocks, in place of one for all.

theta = theta_0 + sum_i Lambda_i tau_i with Lambda_i constant on each tensor of the network. The numbers are learnt from a few
labelled pictures, to forget a task while another is kept, or from unlabelled pictures by the entropy of what is predicted.

Paper: Knowledge Composition using Task Vectors with Learned Anisotropic Scaling (arXiv:2407.02880). Changed: test-time adaptation
lowers the entropy alone, and a block is a parameter tensor. Claims: ``atlas.*`` of benchmarks/edit/task_vectors.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Flags
from photopic.core.edits import Edit
from photopic.core.edits.stored import StoredEdit
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.edit.merging._common import Changes, as_edit, check_model
from photopic.learning.class_logits import class_logits
from photopic.learning.few_shot_batches import Training, batch_at, check_trainable
from photopic.models.dual_encoder import DualEncoder


@dataclass(frozen=True, kw_only=True)
class AnisotropicScalingConfig(Training):
    """How to learn the coefficients."""

    # learn: be right on --images; forget: be wrong on --images and right on --control; adapt: be sure on --images, labels unread
    objective: Literal["learn", "forget", "adapt"] = "learn"
    lr: Annotated[float, Gt(0)] = 3e-2  # size of a step at first; it falls along a half cosine
    balance: Annotated[float, Ge(0)] = 1.0  # weight of the control task against what is to be forgotten


@method(
    paper="arXiv:2407.02880",
    claims="atlas.",
    command="edit atlas",
    examples=(
        "Example: photopic edit atlas noto.edit twemoji.edit --images pictures/ --model emoji-clip-vit --shots 4 -o mine.edit",
        "Forget: photopic edit atlas a.edit --objective forget --images a/ --control b/ --model emoji-clip-vit -o less.edit",
    ),
    after=("next: photopic inspect {output}",),
)
def anisotropic_scaling(
    edits: Sequence[StoredEdit] | Sequence[Edit],
    *,
    model: DualEncoder,
    data: Annotated[FewShotTask, Flags("--images")],
    control: Annotated[FewShotTask | None, Flags("--control")] = None,
    config: AnisotropicScalingConfig = AnisotropicScalingConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Learn how much of each layer of several edits to take, from few pictures (aTLAS).

    Args:
        edits: One or more edits of weights, all for the model: the task vectors.
        model: Their base model.
        data: Pictures of what is to be learnt, forgotten or adapted to.
        control: Pictures of what is to be kept; needed to forget.
        config: How to learn.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        What is added to the base; the provenance holds the coefficients.

    Raises:
        DataError: If there is one class only, or nothing is given that is to be kept.
        EditError: If an edit does more than change weights, or the model is not its base.

    Example:
        >>> anisotropic_scaling([noto], model=model, data=data).provenance["trained"]  # doctest: +SKIP
        53
    """
    if (control is None) == (config.objective == "forget"):
        found = "none" if control is None else "some"
        raise DataError(
            f"--control: expected pictures of what is kept with --objective forget and nowhere else, found {found}"
        )
    changes = Changes(edits, model)
    check_model(model, changes, at_least=1)
    for each in [data] if control is None else [data, control]:
        check_trainable(each.train)
    yield Event("preparing")
    taus = [dict(changes.of(number)) for number in range(len(changes))]
    learner = Scaling(model, taus, data.train, None if control is None else control.train, config)
    yield from fit(learner, config.steps, run=run)
    totals = {name: delta.detach().flatten().float().cpu() for name, delta in learner.deltas().items()}
    trained = sum(map(len, learner.tensors.values()))
    return as_edit(totals, changes, trained=trained, coefficients=learner.by_block())


class Scaling(OptimizedTensors):
    """One vector of coefficients an edit, a number for each tensor it touches, from 0: the base.

    Args:
        model: The base; its own weights are never written.
        taus: Of each edit, tensor name to what it adds to each entry.
        data: What the objective is about.
        control: What is kept while that is forgotten.
        config: How to learn.
    """

    def __init__(
        self,
        model: DualEncoder,
        taus: Sequence[Mapping[str, Tensor]],
        data: LabelledImages,
        control: LabelledImages | None,
        config: AnisotropicScalingConfig,
    ):
        names = sorted({name for tau in taus for name in tau})
        self.model, self.data, self.control, self.config = model, data, control, config
        self.base = {name: model.parameters(name)[name].detach() for name in names}
        # (entries,) -> the tensor's shape, on the model's device
        self.taus = [
            {name: each.to(model.device).view_as(self.base[name]) for name, each in tau.items()} for tau in taus
        ]
        coefficients = {
            str(number): torch.zeros(len(tau), device=model.device, requires_grad=True)
            for number, tau in enumerate(taus)
        }
        super().__init__(coefficients, torch.optim.Adam(coefficients.values(), lr=config.lr), config.rate)
        self.logits = {id(each): class_logits(model, each.names) for each in (data, control) if each is not None}

    def deltas(self) -> dict[str, Tensor]:
        """sum_i Lambda_i tau_i by tensor name; gradients flow to the coefficients."""
        found: dict[str, Tensor] = {}
        for coefficients, tau in zip(self.tensors.values(), self.taus, strict=True):
            for coefficient, (name, each) in zip(coefficients, tau.items(), strict=True):
                scaled = coefficient * each
                found[name] = found[name] + scaled if name in found else scaled
        return found

    def by_block(self) -> dict[str, list[float]]:
        """The coefficients of each tensor, one an edit that touches it."""
        found: dict[str, list[float]] = {}
        for coefficients, tau in zip(self.tensors.values(), self.taus, strict=True):
            for coefficient, name in zip(coefficients.tolist(), tau, strict=True):
                found.setdefault(name, []).append(round(coefficient, 6))
        return found

    def step(self, step: int) -> Mapping[str, float]:
        """One step of the objective."""
        weights = {name: (self.base[name] + delta).to(self.base[name].dtype) for name, delta in self.deltas().items()}
        loss, right = self._loss(weights, self.data, step, unlabelled=self.config.objective == "adapt")
        numbers = {"accuracy": right}
        if self.control is not None:
            kept, right = self._loss(weights, self.control, step)
            loss = self.config.balance * kept - loss  # up on what is forgotten, down on what is kept
            numbers["accuracy of control"] = right
        self.update(loss, step=step)
        return {"loss": loss.item(), **numbers}

    def _loss(
        self, weights: Mapping[str, Tensor], data: LabelledImages, step: int, *, unlabelled: bool = False
    ) -> tuple[Tensor, float]:
        """Cross-entropy, or without labels the mean entropy, of a batch; and the share that is right."""
        _, pixels, labels = batch_at(self.model, data, self.config, step)
        log_p = self.logits[id(data)](weights)(pixels).log_softmax(1)  # (batch, classes)
        loss = -(log_p.exp() * log_p).sum(1).mean() if unlabelled else F.nll_loss(log_p, labels)
        return loss, float((log_p.argmax(1) == labels).float().mean())
