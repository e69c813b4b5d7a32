"""Sparse fine-tuning by lottery tickets (LT-SFT): a difference of few entries, made to be added to those of other tasks.

Everything is fine-tuned once, the entries that moved most are chosen, the model is rewound, and only these are trained again. What
comes out is a sparse difference phi; a model of two skills is the base with phi of the one and phi of the other added.

Paper: Composable Sparse Fine-Tuning for Cross-Lingual Transfer (arXiv:2110.07560). Changed: an image tower in the place of a
language model; the L1 pull is on the second phase alone. Claims: ``lt_sft.*`` of benchmarks/edit/task_vectors.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Int64
from torch import Tensor

from photopic.core.edits import Edit, SparseWeights
from photopic.core.events import Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.few_shot_batches import Training
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates
from photopic.tune.few_shot._common import (
    Classifying,
    accuracy_view,
    as_edit,
    cosines,
    image_parameters,
    learn_weights,
    prepared,
)


@dataclass(frozen=True, kw_only=True)
class SparseFineTuningConfig(Training):
    """How to train; the steps are those of each of the two phases."""

    lr: Annotated[float, Gt(0)] = 3e-4  # size of a step at first; it falls along a half cosine
    share: Annotated[float, Gt(0), Le(1)] = 0.08  # share of the image tower's entries that are trained in the end
    l1: Annotated[float, Ge(0)] = 0.0  # pull of every trained entry to what it was; above 0 some go back to it


@method(
    paper="arXiv:2110.07560",
    claims="lt_sft.",
    command="tune sparse",
    examples=(
        "Example: photopic tune sparse emoji:held-out-concepts --shots 8 --share 0.05 -o task.edit",
        "Add two skills: photopic edit merge task.edit style.edit --by task-arithmetic -o both.edit",
    ),
    view=accuracy_view,
)
def sparse_fine_tuning(
    model: DualEncoder,
    data: FewShotTask,
    *,
    templates: Templates = TEMPLATES,
    config: SparseFineTuningConfig = SparseFineTuningConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Train the few weights that full fine-tuning moves most, as a sparse difference that adds to others (LT-SFT).

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: A few pictures of each class, and perhaps others to measure on.
        templates: Sentence with {} where a class name goes; several times.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        Values added at the chosen entries.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.

    Example:
        >>> sparse_fine_tuning(model, data).parts[0].kind  # doctest: +SKIP
        'values'
    """
    base, rows = image_parameters(model), (yield from prepared(model, data, templates))
    first, second = (None if run is None else run.part(name) for name in ("search", "tune"))
    moved = yield from learn_weights(model, data.train, config, list(base), rows, first)
    positions = most_moved({name: tensor - base[name] for name, tensor in moved.items()}, config.share)
    del moved  # rewound: the second phase starts from the base again
    learner = Difference(model, data.train, config, positions, rows)
    yield from fit(learner, config.steps, run=second)
    phi = {name: value.detach().cpu() for name, value in learner.tensors.items()}
    part = SparseWeights({name: each.cpu() for name, each in positions.items()}, phi, delta=True)
    return as_edit([part], list(phi), model, data, rows, trained=part.count)


def most_moved(differences: Mapping[str, Tensor], share: float) -> dict[str, Int64[Tensor, " count"]]:
    """The positions of the entries that differ most, over all tensors at once; at least one.

    Args:
        differences: Tensor name to what fine-tuning added.
        share: Of all entries.

    Example:
        >>> most_moved({"a": torch.tensor([0.0, -3.0]), "b": torch.tensor([2.0, 1.0])}, 0.5)
        {'a': tensor([1]), 'b': tensor([0])}
    """
    flat = torch.cat([each.abs().flatten() for each in differences.values()])  # (entries of all tensors,)
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[flat.topk(max(1, int(share * len(flat)))).indices] = True
    masks = chosen.split([each.numel() for each in differences.values()])
    found = {name: mask.nonzero().flatten() for name, mask in zip(differences, masks, strict=True)}
    return {name: positions for name, positions in found.items() if len(positions)}


class Difference(Classifying):
    """phi at the chosen entries, from 0, learnt by cross-entropy and l1 |phi|; the model's own weights are never written."""

    def __init__(
        self,
        model: DualEncoder,
        data: LabelledImages,
        config: SparseFineTuningConfig,
        positions: Mapping[str, Int64[Tensor, " count"]],
        rows: Float[Tensor, "classes dim"],
    ):
        base = {name: model.parameters(name)[name].detach() for name in positions}
        phi = {
            name: torch.zeros(len(each), device=model.device, requires_grad=True) for name, each in positions.items()
        }

        def logits(pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n classes"]:
            # theta_0 + phi: (entries,) with (count,) added at the positions, in the tensor's shape again
            weights = {
                name: each.flatten().index_add(0, positions[name], phi[name].to(each.dtype)).view_as(each)
                for name, each in base.items()
            }
            return cosines(model, model.functional(weights)(pixels), rows)

        super().__init__(model, data, config, phi, logits)
        self.l1 = config.l1

    def update(self, loss: Float[Tensor, ""], *, step: int) -> None:
        """One step down the loss with the pull of the entries to what they were."""
        pull = sum((each.abs().sum() for each in self.tensors.values()), torch.zeros((), device=loss.device))
        super().update(loss + self.l1 * pull, step=step)
